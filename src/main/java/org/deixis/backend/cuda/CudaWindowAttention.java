package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Reduction;
import org.deixis.backend.WindowAttention;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * Launches of windowed attention: {@code window_attention_mma.cu} and, for windows of more than 64
 * positions, {@code window_attention_large.cu}, on the tensor cores, for half types wherever the
 * device has them and the window fits, else {@code window_attention.cu}.
 */
final class CudaWindowAttention {
  private static final String PLAIN = "window_attention";
  private static final String TENSOR = "window_attention_mma";
  private static final String TENSOR_BACKWARD = "window_attention_mma_backward";
  private static final String LARGE = "window_attention_large";
  private static final String LARGE_BACKWARD = "window_attention_large_backward";

  /** As in the plain file. */
  private static final int WARPS = 4;

  private static final int THREADS = 32 * WARPS;

  /** As in the files. */
  private static final int PARTS_AT_ONCE = 8;

  private static final int STRIDE = 152;

  private static final int SUMS = 23;

  /** Bytes that a large window's kernels know of a window. */
  private static final int STEP = 64;

  /** Map index and side share an int in the kernels. */
  private static final long MOST_PIXELS = 1L << 27;

  private final Kernels kernels;
  private final DeviceMemory memory;
  private final CudaMoves moves;

  CudaWindowAttention(Kernels kernels, DeviceMemory memory, CudaMoves moves) {
    this.kernels = kernels;
    this.memory = memory;
    this.moves = moves;
  }

  /**
   * A variant of the tensor-core kernels, as their template arguments.
   *
   * @param tiles of eight keys that a window has at most
   * @param planes of 32 columns that a head has at most
   */
  private record Variant(int tiles, int planes) {
    int rows() {
      return (tiles + 1) / 2 * 16;
    }

    boolean large() {
      return tiles > 8;
    }

    int warps() {
      int own = large() && planes == 1 ? 2 : 1; // tiles of 16 rows that a warp takes
      return (rows() / 16 + own - 1) / own;
    }

    int threads() {
      return 32 * warps();
    }

    /** Bytes of q, k, v or dy of a window. */
    int part() {
      return planes * rows() * 64;
    }

    /** Shared memory of the forward kernels, as they lay it out: k, v and, in large windows, q. */
    int forward(WindowAttention s) {
      return (large() ? 3 * part() + 2 * STEP : 2 * part()) + places(s);
    }

    /** Shared memory of the backward kernels, as they lay it out. */
    int backward(WindowAttention s) {
      boolean padding = s.frameHeight() != s.height() || s.frameWidth() != s.width();
      int window =
          large()
              // k, q and dy, ds as halves, what the threads sum of it, two floats a query, two
              // windows
              ? 3 * part()
                  + 2 * STRIDE * rows()
                  + Float.BYTES * (SUMS * threads() + 2 * rows())
                  + 2 * STEP
              // p and ds as halves
              : 4 * part() + 4 * rows() * rows();
      return window + places(s) + (padding ? Float.BYTES * warps() * 64 * planes : 0);
    }

    /**
     * Blocks of backward that a multiprocessor holds, by registers: one round of them, so that
     * parts are few.
     */
    int backwardBlocks() {
      return large() ? 2 / planes : 4;
    }

    String name(String kernel) {
      return kernel + "_" + tiles + "x" + planes;
    }

    /** Offsets, places of two windows, the table and what lies behind it. */
    int places(WindowAttention s) {
      int relatives = relatives(s);
      return Integer.BYTES * 3 * rows() + Float.BYTES * (relatives + relatives / 2 + 1);
    }
  }

  private static int relatives(WindowAttention s) {
    return (2 * s.windowH() - 1) * (2 * s.windowW() - 1);
  }

  /** The variant for a window, or null when it is one for the plain kernels. */
  private Variant variant(WindowAttention s, DType dtype, Array... rows) {
    int n = s.windowH() * s.windowW();
    boolean cores = kernels.hasTensorCores(dtype);
    boolean fits =
        (n <= 64 || s.windowH() <= 12 && s.windowW() <= 12)
            && s.headDim() <= 64
            && s.headDim() % 8 == 0
            && (long) s.height() * s.width() < MOST_PIXELS;
    for (Array a : rows) {
      fits &= DeviceBuffer.address(a) % 16 == 0;
    }
    if (!cores || !fits) {
      return null;
    }
    return new Variant(n <= 56 ? 7 : n <= 64 ? 8 : 18, s.headDim() <= 32 ? 1 : 2);
  }

  /** Groups of windows, so that about {@code blocks} blocks have alike many of them. */
  private static int groups(WindowAttention s, int blocks) {
    int windows = s.batch() * s.windows();
    int wanted = Math.max(1, Math.min(windows, blocks / s.heads()));
    int each = (windows + wanted - 1) / wanted;
    return (windows + each - 1) / each;
  }

  private static Launch map(Launch launch, WindowAttention s) {
    return launch
        .i(s.height())
        .i(s.width())
        .i(s.heads())
        .i(s.headDim())
        .i(s.windowH())
        .i(s.windowW())
        .i(s.shiftH())
        .i(s.shiftW())
        .i(s.padFirst());
  }

  void forward(WindowAttention s, Array qkv, Array bias, Array table, Array y, Array lse) {
    if (y.size() == 0) {
      return;
    }
    Variant v = variant(s, qkv.dtype(), qkv, bias, y);
    int shared = v == null ? 0 : v.forward(s);
    if (v != null && kernels.hasShared(shared)) {
      map(kernels.of(v.large() ? LARGE : TENSOR, v.name("window_attention"), qkv), s)
          .i(s.batch())
          .p(qkv)
          .p(bias)
          .p(table)
          .p(y)
          .p(lse)
          .grid(
              s.heads(),
              // Several rounds of blocks even out what the last round lacks.
              groups(s, 16 * kernels.multiprocessors()),
              1,
              v.threads(),
              1,
              shared);
      return;
    }
    int n = s.windowH() * s.windowW();
    int d = s.headDim();
    map(kernels.of(PLAIN, "window_attention", qkv), s)
        .p(qkv)
        .p(bias)
        .p(table)
        .p(y)
        .p(lse)
        .grid(
            s.windows(),
            s.heads(),
            s.batch(),
            THREADS,
            1,
            Float.BYTES * (2 * n * (d + 1) + WARPS * (d + n)));
  }

  void backward(
      WindowAttention s,
      Array qkv,
      Array bias,
      Array table,
      Array y,
      Array lse,
      Array dy,
      Array dqkv,
      Array dBias,
      Array dTable) {
    if (dy.size() == 0) {
      moves.fill(dTable, 0);
      if (dBias != null) {
        moves.fill(dBias, 0);
      }
      return;
    }
    Variant v = variant(s, qkv.dtype(), qkv, bias, y, dy, dqkv);
    if (v != null && kernels.hasShared(v.backward(s))) {
      onTensorCores(v, s, qkv, bias, table, y, lse, dy, dqkv, dBias, dTable);
      return;
    }
    int n = s.windowH() * s.windowW();
    int d = s.headDim();
    int blocks = s.batch() * s.windows();
    int floats = 2 * n * (d + 1) + n + WARPS * (relatives(s) + 2 * d + 2 * d + n);
    DeviceBuffer tables = memory.scratch((long) blocks * dTable.size() * Float.BYTES);
    DeviceBuffer biases =
        dBias == null ? null : memory.scratch((long) blocks * dBias.size() * Float.BYTES);
    try {
      map(kernels.of(PLAIN, "window_attention_backward", qkv), s)
          .p(qkv)
          .p(bias)
          .p(table)
          .p(lse)
          .p(dy)
          .p(dqkv)
          .p(biases)
          .p(tables)
          .grid(s.windows(), s.heads(), s.batch(), THREADS, 1, Float.BYTES * floats);
      addParts(tables, blocks, dTable);
      if (dBias != null) {
        addParts(biases, blocks, dBias);
      }
    } finally {
      tables.release();
      if (biases != null) {
        biases.release();
      }
    }
  }

  private void onTensorCores(
      Variant v,
      WindowAttention s,
      Array qkv,
      Array bias,
      Array table,
      Array y,
      Array lse,
      Array dy,
      Array dqkv,
      Array dBias,
      Array dTable) {
    int groups = groups(s, v.backwardBlocks() * kernels.multiprocessors());
    int columns = Math.toIntExact(dTable.size() + (dBias == null ? 0 : dBias.size()));
    DeviceBuffer parts = memory.scratch((long) groups * columns * Float.BYTES);
    try {
      String file = v.large() ? LARGE_BACKWARD : TENSOR_BACKWARD;
      map(kernels.of(file, v.name("window_attention_backward"), qkv), s)
          .i(s.batch())
          .p(qkv)
          .p(bias)
          .p(table)
          .p(y)
          .p(lse)
          .p(dy)
          .p(dqkv)
          .p(parts)
          .grid(s.heads(), groups, 1, v.threads(), 1, v.backward(s));
      kernels
          .of(TENSOR_BACKWARD, "window_attention_parts", qkv)
          .i(groups)
          .i((int) dTable.size())
          .i(dBias == null ? 0 : (int) dBias.size())
          .p(parts)
          .p(dTable)
          .p(dBias)
          .grid((columns + 31) / 32, 1, 1, 32, PARTS_AT_ONCE, Float.BYTES * 32 * PARTS_AT_ONCE);
    } finally {
      parts.release();
    }
  }

  /** Sums fp32 parts, each like {@code sum}, in order. */
  private void addParts(DeviceBuffer parts, int count, Array sum) {
    int n = Math.toIntExact(sum.size());
    Array all = new Array(parts, 0, Shape.of(count, n), DType.F32);
    if (sum.dtype() == DType.F32) {
      moves.reduce(Reduction.SUM, 1, count, n, all, sum);
      return;
    }
    DeviceBuffer whole = memory.scratch((long) n * Float.BYTES);
    try {
      Array exact = new Array(whole, 0, Shape.of(n), DType.F32);
      moves.reduce(Reduction.SUM, 1, count, n, all, exact);
      moves.copy(exact, sum);
    } finally {
      whole.release();
    }
  }
}
