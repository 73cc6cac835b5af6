package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.backend.Gemm;
import org.deixis.backend.Reduction;
import org.deixis.backend.WindowAttention;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/** Launches of the three attention files. */
final class CudaAttention {
  private static final String WINDOW = "window_attention";
  private static final String SHORT = "attention";
  private static final String REGION = "region_attention";

  /** As in the files. */
  private static final int WARPS = 4;

  private static final int THREADS = 32 * WARPS;
  private static final int REGIONS_AT_ONCE = 8;

  private final Kernels kernels;
  private final DeviceMemory memory;
  private final Products products;
  private final CudaMoves moves;

  CudaAttention(Kernels kernels, DeviceMemory memory, Products products, CudaMoves moves) {
    this.kernels = kernels;
    this.memory = memory;
    this.products = products;
    this.moves = moves;
  }

  // ---- windows

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

  void window(WindowAttention s, Array qkv, Array bias, Array table, Array y, Array lse) {
    if (y.size() == 0) {
      return;
    }
    int n = s.windowH() * s.windowW();
    int d = s.headDim();
    map(kernels.of(WINDOW, "window_attention", qkv), s)
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

  void windowBackward(
      WindowAttention s,
      Array qkv,
      Array bias,
      Array table,
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
    int n = s.windowH() * s.windowW();
    int d = s.headDim();
    int blocks = s.batch() * s.windows();
    int rows = (2 * s.windowH() - 1) * (2 * s.windowW() - 1);
    int floats = 2 * n * (d + 1) + n + WARPS * (rows + 2 * d + 2 * d + n);
    DeviceBuffer tables = memory.scratch((long) blocks * dTable.size() * Float.BYTES);
    DeviceBuffer biases =
        dBias == null ? null : memory.scratch((long) blocks * dBias.size() * Float.BYTES);
    try {
      map(kernels.of(WINDOW, "window_attention_backward", qkv), s)
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

  // ---- short sequences

  private static Launch shape(Launch launch, Attention s) {
    return launch
        .i(s.heads())
        .i(s.queries())
        .i(s.keys())
        .i(s.headDim())
        .f(s.scale())
        .i(s.qStride())
        .i(s.kStride())
        .i(s.vStride());
  }

  private static Array from(Array x, int elements) {
    return new Array(x.buffer(), x.offset() + elements, Shape.of(0), x.dtype());
  }

  void attention(Attention s, Array q, Array k, Array v, Array mask, Array y, Array lse) {
    if (y.size() == 0) {
      return;
    }
    shape(kernels.of(SHORT, "attention", q), s)
        .p(from(q, s.qOffset()))
        .p(from(k, s.kOffset()))
        .p(from(v, s.vOffset()))
        .p(mask)
        .p(y)
        .p(lse)
        .grid(
            (s.queries() + WARPS - 1) / WARPS,
            s.heads(),
            s.batch(),
            THREADS,
            1,
            Float.BYTES * WARPS * (s.headDim() + s.keys()));
  }

  void attentionBackward(
      Attention s,
      Array q,
      Array k,
      Array v,
      Array mask,
      Array y,
      Array lse,
      Array dy,
      Array dq,
      Array dk,
      Array dv) {
    if (y.size() == 0) {
      return;
    }
    long n = (long) s.batch() * s.heads() * s.queries();
    DeviceBuffer dots = memory.scratch(n * Float.BYTES);
    try {
      kernels
          .of(SHORT, "attention_dots", y)
          .l(n)
          .i(s.heads())
          .i(s.queries())
          .i(s.headDim())
          .p(y)
          .p(dy)
          .p(dots)
          .over(n);
      shape(kernels.of(SHORT, "attention_backward_queries", q), s)
          .p(from(q, s.qOffset()))
          .p(from(k, s.kOffset()))
          .p(from(v, s.vOffset()))
          .p(mask)
          .p(lse)
          .p(dots)
          .p(dy)
          .p(from(dq, s.qOffset()))
          .grid(
              (s.queries() + WARPS - 1) / WARPS,
              s.heads(),
              s.batch(),
              THREADS,
              1,
              Float.BYTES * WARPS * (2 * s.headDim() + s.keys()));
      shape(kernels.of(SHORT, "attention_backward_keys", q), s)
          .p(from(q, s.qOffset()))
          .p(from(k, s.kOffset()))
          .p(from(v, s.vOffset()))
          .p(mask)
          .p(lse)
          .p(dots)
          .p(dy)
          .p(from(dk, s.kOffset()))
          .p(from(dv, s.vOffset()))
          .grid(
              (s.keys() + WARPS - 1) / WARPS,
              s.heads(),
              s.batch(),
              THREADS,
              1,
              Float.BYTES * WARPS * 4 * s.headDim());
    } finally {
      dots.release();
    }
  }

  // ---- regions

  private void scores(
      int batch, int regions, int pixels, int dim, float scale, Array q, Array k, DeviceBuffer to) {
    kernels
        .of(REGION, "region_scores", q)
        .i(regions)
        .i(pixels)
        .i(dim)
        .f(scale)
        .p(q)
        .p(k)
        .p(to)
        .grid(
            Math.max(1, Math.min(kernels.gridFor(32L * pixels), (pixels + WARPS - 1) / WARPS)),
            batch,
            (regions + REGIONS_AT_ONCE - 1) / REGIONS_AT_ONCE,
            THREADS,
            1,
            Float.BYTES * REGIONS_AT_ONCE * dim);
  }

  void region(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array q,
      Array k,
      Array v,
      Array y,
      Array map) {
    if (batch == 0 || regions == 0) {
      return;
    }
    DeviceBuffer scores = memory.scratch((long) batch * regions * pixels * Float.BYTES);
    try {
      scores(batch, regions, pixels, dim, scale, q, k, scores);
      kernels
          .of(REGION, "region_softmax", map)
          .i(pixels)
          .p(scores)
          .p(map)
          .grid(batch * regions, 1, 1, Kernels.THREADS, 1, Kernels.SCRATCH);
    } finally {
      scores.release();
    }
    products.gemm(Gemm.batched(batch, regions, dim, pixels, false, false), map, v, null, null, y);
  }

  void regionBackward(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array q,
      Array k,
      Array v,
      Array map,
      Array dy,
      Array dMap,
      Array dq,
      Array dk,
      Array dv) {
    if (batch == 0 || regions == 0) {
      return;
    }
    long n = (long) batch * regions * pixels;
    DeviceBuffer scores = memory.scratch(n * Float.BYTES);
    DeviceBuffer own = memory.scratch(n * map.dtype().bytes());
    try {
      scores(batch, regions, pixels, dim, 1, dy, v, scores);
      Array ds = new Array(own, 0, map.shape(), map.dtype());
      kernels
          .of(REGION, "region_softmax_backward", map)
          .i(pixels)
          .p(scores)
          .p(dMap)
          .p(map)
          .p(ds)
          .grid(batch * regions, 1, 1, Kernels.THREADS, 1, Kernels.SCRATCH);
      products.gemm(
          Gemm.batched(batch, regions, dim, pixels, false, false).scaled(scale),
          ds,
          k,
          null,
          null,
          dq);
      products.gemm(
          Gemm.batched(batch, pixels, dim, regions, true, false).scaled(scale),
          ds,
          q,
          null,
          null,
          dk);
      products.gemm(
          Gemm.batched(batch, pixels, dim, regions, true, false), map, dy, null, null, dv);
    } finally {
      scores.release();
      own.release();
    }
  }
}
