package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.List;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;

/**
 * AdamW over all parameters at once, cut into pieces of equal size whatever the parameters' own
 * sizes.
 */
final class CpuOptimizer {
  private static final VectorSpecies<Float> SPECIES = FloatVector.SPECIES_PREFERRED;

  /** Elements of a piece: four arrays of it fit the first-level cache. */
  private static final int PIECE = 2048;

  /** Pieces that one task takes, so that a task is worth handing out. */
  private static final int RUN = 16;

  private record Piece(int slot, int from, int length) {}

  private static final class Scratch {
    final float[] p = new float[PIECE];
    final float[] g = new float[PIECE];
    final float[] m = new float[PIECE];
    final float[] v = new float[PIECE];
  }

  private static final ThreadLocal<Scratch> SCRATCH = ThreadLocal.withInitial(Scratch::new);

  private final WorkerPool pool;

  CpuOptimizer(WorkerPool pool) {
    this.pool = pool;
  }

  private static List<Piece> pieces(List<Array> arrays) {
    List<Piece> pieces = new ArrayList<>();
    for (int s = 0; s < arrays.size(); s++) {
      int n = Math.toIntExact(arrays.get(s).size());
      for (int from = 0; from < n; from += PIECE) {
        pieces.add(new Piece(s, from, Math.min(PIECE, n - from)));
      }
    }
    return pieces;
  }

  private static FloatBuffer floats(Array a) {
    return HostBuffer.of(a).floats();
  }

  private static int at(Array a, Piece piece) {
    return Math.toIntExact(a.offset()) + piece.from;
  }

  /** Runs {@code body} over all pieces, a run of neighbours a task. */
  private void each(List<Piece> pieces, java.util.function.IntConsumer body) {
    int tasks = (pieces.size() + RUN - 1) / RUN;
    pool.parallelFor(
        tasks,
        t -> {
          for (int i = t * RUN; i < Math.min(pieces.size(), (t + 1) * RUN); i++) {
            body.accept(i);
          }
        });
  }

  void gradientNorm(List<Array> gradients, double maxNorm, Array control) {
    List<Piece> pieces = pieces(gradients);
    double[] sums = new double[pieces.size()];
    each(
        pieces,
        i -> {
          Piece piece = pieces.get(i);
          float[] g = SCRATCH.get().g;
          Array a = gradients.get(piece.slot);
          floats(a).get(at(a, piece), g, 0, piece.length);
          sums[i] = squares(g, piece.length);
        });
    double sum = 0;
    for (double s : sums) { // in order of the pieces: the same bits whoever computed them
      sum += s;
    }
    FloatBuffer c = floats(control);
    int at = Math.toIntExact(control.offset());
    double scale = c.get(at + AdamW.SCALE);
    double norm = Math.sqrt(sum) / scale;
    boolean overflow = !(norm <= Float.MAX_VALUE);
    c.put(at + AdamW.NORM, (float) norm);
    c.put(at + AdamW.OVERFLOW, overflow ? 1 : 0);
    double clip = maxNorm > 0 ? Math.min(1, maxNorm / (norm + 1e-6)) : 1;
    c.put(at + AdamW.CLIP, (float) (clip / scale));
  }

  private static double squares(float[] g, int n) {
    FloatVector a = FloatVector.zero(SPECIES);
    FloatVector b = FloatVector.zero(SPECIES);
    int lanes = SPECIES.length();
    int i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      FloatVector x = FloatVector.fromArray(SPECIES, g, i);
      FloatVector y = FloatVector.fromArray(SPECIES, g, i + lanes);
      a = x.fma(x, a);
      b = y.fma(y, b);
    }
    double sum = a.add(b).reduceLanes(VectorOperators.ADD);
    for (; i < n; i++) {
      sum += (double) g[i] * g[i];
    }
    return sum;
  }

  void adamW(AdamW spec, List<AdamW.Slot> slots, Array control) {
    FloatBuffer c = floats(control);
    int at = Math.toIntExact(control.offset());
    if (c.get(at + AdamW.OVERFLOW) != 0) {
      return;
    }
    double step = c.get(at + AdamW.STEP) + 1.0;
    float rate = c.get(at + AdamW.LR);
    float clip = c.get(at + AdamW.CLIP);
    float correction1 = (float) (1 / (1 - Math.pow(spec.beta1(), step)));
    float correction2 = (float) (1 / (1 - Math.pow(spec.beta2(), step)));
    List<Piece> pieces = pieces(slots.stream().map(AdamW.Slot::parameter).toList());
    each(
        pieces,
        i -> {
          Piece piece = pieces.get(i);
          AdamW.Slot s = slots.get(piece.slot);
          Scratch x = SCRATCH.get();
          int n = piece.length;
          floats(s.parameter()).get(at(s.parameter(), piece), x.p, 0, n);
          floats(s.gradient()).get(at(s.gradient(), piece), x.g, 0, n);
          floats(s.m()).get(at(s.m(), piece), x.m, 0, n);
          floats(s.v()).get(at(s.v(), piece), x.v, 0, n);
          float r = rate * s.rateFactor();
          update(x, n, spec, clip, 1 - r * s.weightDecay(), r * correction1, correction2);
          floats(s.parameter()).put(at(s.parameter(), piece), x.p, 0, n);
          floats(s.m()).put(at(s.m(), piece), x.m, 0, n);
          floats(s.v()).put(at(s.v(), piece), x.v, 0, n);
          if (s.half() != null) {
            floats(s.half()).put(at(s.half(), piece), x.p, 0, n);
          }
        });
  }

  /** The update of one piece; vectors for the most of it, the same arithmetic for the rest. */
  private static void update(
      Scratch x, int n, AdamW spec, float clip, float keep, float rate, float correction2) {
    float b1 = spec.beta1();
    float b2 = spec.beta2();
    float eps = spec.eps();
    int i = 0;
    for (; i + SPECIES.length() <= n; i += SPECIES.length()) {
      FloatVector g = FloatVector.fromArray(SPECIES, x.g, i).mul(clip);
      FloatVector m = FloatVector.fromArray(SPECIES, x.m, i).mul(b1).add(g.mul(1 - b1));
      FloatVector v = FloatVector.fromArray(SPECIES, x.v, i).mul(b2).add(g.mul(g).mul(1 - b2));
      m.intoArray(x.m, i);
      v.intoArray(x.v, i);
      FloatVector root = v.mul(correction2).lanewise(VectorOperators.SQRT).add(eps);
      FloatVector.fromArray(SPECIES, x.p, i).mul(keep).sub(m.mul(rate).div(root)).intoArray(x.p, i);
    }
    for (; i < n; i++) {
      float g = x.g[i] * clip;
      x.m[i] = x.m[i] * b1 + g * (1 - b1);
      x.v[i] = x.v[i] * b2 + g * g * (1 - b2);
      float root = (float) Math.sqrt(x.v[i] * correction2) + eps;
      x.p[i] = x.p[i] * keep - x.m[i] * rate / root;
    }
  }

  void advance(int growthInterval, Array control) {
    FloatBuffer c = floats(control);
    int at = Math.toIntExact(control.offset());
    if (c.get(at + AdamW.OVERFLOW) != 0) {
      c.put(at + AdamW.SCALE, Math.max(1, c.get(at + AdamW.SCALE) / 2));
      c.put(at + AdamW.GOOD, 0);
      c.put(at + AdamW.SKIPPED, c.get(at + AdamW.SKIPPED) + 1);
      return;
    }
    c.put(at + AdamW.STEP, c.get(at + AdamW.STEP) + 1);
    float good = c.get(at + AdamW.GOOD) + 1;
    if (growthInterval > 0 && good >= growthInterval) {
      c.put(at + AdamW.SCALE, c.get(at + AdamW.SCALE) * 2);
      good = 0;
    }
    c.put(at + AdamW.GOOD, good);
  }
}
