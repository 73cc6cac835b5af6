package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.PatchGather;
import org.deixis.core.DType;

/** Launches of {@code geometry.cu}. */
final class CudaGeometry {
  private static final String FILE = "geometry";
  private static final int ROWS_AT_ONCE = 4;
  private static final int POOL_THREADS = 128;

  private final Kernels kernels;

  CudaGeometry(Kernels kernels) {
    this.kernels = kernels;
  }

  void embedding(Array ids, Array table, Array y) {
    kernels
        .of(FILE, "embedding", table)
        .l(y.size())
        .i(table.dim(1))
        .p(ids)
        .p(table)
        .p(y)
        .over(y.size());
  }

  void embeddingBackward(Array ids, Array dy, Array dTable) {
    int rows = dTable.dim(0);
    if (dTable.size() > 0) {
      kernels
          .of(FILE, "embedding_backward", dTable)
          .i(rows)
          .i(Math.toIntExact(ids.size()))
          .i(dTable.dim(1))
          .p(ids)
          .p(dy)
          .p(dTable)
          .grid((rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE, 1, 1, 32, ROWS_AT_ONCE, 0);
    }
  }

  void patchGather(PatchGather s, Array x, Array y) {
    Launch launch =
        kernels
            .of(FILE, "patch_gather", y)
            .l(y.size())
            .i(s.height())
            .i(s.width())
            .i(s.patch())
            .i(s.rows())
            .i(s.columns())
            .i(x.dtype() == DType.U8);
    for (float mean : s.mean()) {
      launch.f(mean);
    }
    for (float std : s.std()) {
      launch.f(std);
    }
    launch.p(x).p(y).over(y.size());
  }

  void patchScatter(PatchGather s, Array dy, Array dx) {
    kernels
        .of(FILE, "patch_scatter", dx)
        .l(dx.size())
        .i(s.height())
        .i(s.width())
        .i(s.patch())
        .i(s.rows())
        .i(s.columns())
        .p(dy)
        .p(dx)
        .over(dx.size());
  }

  void merge(String kernel, int height, int width, int channels, Array from, Array to) {
    kernels
        .of(FILE, kernel, from)
        .l(to.size())
        .i(height)
        .i(width)
        .i(channels)
        .p(from)
        .p(to)
        .over(to.size());
  }

  void resize(
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      boolean accumulate,
      Array x,
      Array y) {
    kernels
        .of(FILE, "resize", x)
        .l(y.size())
        .i(height)
        .i(width)
        .i(channels)
        .i(outHeight)
        .i(outWidth)
        .i(accumulate)
        .p(x)
        .p(y)
        .over(y.size());
  }

  void resizeBackward(
      int height, int width, int channels, int outHeight, int outWidth, Array dy, Array dx) {
    kernels
        .of(FILE, "resize_backward", dx)
        .l(dx.size())
        .i(height)
        .i(width)
        .i(channels)
        .i(outHeight)
        .i(outWidth)
        .p(dy)
        .p(dx)
        .over(dx.size());
  }

  void regionPool(int batch, int height, int width, int rows, int columns, Array x, Array y) {
    if (batch > 0) {
      kernels
          .of(FILE, "region_pool", y)
          .i(height)
          .i(width)
          .i(rows)
          .i(columns)
          .p(x)
          .i(Kernels.type(x.dtype()))
          .p(y)
          .grid(rows * columns, batch, 1, POOL_THREADS, 1, Kernels.SCRATCH);
    }
  }

  void regionPoolBackward(int height, int width, int rows, int columns, Array dy, Array dx) {
    kernels
        .of(FILE, "region_pool_backward", dx)
        .l(dx.size())
        .i(height)
        .i(width)
        .i(rows)
        .i(columns)
        .p(dy)
        .p(dx)
        .over(dx.size());
  }
}
