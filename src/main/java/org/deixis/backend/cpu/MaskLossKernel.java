package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.MaskLoss;

/**
 * Mask loss and its gradient in one pass over the bitmaps. Rows of logits are stretched to full
 * width once; between two of them lie the full-resolution rows that mix both, whose logits and
 * gradients exist in registers only. What a row of the picture sends back to its two rows of logits
 * is summed at full width and narrowed once a row.
 *
 * <p>The Dice term's gradient needs sums over the whole picture: with n = 2Σpt + 1 and d = Σp + Σt
 * + 1 it is (n/d² − 2t/d)·p(1−p), linear in two quantities that do not need them, so p(1−p) and
 * t·p(1−p) are sent back separately and combined at low resolution.
 *
 * <p>The rows between two rows of logits are worked on in several short loops that hand on what
 * they found through the first-level cache. In one loop the compiler would pass its
 * NodeCountInliningCutoff, and from there on give vectors to {@link LossMath} as objects.
 *
 * <p>A picture is one task, or where there are few pictures several bands of rows; the shape alone
 * decides.
 */
final class MaskLossKernel {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final int L = VectorMath.LANES;

  /** Tasks that are enough for any number of threads. */
  private static final int TASKS = 16;

  /**
   * A logit whose loss, probability and gradients are 0 in floats: fills lanes beyond the width.
   */
  private static final float NOTHING = -1e4f;

  /** Sums of vectors after which lanes are added up in double precision. */
  private static final int FLUSH = 512;

  /** Quantities sent back: the element's derivative, t·p(1−p) and p(1−p). */
  private static final int PARTS = 3;

  /** Sums over pixels: loss, p, t, p·t. */
  private static final int SUMS = 4;

  // slots of a task's scratch
  private static final int STRETCHED = 0;
  private static final int BACK = 1;
  private static final int TARGET = 2;
  private static final int LANE_SUMS = 3;
  private static final int LOW = 4;
  private static final int LOGITS = 5;
  private static final int TAILS = 6;
  private static final int INVERSES = 7;
  private static final int DERIVATIVES = 8;
  private static final int ENTROPIES = 9;
  private static final int GAPS = 10;
  private static final int LOGARITHMS = 11;

  // slots of a call's scratch
  private static final int GRADIENT = Scratch.CALL;
  private static final int EDGES = Scratch.CALL + 1;

  private final MaskLoss s;
  private final FloatBuffer logits;
  private final int logitsStart;
  private final ByteTile mask;

  /** Whether gradients are wanted. */
  private final boolean backward;

  private final Taps rows;
  private final Taps columns;

  /** Full width in whole vectors. */
  private final int wide;

  private final int bands;
  private final double[] sums;

  /** Low-resolution gradients (batch, PARTS, h, w), without what a band sends to the next. */
  private final float[] gradient;

  /** What a band sends to the first row of the next: (batch, bands, PARTS, w). */
  private final float[] edges;

  private MaskLossKernel(MaskLoss s, Array logits, Array mask, boolean backward) {
    this.s = s;
    this.backward = backward;
    this.logits = HostBuffer.of(logits).floats();
    this.logitsStart = Math.toIntExact(logits.offset());
    this.mask = ByteTile.of(mask);
    rows = Taps.of(s.lowHeight(), s.height());
    columns = Taps.of(s.lowWidth(), s.width());
    wide = VectorMath.pad(s.width());
    bands = Math.max(1, Math.min(s.lowHeight() / 2, TASKS / s.batch()));
    Scratch scratch = Scratch.here();
    int tasks = s.batch() * bands;
    sums = scratch.doubles(tasks * SUMS);
    gradient = scratch.floats(GRADIENT, (long) s.batch() * PARTS * s.lowHeight() * s.lowWidth());
    edges = scratch.floats(EDGES, (long) tasks * PARTS * s.lowWidth());
  }

  static void run(
      WorkerPool pool, MaskLoss s, Array logits, Array mask, Array loss, Array dLogits) {
    if (s.batch() == 0) {
      return;
    }
    if (mask.size() == 0) { // pictures without pixels: a mean over nothing
      zero(loss);
      if (dLogits != null) {
        zero(dLogits);
      }
      return;
    }
    MaskLossKernel kernel = new MaskLossKernel(s, logits, mask, dLogits != null);
    pool.parallelFor(
        s.batch() * kernel.bands, task -> kernel.band(task / kernel.bands, task % kernel.bands));
    for (int b = 0; b < s.batch(); b++) {
      kernel.finish(b, loss, dLogits);
    }
  }

  private static void zero(Array array) {
    FloatBuffer floats = HostBuffer.of(array).floats();
    int start = Math.toIntExact(array.offset());
    for (int i = 0; i < array.size(); i++) {
      floats.put(start + i, 0);
    }
  }

  /** One band: its rows of logits and what lies between them and the row after. */
  private void band(int b, int band) {
    Scratch scratch = Scratch.here();
    int from = (int) ((long) s.lowHeight() * band / bands);
    int to = (int) ((long) s.lowHeight() * (band + 1) / bands);
    float[] stretched = scratch.floats(STRETCHED, 2L * wide);
    float[] back = scratch.zeros(BACK, 2L * PARTS * wide);
    float[] lanes = scratch.zeros(LANE_SUMS, SUMS * L);
    int task = b * bands + band;
    Arrays.fill(sums, task * SUMS, (task + 1) * SUMS, 0);
    stretch(scratch, b, from, stretched, 0);
    int upper = 0; // which half of the arrays belongs to the row above
    int pending = 0;
    for (int r = from; r < to; r++) {
      int first = rows.first[r];
      int n = rows.first[r + 1] - first;
      boolean last = r + 1 == s.lowHeight();
      int lower = 1 - upper;
      if (last) {
        System.arraycopy(stretched, upper * wide, stretched, lower * wide, wide);
      } else {
        stretch(scratch, b, r + 1, stretched, lower * wide);
      }
      if (backward) {
        Arrays.fill(back, lower * PARTS * wide, (lower + 1) * PARTS * wide, 0);
      }
      float[] target = scratch.floats(TARGET, Math.max(1, (long) n * wide));
      for (int i = 0; i < n; i++) {
        mask.read(scratch, (b * s.height() + first + i) * s.width(), s.width(), target, i * wide);
        Arrays.fill(target, i * wide + s.width(), (i + 1) * wide, 0);
      }
      between(new Lines(this, scratch, n, first, upper, stretched, target, back, lanes));
      pending += n * (wide / L);
      if (pending > FLUSH) {
        flush(lanes, task);
        pending = 0;
      }
      if (!backward) {
        upper = lower;
        continue;
      }
      if (last) {
        AttentionTile.add(PARTS * wide, back, lower * PARTS * wide, back, upper * PARTS * wide);
      }
      for (int part = 0; part < PARTS; part++) {
        int low = ((b * PARTS + part) * s.lowHeight() + r) * s.lowWidth();
        narrow(back, (upper * PARTS + part) * wide, gradient, low);
      }
      upper = lower;
    }
    flush(lanes, task);
    if (backward && to < s.lowHeight()) {
      for (int part = 0; part < PARTS; part++) {
        narrow(back, (upper * PARTS + part) * wide, edges, (task * PARTS + part) * s.lowWidth());
      }
    }
  }

  /** Up-samples one row of logits along the width. */
  private void stretch(Scratch scratch, int b, int row, float[] to, int offset) {
    float[] low = scratch.floats(LOW, s.lowWidth());
    logits.get(logitsStart + (b * s.lowHeight() + row) * s.lowWidth(), low, 0, s.lowWidth());
    for (int j = 0; j < s.width(); j++) {
      float left = low[columns.low[j]];
      to[offset + j] = left + columns.share[j] * (low[columns.high[j]] - left);
    }
    Arrays.fill(to, offset + s.width(), offset + wide, NOTHING);
  }

  /** The adjoint of {@link #stretch}. */
  private void narrow(float[] from, int offset, float[] to, int toOffset) {
    Arrays.fill(to, toOffset, toOffset + s.lowWidth(), 0);
    for (int j = 0; j < s.width(); j++) {
      float g = from[offset + j];
      float right = columns.share[j] * g;
      to[toOffset + columns.low[j]] += g - right;
      to[toOffset + columns.high[j]] += right;
    }
  }

  private void flush(float[] lanes, int task) {
    for (int sum = 0; sum < SUMS; sum++) {
      double total = 0;
      for (int lane = 0; lane < L; lane++) {
        total += lanes[sum * L + lane];
        lanes[sum * L + lane] = 0;
      }
      sums[task * SUMS + sum] += total;
    }
  }

  /** The rows of the picture between row {@code upper} of the logits and the next. */
  private static final class Lines {
    final int n;
    final int first;
    final int upper;
    final int size;
    final float[] stretched;
    final float[] target;
    final float[] back;
    final float[] lanes;
    final float[] z;
    final float[] e;
    final float[] inverse;
    final float[] g;
    final float[] entropy;
    final float[] gap;
    final float[] logarithm;

    Lines(
        MaskLossKernel k,
        Scratch scratch,
        int n,
        int first,
        int upper,
        float[] stretched,
        float[] target,
        float[] back,
        float[] lanes) {
      this.n = n;
      this.first = first;
      this.upper = upper;
      this.stretched = stretched;
      this.target = target;
      this.back = back;
      this.lanes = lanes;
      size = n * k.wide;
      z = scratch.floats(LOGITS, size);
      e = scratch.floats(TAILS, size);
      inverse = scratch.floats(INVERSES, size);
      g = scratch.floats(DERIVATIVES, size);
      entropy = k.s.focal() ? scratch.floats(ENTROPIES, size) : null;
      gap = k.s.focal() ? scratch.floats(GAPS, size) : null;
      logarithm = k.s.focal() ? scratch.floats(LOGARITHMS, size) : null;
    }
  }

  /** A loop over the pixels of some lines. */
  private interface Step {
    void run(MaskLossKernel k, Lines l);
  }

  private static final Step MIX =
      (k, l) -> {
        for (int i = 0; i < l.n; i++) {
          k.mix(k.rows.share[l.first + i], l.upper, l.stretched, l.z, i * k.wide);
        }
      };

  private static final Step EXPONENTIALS = (k, l) -> tails(l.size, l.z, l.e, l.inverse);

  private static final Step SUM = (k, l) -> k.sums(l.n, l.z, l.target, l.e, l.inverse, l.lanes);

  private static final Step BACKWARD =
      (k, l) -> {
        for (int j = 0; j < k.wide; j += L) {
          k.derivatives(l.n, l.first, j, l.upper, l.target, l.e, l.inverse, l.g, l.back);
        }
      };

  private static final Step[] PLAIN = {
    MIX,
    EXPONENTIALS,
    (k, l) -> k.plain(l.n, l.z, l.target, l.e, l.inverse, l.g, l.lanes),
    SUM,
    BACKWARD
  };

  private static final Step[] FOCAL = {
    MIX,
    EXPONENTIALS,
    (k, l) -> entropies(l.size, l.z, l.target, l.e, l.entropy),
    (k, l) -> gaps(l.size, l.entropy, l.gap, l.logarithm),
    (k, l) -> k.focal(l.n, l.entropy, l.gap, l.logarithm, l.g, l.lanes),
    (k, l) -> residuals(l.size, l.z, l.target, l.e, l.inverse, l.g),
    SUM,
    BACKWARD
  };

  /**
   * Steps are called from one place that has seen many of them, so that the compiler does not
   * inline them into one method: that would pass the size from which on it calls methods with
   * vectors as objects.
   */
  private void between(Lines l) {
    if (l.size == 0) {
      return;
    }
    Step[] steps = s.focal() ? FOCAL : PLAIN;
    int count = backward ? steps.length : steps.length - 1;
    for (int i = 0; i < count; i++) {
      steps[i].run(this, l);
    }
  }

  /** One row of the picture's logits. */
  private void mix(float share, int upper, float[] stretched, float[] z, int offset) {
    FloatVector part = FloatVector.broadcast(S, share);
    int above = upper * wide;
    int below = (1 - upper) * wide;
    for (int j = 0; j < wide; j += L) {
      FloatVector top = FloatVector.fromArray(S, stretched, above + j);
      FloatVector.fromArray(S, stretched, below + j)
          .sub(top)
          .fma(part, top)
          .intoArray(z, offset + j);
    }
  }

  /** e = exp(−|z|) and 1 / (1 + e). */
  private static void tails(int size, float[] z, float[] e, float[] inverse) {
    for (int i = 0; i < size; i += L) {
      FloatVector tail = LossMath.tail(FloatVector.fromArray(S, z, i));
      tail.intoArray(e, i);
      FloatVector.broadcast(S, 1f).div(tail.add(1f)).intoArray(inverse, i);
    }
  }

  /** Cross-entropy: its sum, column by column, and its derivatives by the logits. */
  private void plain(
      int n,
      float[] logits,
      float[] target,
      float[] tails,
      float[] inverses,
      float[] derivatives,
      float[] lanes) {
    for (int j = 0; j < wide; j += L) {
      plainColumn(n, j, logits, target, tails, inverses, derivatives, lanes);
    }
  }

  /** Sums start and end in {@code lanes}: carried through two loops, they would be objects. */
  private void plainColumn(
      int n,
      int j,
      float[] logits,
      float[] target,
      float[] tails,
      float[] inverses,
      float[] derivatives,
      float[] lanes) {
    FloatVector loss = FloatVector.fromArray(S, lanes, 0);
    for (int i = j; i < n * wide; i += wide) {
      FloatVector z = FloatVector.fromArray(S, logits, i);
      FloatVector t = FloatVector.fromArray(S, target, i);
      FloatVector e = FloatVector.fromArray(S, tails, i);
      loss = loss.add(LossMath.crossEntropy(z, t, e));
      LossMath.residual(z, t, e, FloatVector.fromArray(S, inverses, i)).intoArray(derivatives, i);
    }
    loss.intoArray(lanes, 0);
  }

  /** Cross-entropy of every pixel. */
  private static void entropies(
      int size, float[] logits, float[] target, float[] tails, float[] entropy) {
    for (int i = 0; i < size; i += L) {
      FloatVector t = FloatVector.fromArray(S, target, i);
      FloatVector e = FloatVector.fromArray(S, tails, i);
      LossMath.crossEntropy(FloatVector.fromArray(S, logits, i), t, e).intoArray(entropy, i);
    }
  }

  /** u = 1 − exp(−bce), the probability that the pixel lacks, and its logarithm. */
  private static void gaps(int size, float[] entropy, float[] gap, float[] logarithm) {
    for (int i = 0; i < size; i += L) {
      LossMath.positive(LossMath.oneMinusExp(FloatVector.fromArray(S, entropy, i)))
          .intoArray(gap, i);
    }
    for (int i = 0; i < size; i += L) {
      VectorMath.log(FloatVector.fromArray(S, gap, i)).intoArray(logarithm, i);
    }
  }

  /** As {@link #plain}, with the focal form alpha·u^gamma·bce; its derivatives by bce. */
  private void focal(
      int n, float[] entropy, float[] gap, float[] logarithm, float[] derivatives, float[] lanes) {
    for (int j = 0; j < wide; j += L) {
      focalColumn(n, j, entropy, gap, logarithm, derivatives, lanes);
    }
  }

  /** From derivatives by bce to those by the logits. */
  private static void residuals(
      int size,
      float[] logits,
      float[] target,
      float[] tails,
      float[] inverses,
      float[] derivatives) {
    for (int i = 0; i < size; i += L) {
      FloatVector z = FloatVector.fromArray(S, logits, i);
      FloatVector t = FloatVector.fromArray(S, target, i);
      FloatVector e = FloatVector.fromArray(S, tails, i);
      LossMath.residual(z, t, e, FloatVector.fromArray(S, inverses, i))
          .mul(FloatVector.fromArray(S, derivatives, i))
          .intoArray(derivatives, i);
    }
  }

  private void focalColumn(
      int n,
      int j,
      float[] entropy,
      float[] gap,
      float[] logarithm,
      float[] derivatives,
      float[] lanes) {
    float alpha = s.alpha();
    float gamma = s.gamma();
    FloatVector loss = FloatVector.fromArray(S, lanes, 0);
    for (int i = j; i < n * wide; i += wide) {
      FloatVector bce = FloatVector.fromArray(S, entropy, i);
      FloatVector power =
          VectorMath.expBelow(FloatVector.fromArray(S, logarithm, i).mul(gamma)).mul(alpha);
      loss = power.fma(bce, loss);
      LossMath.focalSlope(FloatVector.fromArray(S, gap, i), power, bce, gamma)
          .intoArray(derivatives, i);
    }
    loss.intoArray(lanes, 0);
  }

  /** Σp, Σt and Σp·t. */
  private void sums(
      int n, float[] logits, float[] target, float[] tails, float[] inverses, float[] lanes) {
    for (int j = 0; j < wide; j += L) {
      sumsColumn(n, j, logits, target, tails, inverses, lanes);
    }
  }

  private void sumsColumn(
      int n,
      int j,
      float[] logits,
      float[] target,
      float[] tails,
      float[] inverses,
      float[] lanes) {
    FloatVector sumP = FloatVector.fromArray(S, lanes, L);
    FloatVector sumT = FloatVector.fromArray(S, lanes, 2 * L);
    FloatVector sumPt = FloatVector.fromArray(S, lanes, 3 * L);
    for (int i = j; i < n * wide; i += wide) {
      FloatVector z = FloatVector.fromArray(S, logits, i);
      FloatVector t = FloatVector.fromArray(S, target, i);
      FloatVector e = FloatVector.fromArray(S, tails, i);
      FloatVector p = LossMath.sigmoid(z, e, FloatVector.fromArray(S, inverses, i));
      sumP = sumP.add(p);
      sumT = sumT.add(t);
      sumPt = p.fma(t, sumPt);
    }
    sumP.intoArray(lanes, L);
    sumT.intoArray(lanes, 2 * L);
    sumPt.intoArray(lanes, 3 * L);
  }

  /** What one vector of columns of n rows sends back to the rows of logits around them. */
  private void derivatives(
      int n,
      int first,
      int j,
      int upper,
      float[] target,
      float[] tails,
      float[] inverses,
      float[] derivatives,
      float[] back) {
    FloatVector all0 = FloatVector.zero(S);
    FloatVector low0 = FloatVector.zero(S);
    FloatVector all1 = FloatVector.zero(S);
    FloatVector low1 = FloatVector.zero(S);
    FloatVector all2 = FloatVector.zero(S);
    FloatVector low2 = FloatVector.zero(S);
    for (int i = 0; i < n; i++) {
      int at = i * wide + j;
      FloatVector share = FloatVector.broadcast(S, rows.share[first + i]);
      FloatVector g = FloatVector.fromArray(S, derivatives, at);
      FloatVector inverse = FloatVector.fromArray(S, inverses, at);
      FloatVector slope = FloatVector.fromArray(S, tails, at).mul(inverse).mul(inverse);
      FloatVector h = FloatVector.fromArray(S, target, at).mul(slope);
      all0 = all0.add(g);
      low0 = g.fma(share, low0);
      all1 = all1.add(h);
      low1 = h.fma(share, low1);
      all2 = all2.add(slope);
      low2 = slope.fma(share, low2);
    }
    int above = upper * PARTS * wide + j;
    int below = (1 - upper) * PARTS * wide + j;
    send(all0, low0, back, above, below);
    send(all1, low1, back, above + wide, below + wide);
    send(all2, low2, back, above + 2 * wide, below + 2 * wide);
  }

  /** Adds all − low to the row above, low to the row below. */
  private static void send(FloatVector all, FloatVector low, float[] back, int above, int below) {
    FloatVector.fromArray(S, back, above).add(all.sub(low)).intoArray(back, above);
    FloatVector.fromArray(S, back, below).add(low).intoArray(back, below);
  }

  private void finish(int b, Array loss, Array dLogits) {
    double[] total = new double[SUMS];
    for (int band = 0; band < bands; band++) {
      for (int sum = 0; sum < SUMS; sum++) {
        total[sum] += sums[(b * bands + band) * SUMS + sum];
      }
    }
    double pixels = (double) s.height() * s.width();
    double numerator = 2 * total[3] + 1;
    double denominator = total[1] + total[2] + 1;
    double value = total[0] / pixels + s.diceWeight() * (1 - numerator / denominator);
    HostBuffer.of(loss).floats().put(Math.toIntExact(loss.offset()) + b, (float) value);
    if (dLogits == null) {
      return;
    }
    int low = s.lowHeight() * s.lowWidth();
    int base = b * PARTS * low;
    for (int band = 0; band + 1 < bands; band++) {
      int row = (int) ((long) s.lowHeight() * (band + 1) / bands) * s.lowWidth();
      for (int part = 0; part < PARTS; part++) {
        AttentionTile.add(
            s.lowWidth(),
            edges,
            ((b * bands + band) * PARTS + part) * s.lowWidth(),
            gradient,
            base + part * low + row);
      }
    }
    float perPixel = (float) (1 / pixels);
    float withTarget = (float) (-2 * s.diceWeight() / denominator);
    float alone = (float) (s.diceWeight() * numerator / (denominator * denominator));
    for (int i = base; i < base + low; i++) {
      gradient[i] =
          perPixel * gradient[i] + withTarget * gradient[i + low] + alone * gradient[i + 2 * low];
    }
    HostBuffer.of(dLogits)
        .floats()
        .put(Math.toIntExact(dLogits.offset()) + b * low, gradient, base, low);
  }
}
