package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Gemm;
import org.deixis.core.Shape;

/** Products by {@code gemm.cu}. */
final class PlainProducts implements Products {
  private static final int TILE = 32;
  private static final int THREADS = 64;
  private static final int SHARED = 2 * 16 * TILE * 4;
  private static final int MOST_BATCH = 65_535;

  private final Kernels kernels;

  PlainProducts(Kernels kernels) {
    this.kernels = kernels;
  }

  @Override
  public void gemm(Gemm s, Array a, Array b, Array bias, Array preActivation, Array c) {
    for (int from = 0; from < s.batch(); from += MOST_BATCH) {
      kernels
          .of("gemm", "gemm", c)
          .i(s.m())
          .i(s.n())
          .i(s.k())
          .i(s.transA())
          .i(s.transB())
          .f(s.alpha())
          .f(s.beta())
          .i(s.lda())
          .i(s.ldb())
          .i(s.ldc())
          .l(s.strideA())
          .l(s.strideB())
          .l(s.strideC())
          .i(s.activation().ordinal())
          .p(from(a, from * s.strideA()))
          .p(from(b, from * s.strideB()))
          .p(bias)
          .p(from(preActivation, from * s.strideC()))
          .p(from(c, from * s.strideC()))
          .grid(
              (s.n() + TILE - 1) / TILE,
              (s.m() + TILE - 1) / TILE,
              Math.min(MOST_BATCH, s.batch() - from),
              THREADS,
              1,
              SHARED);
    }
  }

  @Override
  public boolean gemmWithSums(Gemm spec, Array a, Array b, Array c, Array sums) {
    return false;
  }

  @Override
  public boolean gemmBackwardActivation(Gemm s, Array a, Array b, Array preActivation, Array c) {
    return false;
  }

  @Override
  public void close() {
    // kernels belong to the backend
  }

  /** The same memory from a later element on, as far as addresses go. */
  private static Array from(Array x, long elements) {
    return x == null || elements == 0
        ? x
        : new Array(x.buffer(), x.offset() + elements, Shape.of(0), x.dtype());
  }
}
