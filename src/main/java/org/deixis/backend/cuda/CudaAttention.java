package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.core.Shape;

/** Launches of attention on short sequences. */
final class CudaAttention {
  private static final String SHORT = "attention";

  /** As in the files. */
  private static final int WARPS = 4;

  private static final int THREADS = 32 * WARPS;

  private final Kernels kernels;
  private final DeviceMemory memory;

  CudaAttention(Kernels kernels, DeviceMemory memory) {
    this.kernels = kernels;
    this.memory = memory;
  }

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
}
