package org.deixis.backend.cpu;

import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.core.DType;

/** Where an array lies in memory. */
final class Native {
  private Native() {}

  /** Address of the array's first element. */
  static long address(Array array) {
    return HostBuffer.of(array).address() + array.offset() * array.dtype().bytes();
  }

  /** Address of the first element of an array of floats. */
  static long floats(Array array) {
    if (array.dtype() != DType.F32) {
      throw new IllegalStateException("a kernel of the CPU for F32 was given " + array);
    }
    return address(array);
  }
}
