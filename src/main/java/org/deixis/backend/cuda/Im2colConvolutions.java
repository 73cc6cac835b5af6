package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Conv2d;
import org.deixis.backend.Gemm;
import org.deixis.core.Shape;

/**
 * Convolution as a product with the pictures' patches ({@code im2col}), a few pictures at a time so
 * that the patches stay within a bound.
 */
final class Im2colConvolutions implements Convolutions {
  private static final String FILE = "gemm";
  private static final long MOST_BYTES = 256L << 20;

  private final Kernels kernels;
  private final DeviceMemory memory;
  private final Products products;
  private final CudaMoves moves;

  Im2colConvolutions(Kernels kernels, DeviceMemory memory, Products products, CudaMoves moves) {
    this.kernels = kernels;
    this.memory = memory;
    this.products = products;
    this.moves = moves;
  }

  /** What is done with the patches of some pictures. */
  private interface Part {
    void run(int from, int to, Array columns);
  }

  private void parts(Conv2d s, Array like, Part part) {
    long rows = (long) s.outHeight() * s.outWidth();
    int depth = depth(s);
    long bytes = Math.max(1, rows * depth * like.dtype().bytes());
    int atOnce = (int) Math.max(1, Math.min(s.batch(), MOST_BYTES / bytes));
    DeviceBuffer scratch = memory.scratch(bytes * atOnce);
    try {
      for (int from = 0; from < s.batch(); from += atOnce) {
        int to = Math.min(s.batch(), from + atOnce);
        Shape shape = Shape.of(Math.toIntExact((to - from) * rows), depth);
        part.run(from, to, new Array(scratch, 0, shape, like.dtype()));
      }
    } finally {
      scratch.release();
    }
  }

  private static int depth(Conv2d s) {
    return s.inChannels() * s.kernel() * s.kernel();
  }

  private void geometry(Launch launch, Conv2d s, Array from, Array to) {
    launch
        .l(to.size())
        .i(s.height())
        .i(s.width())
        .i(s.inChannels())
        .i(s.kernel())
        .i(s.stride())
        .i(s.padding())
        .i(s.outHeight())
        .i(s.outWidth())
        .p(from)
        .p(to)
        .over(to.size());
  }

  @Override
  public void forward(Conv2d s, Array x, Array weight, Array bias, Array y) {
    if (y.size() == 0) {
      return;
    }
    parts(
        s,
        x,
        (from, to, columns) -> {
          geometry(kernels.of(FILE, "im2col", x), s, x.slice(from, to), columns);
          products.gemm(
              Gemm.of(columns.dim(0), s.outChannels(), depth(s), false, true),
              columns,
              weight,
              bias,
              null,
              y.slice(from, to));
        });
  }

  @Override
  public void backwardData(Conv2d s, Array weight, Array dy, Array dx) {
    if (dy.size() == 0) {
      moves.fill(dx, 0);
      return;
    }
    parts(
        s,
        dx,
        (from, to, columns) -> {
          products.gemm(
              Gemm.of(columns.dim(0), depth(s), s.outChannels(), false, false),
              dy.slice(from, to),
              weight,
              null,
              null,
              columns);
          geometry(kernels.of(FILE, "col2im", dx), s, columns, dx.slice(from, to));
        });
  }

  @Override
  public void backwardWeight(Conv2d s, Array x, Array dy, Array dWeight) {
    if (dy.size() == 0) {
      moves.fill(dWeight, 0);
      return;
    }
    parts(
        s,
        x,
        (from, to, columns) -> {
          geometry(kernels.of(FILE, "im2col", x), s, x.slice(from, to), columns);
          products.gemm(
              Gemm.of(s.outChannels(), depth(s), columns.dim(0), true, false)
                  .accumulating(from == 0 ? 0 : 1),
              dy.slice(from, to),
              columns,
              null,
              null,
              dWeight);
        });
  }

  @Override
  public void close() {
    // kernels and products belong to the backend
  }
}
