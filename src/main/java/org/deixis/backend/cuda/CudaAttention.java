package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.backend.Gemm;
import org.deixis.core.Shape;

/** Launches of attention on short sequences and on regions. */
final class CudaAttention {
  private static final String SHORT = "attention";
  private static final String REGION = "region_attention";

  /** As in the files. */
  private static final int WARPS = 4;

  private static final int THREADS = 32 * WARPS;
  private static final int REGIONS_AT_ONCE = 8;

  private final Kernels kernels;
  private final DeviceMemory memory;
  private final Products products;

  CudaAttention(Kernels kernels, DeviceMemory memory, Products products) {
    this.kernels = kernels;
    this.memory = memory;
    this.products = products;
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
