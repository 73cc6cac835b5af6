package org.deixis.backend;

import java.nio.ByteBuffer;

/** A copy to the host that was asked for and may still be under way. */
@FunctionalInterface
public interface Download {
  /**
   * Waits for the copy alone, not for what was asked after it. Any number of times.
   *
   * @return the elements as they were when the copy was asked for, little-endian
   */
  ByteBuffer get();
}
