package org.deixis.backend.cuda;

import org.deixis.backend.Array;

/** Launches of {@code norm.cu}. */
final class CudaNorm {
  private static final String FILE = "norm";
  private static final int MOST_CHUNKS = 65_535;
  private static final int WARP = 32;
  private static final int PACK_BYTES = 16;

  /** Threads of a block that takes rows by packs. */
  private static final int ROW_THREADS = 128;

  /** Rows that such a group of lanes takes at least, so that its sums of columns are worth it. */
  private static final int ROWS_A_GROUP = 4;

  /** Threads a column that add chunks. */
  private static final int ADDERS = 16;

  private final Kernels kernels;
  private final DeviceMemory memory;

  CudaNorm(Kernels kernels, DeviceMemory memory) {
    this.kernels = kernels;
    this.memory = memory;
  }

  /** Of gamma, beta and their gradients; any where there are none. */
  private static int type(Array gamma) {
    return gamma == null ? 0 : Kernels.type(gamma.dtype());
  }

  /** Which softmax keeps such rows in registers: "_2" for up to 64 columns. Empty for none. */
  private static String registers(int columns) {
    return columns <= 64 ? "_2" : columns <= 256 ? "_8" : columns <= 1024 ? "_32" : "";
  }

  /** How rows are spread over lanes by packs. */
  private record Packed(int packs, int lanes) {
    /** What the kernel's name ends with. */
    String suffix() {
      return "_" + packs + "x" + lanes;
    }

    int rowsAtOnce() {
      return ROW_THREADS / lanes;
    }
  }

  /** Null where rows are no whole packs, too long, or not aligned. */
  private static Packed packed(int columns, Array x, Array... others) {
    int pack = PACK_BYTES / x.dtype().bytes();
    if (columns == 0 || columns % pack != 0 || columns > 1024) {
      return null;
    }
    if ((DeviceBuffer.address(x) | DeviceBuffer.addresses(others)) % PACK_BYTES != 0) {
      return null;
    }
    int packs = columns / pack;
    int lanes = packs <= WARP / 2 ? WARP / 2 : WARP;
    int each = (packs + lanes - 1) / lanes;
    return new Packed(each == 1 ? 1 : Integer.highestOneBit(each - 1) << 1, lanes);
  }

  void softmax(int rows, int columns, Array x, Array y) {
    if (columns > 0) {
      kernels
          .of(FILE, "softmax" + registers(columns), x)
          .l(rows)
          .i(columns)
          .p(x)
          .p(y)
          .rows(rows, columns);
    }
  }

  void softmaxBackward(int rows, int columns, Array y, Array dy, Array dx) {
    if (columns > 0) {
      kernels
          .of(FILE, "softmax_backward" + registers(columns), y)
          .l(rows)
          .i(columns)
          .p(y)
          .p(dy)
          .p(dx)
          .f(1)
          .rows(rows, columns);
    }
  }

  void layerNorm(
      int rows,
      int columns,
      double eps,
      Array x,
      Array residual,
      Array gamma,
      Array beta,
      Array sum,
      Array y,
      Array stats) {
    Packed packed = packed(columns, x, residual, gamma, beta, sum, y);
    Launch launch =
        kernels
            .of(FILE, packed == null ? "layer_norm" : "layer_norm" + packed.suffix(), x)
            .l(rows)
            .i(columns)
            .f(eps)
            .p(x)
            .p(residual)
            .p(gamma)
            .p(beta)
            .i(type(gamma))
            .p(sum)
            .p(y)
            .p(stats);
    if (packed == null) {
      launch.rows(rows, columns);
    } else if (rows > 0) {
      int atOnce = packed.rowsAtOnce();
      launch.grid((rows + atOnce - 1) / atOnce, 1, 1, ROW_THREADS, 1, 0);
    }
  }

  void layerNormBackward(
      int rows,
      int columns,
      Array x,
      Array gamma,
      Array stats,
      Array dy,
      Array extra,
      Array dx,
      Array dGamma,
      Array dBeta) {
    Packed packed = packed(columns, x, gamma, dy, extra, dx);
    if (packed != null && rows > 0) {
      layerNormBackward(packed, rows, columns, x, gamma, stats, dy, extra, dx, dGamma, dBeta);
      return;
    }
    if (dGamma != null && columns > 0) {
      // Before dx, which may lie over dy.
      int wide = (columns + Kernels.THREADS - 1) / Kernels.THREADS;
      int chunks = rows == 0 ? 0 : Math.min(MOST_CHUNKS, kernels.chunks(rows, wide));
      DeviceBuffer partial = memory.scratch(2L * Math.max(1, chunks) * columns * Float.BYTES);
      try {
        if (chunks > 0) {
          kernels
              .of(FILE, "layer_norm_columns", x)
              .l(rows)
              .i(columns)
              .l((rows + chunks - 1) / chunks)
              .p(x)
              .p(stats)
              .p(dy)
              .p(partial)
              .grid(wide, chunks, 1, Kernels.THREADS, 1, 0);
        }
        addChunks(columns, chunks, partial, dGamma, dBeta);
      } finally {
        partial.release();
      }
    }
    kernels
        .of(FILE, "layer_norm_backward", x)
        .l(rows)
        .i(columns)
        .p(x)
        .p(gamma)
        .i(type(gamma))
        .p(stats)
        .p(dy)
        .p(extra)
        .p(dx)
        .rows(rows, columns);
  }

  /** One pass over x and dy, in rows by packs. */
  private void layerNormBackward(
      Packed packed,
      int rows,
      int columns,
      Array x,
      Array gamma,
      Array stats,
      Array dy,
      Array extra,
      Array dx,
      Array dGamma,
      Array dBeta) {
    int wanted =
        (rows + packed.rowsAtOnce() * ROWS_A_GROUP - 1) / (packed.rowsAtOnce() * ROWS_A_GROUP);
    int blocks = Math.max(1, Math.min(wanted, kernels.residentBlocks() / 2));
    DeviceBuffer partial =
        dGamma == null ? null : memory.scratch(2L * blocks * columns * Float.BYTES);
    try {
      kernels
          .of(FILE, "layer_norm_backward" + packed.suffix(), x)
          .l(rows)
          .i(columns)
          .p(x)
          .p(gamma)
          .i(type(gamma))
          .p(stats)
          .p(dy)
          .p(extra)
          .p(dx)
          .p(partial)
          .grid(blocks, 1, 1, ROW_THREADS, 1, 2 * columns * Float.BYTES);
      if (dGamma != null) {
        addChunks(columns, blocks, partial, dGamma, dBeta);
      }
    } finally {
      if (partial != null) {
        partial.release();
      }
    }
  }

  /** Parts of dγ and dβ, (chunks, 2, columns) in fp32, in order: the sums of each column. */
  void addChunks(int columns, int chunks, DeviceBuffer partial, Array dGamma, Array dBeta) {
    kernels
        .of(FILE, "add_chunks", 0)
        .i(columns)
        .i(chunks)
        .p(partial)
        .p(dGamma)
        .p(dBeta)
        .i(type(dGamma))
        .grid((columns + WARP - 1) / WARP, 1, 1, WARP, ADDERS, 2 * WARP * ADDERS * Float.BYTES);
  }
}
