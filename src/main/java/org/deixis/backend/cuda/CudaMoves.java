package org.deixis.backend.cuda;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Array;
import org.deixis.backend.Reduction;
import org.deixis.core.DType;

/** Launches of {@code move.cu}. */
final class CudaMoves {
  private static final String FILE = "move";
  private static final int AXES = 6;

  /** Packs a thread, as in the kernels. */
  private static final int PACKS = 4;

  private static final int PACK_BYTES = 16;

  /** Side of a transposed tile, and what a row of it takes in shared memory. */
  private static final int TILE = 32;

  private static final int TILE_ROW = TILE + 1;
  private static final int TILE_ROWS_OF_THREADS = 8;

  /** Rows of a block that folds columns, and of one that folds chunks. */
  private static final int FOLD_ROWS = 8;

  private static final int CHUNK_ROWS = 32;

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
    kernels.of(FILE, "fill", y).p(y).l(y.size()).f(value).packs(y, PACKS);
  }

  void copy(Array x, Array y) {
    if (x.dtype() == y.dtype()) {
      kernels.of(FILE, "copy_bytes", 0).p(x).p(y).l(x.bytes()).tiles(x.bytes(), PACKS * PACK_BYTES);
      return;
    }
    kernels
        .of(FILE, "convert", 0)
        .p(x)
        .i(Kernels.type(x.dtype()))
        .p(y)
        .i(Kernels.type(y.dtype()))
        .l(x.size())
        .tiles(x.size(), PACKS * 4);
  }

  void transpose(Array x, int[] permutation, Array y) {
    if (y.size() == 0) {
      return;
    }
    List<Axis> axes = axes(x, permutation, y);
    int rank = axes.size();
    if (rank <= 1) {
      copy(x, y);
      return;
    }
    boolean lastStays = axes.get(rank - 1).stride == 1;
    boolean firstStays = rank == 2 || axes.get(0).stride == y.size() / axes.get(0).extent;
    if (!lastStays && rank <= 3 && firstStays) {
      // One pair of axes that change places: x's columns are y's rows.
      long rows = axes.get(rank - 1).extent;
      long columns = axes.get(rank - 2).extent;
      long acrossRows = (rows + TILE - 1) / TILE;
      long acrossColumns = (columns + TILE - 1) / TILE;
      kernels
          .of(FILE, "transpose", moved(x))
          .l(rows)
          .l(columns)
          .l(acrossRows)
          .l(acrossColumns)
          .p(x)
          .p(y)
          .grid(
              Math.toIntExact(y.size() / rows / columns * acrossRows * acrossColumns),
              1,
              1,
              TILE,
              TILE_ROWS_OF_THREADS,
              TILE * TILE_ROW * x.dtype().bytes());
      return;
    }
    if (rank > AXES) {
      throw new IllegalArgumentException(
          "transpose of " + x + ": the cuda device permutes up to " + AXES + " axes");
    }
    // Axes are filled up in front with extents of 1.
    Launch launch = kernels.of(FILE, "permute", moved(x)).p(x).p(y).l(y.size());
    long span = y.size();
    for (int i = 0; i < AXES - 1; i++) {
      int axis = i - (AXES - rank);
      span /= axis < 0 ? 1 : axes.get(axis).extent;
      launch.l(span);
    }
    for (int i = 0; i < AXES; i++) {
      int axis = i - (AXES - rank);
      launch.l(axis < 0 ? 0 : axes.get(axis).stride);
    }
    launch.packs(y, PACKS);
  }

  /** An axis of the result, and how far apart its neighbours are in x. */
  private record Axis(long extent, long stride) {}

  /** The result's axes without those of one element, and with neighbours in x taken together. */
  private static List<Axis> axes(Array x, int[] permutation, Array y) {
    List<Axis> axes = new ArrayList<>();
    for (int i = 0; i < permutation.length; i++) {
      long extent = y.dim(i);
      long stride = x.shape().product(permutation[i] + 1, x.shape().rank());
      int last = axes.size() - 1;
      if (last >= 0 && axes.get(last).stride == extent * stride) {
        axes.set(last, new Axis(axes.get(last).extent * extent, stride));
      } else if (extent > 1) {
        axes.add(new Axis(extent, stride));
      }
    }
    return axes;
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
        .tiles(n, PACKS * Kernels.pack(x.dtype()));
  }

  void repeat(int outer, int times, int inner, Array x, Array y) {
    long n = (long) outer * times * inner;
    kernels.of(FILE, "repeat", moved(x)).p(x).p(y).l(n).i(times).l(inner).packs(y, PACKS);
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
    int pack = Kernels.pack(x.dtype());
    boolean wide = inner % pack == 0 && DeviceBuffer.address(x) % PACK_BYTES == 0;
    int columns = wide ? 32 * pack : 32;
    long tiles = (inner + columns - 1) / columns;
    // Half as many chunks as blocks fit: each has several loads in flight, and chunks are folded
    // too.
    int chunks = (kernels.chunks(axis, outer * tiles) + 1) / 2;
    long chunk = (axis + chunks - 1) / chunks;
    DeviceBuffer partial = chunks == 1 ? null : memory.scratch(n * chunks * Float.BYTES);
    try {
      kernels
          .of(FILE, "reduce_columns", x)
          .i(kind.ordinal())
          .i(wide)
          .l(tiles)
          .l(axis)
          .l(inner)
          .l(chunk)
          .p(x)
          .p(partial)
          .p(chunks == 1 ? y : null)
          .grid(
              Math.toIntExact(outer * tiles),
              chunks,
              1,
              32,
              FOLD_ROWS,
              FOLD_ROWS * columns * Float.BYTES);
      if (chunks > 1) {
        long narrow = (inner + 31) / 32;
        kernels
            .of(FILE, "reduce_chunks", y)
            .i(kind.ordinal())
            .l(narrow)
            .l(axis)
            .l(inner)
            .i(chunks)
            .p(partial)
            .p(y)
            .grid(
                Math.toIntExact(outer * narrow),
                1,
                1,
                32,
                CHUNK_ROWS,
                CHUNK_ROWS * 32 * Float.BYTES);
      }
    } finally {
      if (partial != null) {
        partial.release();
      }
    }
  }
}
