package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.util.List;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.core.DType;

/**
 * Gradient norm and AdamW over all parameters at once, in tasks of equal size whatever the
 * parameters' sizes are. Gradients and the copy that the forward reads may be F16 or BF16.
 */
final class CpuOptimizer {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final int L = VectorMath.LANES;

  /**
   * Elements of a tile. Small ones let the processor fetch the next while it computes: four of
   * 2,048 took nearly twice as long as four of 256.
   */
  private static final int TILE = 256;

  /** Elements of a task, at most. */
  private static final int TASK = 128 * TILE;

  /** Elements whose squares are one sum of floats. */
  private static final int SQUARES_TILE = 2048;

  /** As in torch.nn.utils.clip_grad_norm_. */
  private static final double CLIP_EPS = 1e-6;

  private final WorkerPool pool;

  CpuOptimizer(WorkerPool pool) {
    this.pool = pool;
  }

  /** Cuts arrays of the given sizes into tasks: pairs of an array's index and a start. */
  private static int cut(int count, java.util.function.IntToLongFunction size, Scratch scratch) {
    int tasks = 0;
    for (int i = 0; i < count; i++) {
      tasks += Math.toIntExact((size.applyAsLong(i) + TASK - 1) / TASK);
    }
    int[] list = scratch.ints(2 * tasks);
    int at = 0;
    for (int i = 0; i < count; i++) {
      for (long from = 0; from < size.applyAsLong(i); from += TASK) {
        list[at++] = i;
        list[at++] = Math.toIntExact(from);
      }
    }
    return tasks;
  }

  /** See {@link org.deixis.backend.Backend#gradientNorm}. */
  void gradientNorm(List<Array> gradients, double maxNorm, Array control) {
    Scratch scratch = Scratch.here();
    int tasks = cut(gradients.size(), i -> gradients.get(i).size(), scratch);
    int[] list = scratch.ints(2 * tasks);
    double[] sums = scratch.doubles(tasks);
    pool.parallelFor(
        tasks, task -> sums[task] = squares(gradients.get(list[2 * task]), list[2 * task + 1]));
    double squares = 0;
    for (int task = 0; task < tasks; task++) {
      squares += sums[task];
    }
    FloatBuffer c = HostBuffer.of(control).floats();
    int at = Math.toIntExact(control.offset());
    double scale = c.get(at + AdamW.SCALE);
    double norm = Math.sqrt(squares) / scale;
    double clip = maxNorm == 0 ? 1 : Math.min(1, maxNorm / (norm + CLIP_EPS));
    c.put(at + AdamW.NORM, (float) norm);
    c.put(at + AdamW.OVERFLOW, Double.isFinite(norm) ? 0 : 1);
    c.put(at + AdamW.CLIP, (float) (clip / scale));
  }

  /** Σg² of one task. */
  private static double squares(Array gradient, int from) {
    Scratch scratch = Scratch.here();
    HalfTile g = HalfTile.of(gradient);
    float[] tile = scratch.floats(0, SQUARES_TILE + 4 * L);
    float[] lanes = scratch.floats(1, L);
    int end = (int) Math.min(gradient.size(), (long) from + TASK);
    double sum = 0;
    for (int at = from; at < end; at += SQUARES_TILE) {
      int n = Math.min(SQUARES_TILE, end - at);
      g.read(scratch, at, n, tile);
      java.util.Arrays.fill(tile, n, Math.min(tile.length, n + 4 * L), 0);
      squares(tile, n).intoArray(lanes, 0);
      double part = 0;
      for (int lane = 0; lane < L; lane++) {
        part += lanes[lane];
      }
      if (!Double.isFinite(part)) { // perhaps only the squares leave the floats
        part = 0;
        for (int i = 0; i < n; i++) {
          part += (double) tile[i] * tile[i];
        }
      }
      sum += part;
    }
    return sum;
  }

  private static FloatVector squares(float[] tile, int n) {
    FloatVector a = FloatVector.zero(S);
    FloatVector b = FloatVector.zero(S);
    FloatVector c = FloatVector.zero(S);
    FloatVector d = FloatVector.zero(S);
    for (int i = 0; i < n; i += 4 * L) {
      FloatVector w = FloatVector.fromArray(S, tile, i);
      FloatVector x = FloatVector.fromArray(S, tile, i + L);
      FloatVector y = FloatVector.fromArray(S, tile, i + 2 * L);
      FloatVector z = FloatVector.fromArray(S, tile, i + 3 * L);
      a = w.fma(w, a);
      b = x.fma(x, b);
      c = y.fma(y, c);
      d = z.fma(z, d);
    }
    return a.add(b).add(c.add(d));
  }

  /** The scalars of one parameter's step. */
  private record Step(
      float clip,
      float beta1,
      float rest1,
      float beta2,
      float rest2,
      float decay,
      float rate,
      float rootCorrection,
      float eps) {
    FloatVector first(FloatVector m, FloatVector gradient) {
      return m.mul(beta1).add(gradient.mul(rest1));
    }

    FloatVector second(FloatVector v, FloatVector gradient) {
      return v.mul(beta2).add(gradient.mul(gradient).mul(rest2));
    }

    FloatVector parameter(FloatVector old, FloatVector first, FloatVector second) {
      FloatVector root = second.lanewise(VectorOperators.SQRT).mul(rootCorrection).add(eps);
      // old − share·old in one rounding: 1 − share as a float would lose most of share
      return old.fma(FloatVector.broadcast(S, decay), old).sub(first.mul(rate).div(root));
    }
  }

  /** See {@link org.deixis.backend.Backend#adamW}. */
  void adamW(AdamW spec, List<AdamW.Slot> slots, Array control) {
    FloatBuffer c = HostBuffer.of(control).floats();
    int at = Math.toIntExact(control.offset());
    if (c.get(at + AdamW.OVERFLOW) != 0) {
      return;
    }
    double step = c.get(at + AdamW.STEP) + 1.0;
    double correction1 = 1 - Math.pow(spec.beta1(), step);
    double correction2 = 1 - Math.pow(spec.beta2(), step);
    float learningRate = c.get(at + AdamW.LR);
    float clip = c.get(at + AdamW.CLIP);
    Scratch scratch = Scratch.here();
    int tasks = cut(slots.size(), i -> slots.get(i).parameter().size(), scratch);
    int[] list = scratch.ints(2 * tasks);
    pool.parallelFor(
        tasks,
        task -> {
          AdamW.Slot slot = slots.get(list[2 * task]);
          double rate = (double) learningRate * slot.rateFactor();
          Step s =
              new Step(
                  clip,
                  spec.beta1(),
                  (float) (1 - (double) spec.beta1()),
                  spec.beta2(),
                  (float) (1 - (double) spec.beta2()),
                  (float) (-rate * slot.weightDecay()),
                  (float) (rate / correction1),
                  (float) (1 / Math.sqrt(correction2)),
                  spec.eps());
          update(s, slot, list[2 * task + 1]);
        });
  }

  private static void update(Step s, AdamW.Slot slot, int from) {
    Scratch scratch = Scratch.here();
    float[] p = scratch.floats(0, TILE + L);
    float[] g = scratch.floats(1, TILE + L);
    float[] m = scratch.floats(2, TILE + L);
    float[] v = scratch.floats(3, TILE + L);
    HalfTile parameter = HalfTile.of(slot.parameter());
    HalfTile gradient = HalfTile.of(slot.gradient());
    HalfTile first = HalfTile.of(slot.m());
    HalfTile second = HalfTile.of(slot.v());
    HalfTile half = slot.half() == null ? null : HalfTile.of(slot.half());
    int end = (int) Math.min(slot.parameter().size(), (long) from + TASK);
    int start = from;
    if (slot.gradient().dtype() == DType.F32 && half == null) {
      start = stream(s, slot, from, end);
    }
    for (int at = start; at < end; at += TILE) {
      int n = Math.min(TILE, end - at);
      parameter.read(scratch, at, n, p);
      gradient.read(scratch, at, n, g);
      first.read(scratch, at, n, m);
      second.read(scratch, at, n, v);
      update(s, n, p, g, m, v);
      parameter.write(scratch, at, n, p);
      first.write(scratch, at, n, m);
      second.write(scratch, at, n, v);
      if (half != null) {
        half.write(scratch, at, n, p);
      }
    }
  }

  private static void update(Step s, int n, float[] p, float[] g, float[] m, float[] v) {
    for (int i = 0; i < n; i += L) {
      FloatVector gradient = FloatVector.fromArray(S, g, i).mul(s.clip);
      FloatVector first = s.first(FloatVector.fromArray(S, m, i), gradient);
      FloatVector second = s.second(FloatVector.fromArray(S, v, i), gradient);
      s.parameter(FloatVector.fromArray(S, p, i), first, second).intoArray(p, i);
      first.intoArray(m, i);
      second.intoArray(v, i);
    }
  }

  /** Whole vectors where they lie, for arrays of F32; returns the first element not done. */
  private static int stream(Step s, AdamW.Slot slot, int from, int end) {
    Object p = NativeVectors.memory(slot.parameter());
    Object g = NativeVectors.memory(slot.gradient());
    Object m = NativeVectors.memory(slot.m());
    Object v = NativeVectors.memory(slot.v());
    int whole = end - (end - from) % L;
    for (long at = 4L * from; at < 4L * whole; at += 4L * L) {
      FloatVector gradient = NativeVectors.load(g, at).mul(s.clip);
      FloatVector first = s.first(NativeVectors.load(m, at), gradient);
      FloatVector second = s.second(NativeVectors.load(v, at), gradient);
      NativeVectors.store(s.parameter(NativeVectors.load(p, at), first, second), p, at);
      NativeVectors.store(first, m, at);
      NativeVectors.store(second, v, at);
    }
    return whole;
  }

  /** See {@link org.deixis.backend.Backend#advance}. */
  void advance(int growthInterval, Array control) {
    FloatBuffer c = HostBuffer.of(control).floats();
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
