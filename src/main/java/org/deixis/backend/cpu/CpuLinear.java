package org.deixis.backend.cpu;

import org.deixis.backend.Array;
import org.deixis.backend.Gemm;

/**
 * The gradients of a linear layer's parameters. Where many rows are folded into a small weight, the
 * rows are cut into parts, each of which makes a whole product and its own sums of columns while
 * they are in the second-level cache, and the parts are added: cut along the weight instead, every
 * block would read all rows. The parts follow from the shape alone.
 */
final class CpuLinear {
  /** Least rows of a part. */
  private static final int ROWS = 768;

  /** Parts: with fewer, nothing is gained. */
  private static final int LEAST = 8;

  private static final int MOST = 16;

  /** Elements of all parts' products at most, 4 MiB. */
  private static final int ELEMENTS = 1 << 20;

  /** Elements of dy that are multiplied and summed at a time. */
  private static final int HOT = 96 * 1024;

  /** The calling thread's scratch slot; {@link CpuReduce} has the first two. */
  private static final int SLOT = 2;

  private final WorkerPool pool;
  private final CpuGemm gemm;
  private final CpuReduce reduce;

  CpuLinear(WorkerPool pool, CpuGemm gemm, CpuReduce reduce) {
    this.pool = pool;
    this.gemm = gemm;
    this.reduce = reduce;
  }

  private static int parts(int rows, int in, int out) {
    long room = ELEMENTS / Math.max(1L, (long) in * out);
    return (int) Math.min(Math.min(MOST, rows / ROWS), room);
  }

  /** See {@link org.deixis.backend.Backend#linearBackwardWeight}. */
  void backwardWeight(int rows, int in, int out, Array x, Array dy, Array dWeight, Array dBias) {
    long from = Native.floats(x);
    long gradient = Native.floats(dy);
    long weight = Native.floats(dWeight);
    long bias = dBias == null ? 0 : Native.floats(dBias);
    int parts = parts(rows, in, out);
    if (parts < LEAST || in == 0 || out == 0) {
      gemm.split(Gemm.of(out, in, rows, true, false), gradient, from, 0, 0, weight);
      if (bias != 0) {
        reduce.columnSums(rows, out, gradient, bias);
      }
      return;
    }
    int step = Math.min(CpuReduce.BLOCK, Math.max(64, HOT / out));
    long size = (long) in * out;
    long products = Dnnl.here().workspace(SLOT, 4 * parts * (size + out));
    long sums = products + 4 * parts * size;
    pool.parallelFor(
        parts,
        part -> {
          int end = (int) ((long) rows * (part + 1) / parts);
          int first = (int) ((long) rows * part / parts);
          int pieces = (end - first + step - 1) / step;
          for (int i = 0; i < pieces; i++) {
            int row = first + (int) ((long) (end - first) * i / pieces);
            int n = first + (int) ((long) (end - first) * (i + 1) / pieces) - row;
            Gemm piece = Gemm.of(out, in, n, true, false).accumulating(i == 0 ? 0 : 1);
            long here = gradient + 4L * row * out;
            gemm.run(piece, here, from + 4L * row * in, 0, products + 4 * part * size);
            if (bias != 0) {
              reduce.sumHere(n, out, here, sums + 4L * part * out, i > 0);
            }
          }
        });
    reduce.columnSums(parts, Math.toIntExact(size), products, weight);
    if (bias != 0) {
      reduce.columnSums(parts, out, sums, bias);
    }
  }
}
