package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.PatchGather;
import org.deixis.core.DType;

/** Launches of {@code geometry.cu}. */
final class CudaGeometry {
  private static final String FILE = "geometry";

  /** Packs a thread where elements are only moved, as in the kernels. */
  private static final int PACKS = 4;

  /** Warps of a block that sums an embedding's gradient. */
  private static final int WARPS = 8;

  private final Kernels kernels;
  private final CudaMoves moves;

  CudaGeometry(Kernels kernels, CudaMoves moves) {
    this.kernels = kernels;
    this.moves = moves;
  }

  void embedding(Array ids, Array table, Array y) {
    kernels
        .of(FILE, "embedding", table)
        .l(y.size())
        .i(table.dim(1))
        .p(ids)
        .p(table)
        .p(y)
        .packs(y, PACKS);
  }

  void embeddingBackward(Array ids, Array dy, Array dTable) {
    moves.fill(dTable, 0);
    int count = Math.toIntExact(ids.size());
    int width = dTable.dim(1);
    if (count == 0 || width == 0) {
      return;
    }
    int pack = Kernels.pack(dy.dtype());
    boolean wide = width % pack == 0 && DeviceBuffer.address(dy) % 16 == 0;
    int columns = wide ? 32 * pack : 32;
    kernels
        .of(FILE, "embedding_backward", dTable)
        .i(dTable.dim(0))
        .i(count)
        .i(width)
        .i(wide)
        .p(ids)
        .p(dy)
        .p(dTable)
        .grid(
            count,
            (width + columns - 1) / columns,
            1,
            32,
            WARPS,
            (WARPS * columns + 1) * Float.BYTES);
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
    // (value/255 − mean)/std as one product and one sum.
    for (float std : s.std()) {
      launch.f(1 / (255.0 * std));
    }
    for (int c = 0; c < s.mean().length; c++) {
      launch.f(-(double) s.mean()[c] / s.std()[c]);
    }
    launch.p(x).p(y).packs(y, 1);
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
        .packs(dx, PACKS);
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
        .packs(to, PACKS);
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
        .packs(y, 1);
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
        .packs(dx, 1);
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
          .grid(rows * columns, batch, 1, Kernels.THREADS, 1, Kernels.SCRATCH);
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
