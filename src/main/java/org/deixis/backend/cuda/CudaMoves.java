package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Reduction;
import org.deixis.core.DType;

/** Launches of {@code move.cu}. */
final class CudaMoves {
  private static final String FILE = "move";
  private static final int AXES = 6;

  private final Kernels kernels;
  private final DeviceMemory memory;

  CudaMoves(Kernels kernels, DeviceMemory memory) {
    this.kernels = kernels;
    this.memory = memory;
  }

  /** Moves of whole elements: integers of 32 bits go as fp32, which copies bits. */
  private static int moved(Array x) {
    return x.dtype() == DType.I32 ? 0 : Kernels.type(x.dtype());
  }

  void fill(Array y, double value) {
    kernels.of(FILE, "fill", y).p(y).l(y.size()).f(value).over(y.size());
  }

  void copy(Array x, Array y) {
    kernels
        .of(FILE, "convert", 0)
        .p(x)
        .i(Kernels.type(x.dtype()))
        .p(y)
        .i(Kernels.type(y.dtype()))
        .l(x.size())
        .over(x.size());
  }

  void transpose(Array x, int[] permutation, Array y) {
    int rank = permutation.length;
    if (rank > AXES) {
      throw new IllegalArgumentException(
          "transpose of " + x + ": the cuda device permutes up to " + AXES + " axes");
    }
    // Axes are filled up in front with extents of 1.
    long[] stride = new long[AXES];
    long[] extent = new long[AXES];
    for (int i = 0; i < AXES; i++) {
      int axis = i - (AXES - rank);
      extent[i] = axis < 0 ? 1 : y.dim(axis);
      stride[i] = axis < 0 ? 0 : x.shape().product(permutation[axis] + 1, x.shape().rank());
    }
    Launch launch = kernels.of(FILE, "permute", moved(x)).p(x).p(y).l(y.size());
    long span = y.size();
    for (int i = 0; i < AXES - 1; i++) {
      span = extent[i] == 0 ? 1 : span / extent[i];
      launch.l(Math.max(1, span));
    }
    for (long s : stride) {
      launch.l(s);
    }
    launch.over(y.size());
  }

  void copyColumns(
      int rows,
      int columns,
      Array x,
      int xOffset,
      int xStride,
      Array y,
      int yOffset,
      int yStride,
      boolean accumulate) {
    long n = (long) rows * columns;
    kernels
        .of(FILE, "copy_columns", moved(x))
        .p(x)
        .p(y)
        .l(n)
        .i(columns)
        .i(xOffset)
        .i(xStride)
        .i(yOffset)
        .i(yStride)
        .i(accumulate)
        .over(n);
  }

  void repeat(int outer, int times, int inner, Array x, Array y) {
    long n = (long) outer * times * inner;
    kernels.of(FILE, "repeat", moved(x)).p(x).p(y).l(n).i(times).l(inner).over(n);
  }

  void reduce(Reduction kind, int outer, int axis, int inner, Array x, Array y) {
    long n = (long) outer * inner;
    if (n == 0) {
      return;
    }
    if (axis == 0) {
      fill(y, kind == Reduction.MAX ? Double.NEGATIVE_INFINITY : 0);
      return;
    }
    if (inner == 1) {
      kernels
          .of(FILE, "reduce_rows", x)
          .i(kind.ordinal())
          .l(outer)
          .l(axis)
          .p(x)
          .p(y)
          .rows(outer, axis);
      return;
    }
    int chunks = kernels.chunks(axis, (n + Kernels.THREADS - 1) / Kernels.THREADS);
    long chunk = (axis + chunks - 1) / chunks;
    DeviceBuffer partial = memory.scratch(n * chunks * Float.BYTES);
    try {
      kernels
          .of(FILE, "reduce_columns", x)
          .i(kind.ordinal())
          .l(outer)
          .l(axis)
          .l(inner)
          .l(chunk)
          .p(x)
          .p(partial)
          .grid(kernels.gridFor(n), chunks, 1, Kernels.THREADS, 1, 0);
      kernels
          .of(FILE, "reduce_chunks", y)
          .i(kind.ordinal())
          .l(outer)
          .l(axis)
          .l(inner)
          .i(chunks)
          .p(partial)
          .p(y)
          .over(n);
    } finally {
      partial.release();
    }
  }
}
