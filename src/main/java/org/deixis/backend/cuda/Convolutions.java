package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Conv2d;

/** Convolutions, as {@link org.deixis.backend.Backend} has them: a library's, or by products. */
interface Convolutions extends AutoCloseable {
  void forward(Conv2d spec, Array x, Array weight, Array bias, Array y);

  void backwardData(Conv2d spec, Array weight, Array dy, Array dx);

  /** dWeight is overwritten. */
  void backwardWeight(Conv2d spec, Array x, Array dy, Array dWeight);

  @Override
  void close();
}
