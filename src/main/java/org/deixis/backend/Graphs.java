package org.deixis.backend;

/**
 * What a device offers that can record a sequence of calls and replay it at the cost of one. A
 * replay does what was recorded: the same kernels with the same arguments on the same memory. So
 * work to be recorded
 *
 * <ul>
 *   <li>reads what changes from arrays that were made before it, and leaves its results in such;
 *   <li>moves nothing to or from the host and waits for nothing: that is done around the launch;
 *   <li>frees all that it allocates: graphs share the memory that they work in, and between a
 *       launch and the next nothing in there means anything.
 * </ul>
 */
public interface Graphs {
  /**
   * Does work now that is to be recorded later, in the graphs' memory: afterwards whatever it needs
   * (compiled kernels, plans of libraries, memory) is there.
   *
   * @throws IllegalStateException when it leaves memory of graphs in use while there are some
   */
  void warmUp(Runnable work);

  /**
   * Records work without doing it; it must have been done before. No other thread may use the
   * device meanwhile.
   *
   * @throws IllegalStateException when the work does what cannot be recorded, or leaves memory in
   *     use; the device works on as before
   * @throws OutOfMemoryException when it needs more memory than there is
   */
  Graph capture(Runnable work);

  /** Recorded work. Its memory stays reserved until {@link #close}. */
  interface Graph extends AutoCloseable {
    /** Does the work, in order with all other calls, without waiting for it. */
    void launch();

    @Override
    void close();
  }
}
