package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Gemm;

/** Matrix products: a library's, or kernels of our own. */
interface Products extends AutoCloseable {
  /** As {@link org.deixis.backend.Backend#gemm}; none of m, n, batch is 0. */
  void gemm(Gemm spec, Array a, Array b, Array bias, Array preActivation, Array c);

  /**
   * C = op(A) op(B) of one matrix, and in the same pass over op(A), of m rows, their sums into
   * {@code sums} (m), of c's type.
   *
   * @return false, with nothing written, where this is not to be had for these operands
   */
  boolean gemmWithSums(Gemm spec, Array a, Array b, Array c, Array sums);

  /**
   * As {@link org.deixis.backend.Backend#gemmBackwardActivation}.
   *
   * @return false, with nothing written, where the product cannot do it for these operands
   */
  boolean gemmBackwardActivation(Gemm spec, Array a, Array b, Array preActivation, Array c);

  @Override
  void close();
}
