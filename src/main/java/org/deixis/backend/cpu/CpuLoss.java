package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.MaskLoss;

/** Losses with their gradients; the mask loss is in {@link MaskLossKernel}. */
final class CpuLoss {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final int L = VectorMath.LANES;

  /** Elements of a tile. */
  private static final int TILE = 2048;

  /** Logits that a task of the cross-entropy takes, about. */
  private static final int CHUNK = 4096;

  private final WorkerPool pool;

  CpuLoss(WorkerPool pool) {
    this.pool = pool;
  }

  /** See {@link org.deixis.backend.Backend#maskLoss}. */
  void maskLoss(MaskLoss spec, Array logits, Array mask, Array loss, Array dLogits) {
    MaskLossKernel.run(pool, spec, logits, mask, loss, dLogits);
  }

  /** See {@link org.deixis.backend.Backend#binaryLoss}. */
  void binaryLoss(
      boolean focal, float alpha, float gamma, Array x, Array target, Array loss, Array dx) {
    long n = x.size();
    FloatBuffer logits = HostBuffer.of(x).floats();
    FloatBuffer targets = HostBuffer.of(target).floats();
    FloatBuffer losses = HostBuffer.of(loss).floats();
    FloatBuffer gradient = dx == null ? null : HostBuffer.of(dx).floats();
    pool.parallelFor(
        Math.toIntExact((n + TILE - 1) / TILE),
        tile -> {
          int from = tile * TILE;
          int count = (int) Math.min(TILE, n - from);
          Scratch scratch = Scratch.here();
          float[] a = scratch.floats(0, TILE + L);
          float[] b = scratch.floats(1, TILE + L);
          float[] c = scratch.floats(2, TILE + L);
          float[] d = scratch.floats(3, TILE + L);
          logits.get(Math.toIntExact(x.offset()) + from, a, 0, count);
          targets.get(Math.toIntExact(target.offset()) + from, b, 0, count);
          if (focal) {
            focal(count, alpha, gamma, a, b, c, d);
          } else {
            plain(count, a, b, c, d);
          }
          losses.put(Math.toIntExact(loss.offset()) + from, c, 0, count);
          if (gradient != null) {
            gradient.put(Math.toIntExact(dx.offset()) + from, d, 0, count);
          }
        });
  }

  private static void plain(int n, float[] x, float[] target, float[] loss, float[] dx) {
    for (int i = 0; i < n; i += L) {
      FloatVector z = FloatVector.fromArray(S, x, i);
      FloatVector t = FloatVector.fromArray(S, target, i);
      FloatVector e = LossMath.tail(z);
      FloatVector inverse = FloatVector.broadcast(S, 1f).div(e.add(1f));
      LossMath.crossEntropy(z, t, e).intoArray(loss, i);
      LossMath.residual(z, t, e, inverse).intoArray(dx, i);
    }
  }

  private static void focal(
      int n, float alpha, float gamma, float[] x, float[] target, float[] loss, float[] dx) {
    for (int i = 0; i < n; i += L) {
      FloatVector z = FloatVector.fromArray(S, x, i);
      FloatVector t = FloatVector.fromArray(S, target, i);
      FloatVector e = LossMath.tail(z);
      FloatVector inverse = FloatVector.broadcast(S, 1f).div(e.add(1f));
      FloatVector bce = LossMath.crossEntropy(z, t, e);
      FloatVector u = LossMath.positive(LossMath.oneMinusExp(bce));
      FloatVector power = LossMath.power(u, gamma).mul(alpha);
      power.mul(bce).intoArray(loss, i);
      LossMath.focalSlope(u, power, bce, gamma)
          .mul(LossMath.residual(z, t, e, inverse))
          .intoArray(dx, i);
    }
  }

  /** See {@link org.deixis.backend.Backend#crossEntropy}. */
  void crossEntropy(
      int rows, int classes, Array x, Array target, Array weight, Array loss, Array dx) {
    FloatBuffer result = HostBuffer.of(loss).floats();
    int resultAt = Math.toIntExact(loss.offset());
    if (rows == 0) {
      result.put(resultAt, 0);
      return;
    }
    Scratch scratch = Scratch.here();
    IntBuffer targets = HostBuffer.of(target).ints();
    int targetStart = Math.toIntExact(target.offset());
    float[] weights = null;
    if (weight != null) {
      weights = scratch.floats(Scratch.CALL, classes);
      HostBuffer.of(weight).floats().get(Math.toIntExact(weight.offset()), weights, 0, classes);
    }
    double total = 0;
    for (int row = 0; row < rows; row++) {
      total += weights == null ? 1 : weights[targets.get(targetStart + row)];
    }
    int block = Math.max(1, CHUNK / classes);
    int blocks = (rows + block - 1) / block;
    double[] sums = scratch.doubles(blocks);
    double share = 1 / total;
    float[] w = weights;
    FloatBuffer logits = HostBuffer.of(x).floats();
    FloatBuffer gradient = dx == null ? null : HostBuffer.of(dx).floats();
    pool.parallelFor(
        blocks,
        chunk -> {
          int from = chunk * block;
          int end = Math.min(rows, from + block);
          float[] row = Scratch.here().floats(0, classes);
          double sum = 0;
          for (int r = from; r < end; r++) {
            int wanted = targets.get(targetStart + r);
            logits.get(Math.toIntExact(x.offset()) + r * classes, row, 0, classes);
            double factor = w == null ? 1 : w[wanted];
            sum += factor * negativeLogLikelihood(row, classes, wanted, factor * share);
            if (gradient != null) {
              gradient.put(Math.toIntExact(dx.offset()) + r * classes, row, 0, classes);
            }
          }
          sums[chunk] = sum;
        });
    double sum = 0;
    for (int chunk = 0; chunk < blocks; chunk++) {
      sum += sums[chunk];
    }
    result.put(resultAt, (float) (sum / total));
  }

  /** −ln softmax(row)[wanted]; the row becomes factor · (softmax(row) − onehot(wanted)). */
  private static double negativeLogLikelihood(float[] row, int classes, int wanted, double factor) {
    float max = row[0];
    for (int c = 1; c < classes; c++) {
      max = Math.max(max, row[c]);
    }
    double sum = 0;
    for (int c = 0; c < classes; c++) {
      sum += Math.exp(row[c] - max);
    }
    double logSum = max + Math.log(sum);
    double nll = logSum - row[wanted];
    for (int c = 0; c < classes; c++) {
      double p = Math.exp(row[c] - logSum);
      row[c] = (float) (factor * (c == wanted ? p - 1 : p));
    }
    return nll;
  }
}
