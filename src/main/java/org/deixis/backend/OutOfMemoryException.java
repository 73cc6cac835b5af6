package org.deixis.backend;

import org.deixis.core.InputException;

/**
 * A request that does not fit the memory; says how much was asked for, how much is in use, and what
 * to lower.
 */
public final class OutOfMemoryException extends InputException {
  private final long requested;

  public OutOfMemoryException(String device, long requested, Memory.Stats stats) {
    super(
        String.format(
            "%s memory: %,.1f MiB asked for with %,d MiB in use and a cap of %,d MiB; lower --images"
                + " or --expressions, or the picture size, or raise DEIXIS_MEMORY_MIB",
            device, requested / 1048576.0, stats.live() >> 20, stats.cap() >> 20));
    this.requested = requested;
  }

  /** Bytes of the request that failed. */
  public long requested() {
    return requested;
  }
}
