package org.deixis.backend;

/** A backend's memory: where buffers come from, how much there may be, and how much there is. */
public interface Memory {
  /**
   * @param live bytes handed out and not yet released
   * @param peak highest {@code live} since the last {@link Memory#resetPeak}
   * @param reserved bytes held from the system, live and cached
   * @param cap most bytes that may be live; asking for more is an {@link OutOfMemoryException}
   */
  record Stats(long live, long peak, long reserved, long cap) {}

  /**
   * Uninitialised memory, 64-byte aligned at least, adopted by the current {@link Scope}.
   *
   * @throws OutOfMemoryException when the cap or the device does not allow it
   */
  Buffer allocate(long bytes);

  Stats stats();

  /** Bytes of the cache that all cores share before this memory, or 0 where it is not known. */
  default long cacheBytes() {
    return 0;
  }

  void resetPeak();

  /** Sets the most bytes that may be live. */
  void cap(long bytes);

  /** Gives cached, unused memory back to the system. */
  void trim();
}
