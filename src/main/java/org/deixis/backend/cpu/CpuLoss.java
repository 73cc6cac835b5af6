package org.deixis.backend.cpu;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.MaskLoss;
import org.deixis.core.DType;

/** Losses with their gradients in one pass. */
final class CpuLoss {
  private static final VectorSpecies<Float> SPECIES = VectorMath.SPECIES;

  private final WorkerPool pool;

  CpuLoss(WorkerPool pool) {
    this.pool = pool;
  }

  private static FloatBuffer floats(Array a) {
    return HostBuffer.of(a).floats();
  }

  private static int start(Array a) {
    return Math.toIntExact(a.offset());
  }

  /**
   * One line of pixels: logits and targets in, and what is found for each. Lengths are padded to
   * whole vectors.
   */
  private static final class Line {
    final float[] z;
    final float[] t;
    final float[] loss;
    final float[] slope;
    final float[] p;

    Line(int n) {
      int padded = VectorMath.pad(n);
      z = new float[padded];
      t = new float[padded];
      loss = new float[padded];
      slope = new float[padded];
      p = new float[padded];
    }

    /**
     * Elementwise cross-entropy (or focal loss) and its derivative, and p = sigmoid(z). With b the
     * cross-entropy and q = 1 − e^−b, focal is α·q^γ·b, its derivative by b α·(q^γ +
     * γ·q^(γ−1)·(1−q)·b).
     */
    void run(int n, boolean focal, float alpha, float gamma) {
      for (int i = 0; i < n; i += SPECIES.length()) {
        FloatVector x = FloatVector.fromArray(SPECIES, z, i);
        FloatVector y = FloatVector.fromArray(SPECIES, t, i);
        FloatVector e = VectorMath.exp(x.abs().neg());
        FloatVector b = x.max(0).sub(x.mul(y)).add(VectorMath.log1pUnit(e));
        FloatVector one = FloatVector.broadcast(SPECIES, 1);
        FloatVector ratio = one.div(e.add(1));
        // sigmoid without cancellation: 1/(1+e) on the right, e/(1+e) on the left
        FloatVector s = ratio.blend(e.mul(ratio), x.compare(VectorOperators.LT, 0));
        FloatVector d = s.sub(y);
        if (focal) {
          FloatVector rest = VectorMath.exp(b.neg());
          FloatVector q = one.sub(rest);
          FloatVector less = power(q, gamma - 1);
          FloatVector full = less.mul(q);
          d = d.mul(less.mul(rest).mul(b).mul(gamma).add(full).mul(alpha));
          b = full.mul(b).mul(alpha);
        }
        b.intoArray(loss, i);
        d.intoArray(slope, i);
        s.intoArray(p, i);
      }
    }

    private static FloatVector power(FloatVector q, float exponent) {
      if (exponent == 1) {
        return q;
      }
      FloatVector r = VectorMath.exp(VectorMath.log(q.max(1e-30f)).mul(exponent));
      return exponent == 0 ? FloatVector.broadcast(SPECIES, 1) : r;
    }
  }

  void maskLoss(MaskLoss spec, Array logits, Array mask, Array loss, Array dLogits) {
    Interpolation rows = new Interpolation(spec.lowHeight(), spec.height());
    Interpolation columns = new Interpolation(spec.lowWidth(), spec.width());
    pool.parallelFor(
        spec.batch(), b -> new Picture(spec, rows, columns).run(b, logits, mask, loss, dLogits));
  }

  /**
   * One picture's loss. Dice's gradient needs sums over the whole picture, but is linear in two
   * fields of pixels, p(1−p)t and p(1−p): both are carried to low resolution on the way and joined
   * at the end, so that one pass is enough.
   */
  private static final class Picture {
    private final MaskLoss spec;
    private final Interpolation rows;
    private final Interpolation columns;
    private final Line line;
    private final float[] blended;
    private final float[][] fields;
    private final float[] narrow;

    Picture(MaskLoss spec, Interpolation rows, Interpolation columns) {
      this.spec = spec;
      this.rows = rows;
      this.columns = columns;
      line = new Line(spec.width());
      blended = new float[spec.lowWidth()];
      narrow = new float[spec.lowWidth()];
      fields = new float[spec.diceWeight() != 0 ? 3 : 1][spec.lowHeight() * spec.lowWidth()];
    }

    void run(int b, Array logits, Array mask, Array loss, Array dLogits) {
      int low = spec.lowHeight() * spec.lowWidth();
      float[] z = new float[low];
      floats(logits).get(start(logits) + b * low, z);
      byte[] bits = new byte[spec.width()];
      boolean bytes = mask.dtype() == DType.U8;
      ByteBuffer raw = bytes ? HostBuffer.of(mask).bytesView() : null;
      double sum = 0;
      double overlap = 0;
      double predicted = 0;
      double truth = 0;
      boolean dice = spec.diceWeight() != 0;
      int width = spec.width();
      for (int y = 0; y < spec.height(); y++) {
        int at = start(mask) + (b * spec.height() + y) * width;
        if (bytes) {
          raw.get(at, bits);
          for (int x = 0; x < width; x++) {
            line.t[x] = bits[x];
          }
        } else {
          floats(mask).get(at, line.t, 0, width);
        }
        upsample(z, y);
        line.run(width, spec.focal(), spec.alpha(), spec.gamma());
        for (int x = 0; x < width; x++) {
          sum += line.loss[x];
        }
        if (dice) {
          for (int x = 0; x < width; x++) {
            overlap += line.p[x] * line.t[x];
            predicted += line.p[x];
            truth += line.t[x];
          }
        }
        if (dLogits != null) {
          downsample(line.slope, fields[0], y);
          if (dice) {
            for (int x = 0; x < width; x++) {
              float spread = line.p[x] * (1 - line.p[x]);
              line.p[x] = spread;
              line.slope[x] = spread * line.t[x];
            }
            downsample(line.slope, fields[1], y);
            downsample(line.p, fields[2], y);
          }
        }
      }
      double pixels = (double) spec.height() * width;
      double result = sum / pixels;
      double size = predicted + truth + 1;
      if (dice) {
        result += spec.diceWeight() * (1 - (2 * overlap + 1) / size);
      }
      floats(loss).put(start(loss) + b, (float) result);
      if (dLogits != null) {
        join((float) (1 / pixels), overlap, size);
        floats(dLogits).put(start(dLogits) + b * low, fields[0]);
      }
    }

    private void join(float mean, double overlap, double size) {
      float[] g = fields[0];
      for (int i = 0; i < g.length; i++) {
        g[i] *= mean;
      }
      if (spec.diceWeight() != 0) {
        float hit = (float) (-2 * spec.diceWeight() / size);
        float all = (float) (spec.diceWeight() * (2 * overlap + 1) / (size * size));
        for (int i = 0; i < g.length; i++) {
          g[i] += hit * fields[1][i] + all * fields[2][i];
        }
      }
    }

    private void upsample(float[] z, int y) {
      int w = spec.lowWidth();
      int above = rows.low[y] * w;
      int below = rows.high[y] * w;
      float weight = rows.weight[y];
      for (int x = 0; x < w; x++) {
        blended[x] = (1 - weight) * z[above + x] + weight * z[below + x];
      }
      for (int x = 0; x < spec.width(); x++) {
        float f = columns.weight[x];
        line.z[x] = (1 - f) * blended[columns.low[x]] + f * blended[columns.high[x]];
      }
    }

    /** Adds a line's values to the low-resolution field with the weights they were read with. */
    private void downsample(float[] values, float[] field, int y) {
      Arrays.fill(narrow, 0);
      for (int x = 0; x < spec.width(); x++) {
        float f = columns.weight[x];
        narrow[columns.low[x]] += (1 - f) * values[x];
        narrow[columns.high[x]] += f * values[x];
      }
      int w = spec.lowWidth();
      int above = rows.low[y] * w;
      int below = rows.high[y] * w;
      float weight = rows.weight[y];
      for (int x = 0; x < w; x++) {
        field[above + x] += (1 - weight) * narrow[x];
      }
      for (int x = 0; x < w; x++) {
        field[below + x] += weight * narrow[x];
      }
    }
  }

  void binaryLoss(
      boolean focal, float alpha, float gamma, Array x, Array target, Array loss, Array dx) {
    int piece = 2048;
    pool.parallelRanges(
        x.size(),
        piece,
        (a, b) -> {
          Line line = new Line(piece);
          for (long i = a; i < b; i += piece) {
            int n = (int) Math.min(piece, b - i);
            int at = (int) i;
            floats(x).get(start(x) + at, line.z, 0, n);
            floats(target).get(start(target) + at, line.t, 0, n);
            line.run(n, focal, alpha, gamma);
            floats(loss).put(start(loss) + at, line.loss, 0, n);
            if (dx != null) {
              floats(dx).put(start(dx) + at, line.slope, 0, n);
            }
          }
        });
  }

  void crossEntropy(
      int rows, int classes, Array x, Array target, Array weight, Array loss, Array dx) {
    float[] z = new float[rows * classes];
    floats(x).get(start(x), z);
    int[] t = new int[rows];
    HostBuffer.of(target).ints().get(start(target), t);
    float[] w = new float[classes];
    Arrays.fill(w, 1);
    if (weight != null) {
      floats(weight).get(start(weight), w);
    }
    double total = 0;
    for (int r = 0; r < rows; r++) {
      total += w[t[r]];
    }
    double sum = 0;
    for (int r = 0; r < rows; r++) {
      int at = r * classes;
      double max = Double.NEGATIVE_INFINITY;
      for (int c = 0; c < classes; c++) {
        max = Math.max(max, z[at + c]);
      }
      double norm = 0;
      for (int c = 0; c < classes; c++) {
        norm += Math.exp(z[at + c] - max);
      }
      double lse = max + Math.log(norm);
      sum += w[t[r]] * (lse - z[at + t[r]]);
      for (int c = 0; c < classes; c++) {
        double p = Math.exp(z[at + c] - lse);
        z[at + c] = (float) (w[t[r]] * (p - (c == t[r] ? 1 : 0)) / total);
      }
    }
    floats(loss).put(start(loss), (float) (rows == 0 ? 0 : sum / total));
    if (dx != null) {
      floats(dx).put(start(dx), z);
    }
  }
}
