package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Gemm;

/** Matrix products: a library's, or kernels of our own. */
interface Products extends AutoCloseable {
  /** As {@link org.deixis.backend.Backend#gemm}; none of m, n, batch is 0. */
  void gemm(Gemm spec, Array a, Array b, Array bias, Array preActivation, Array c);

  @Override
  void close();
}
