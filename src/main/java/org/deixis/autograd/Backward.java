package org.deixis.autograd;

import org.deixis.backend.Array;

/** How an operation passes gradients back. */
@FunctionalInterface
public interface Backward {
  /**
   * Gives each input that {@link Context#needs} it its gradient by {@link Context#give}. What it
   * allocates lives in a scope of its own; given gradients are kept.
   */
  void run(Context context);

  /** What backward sees of its operation. */
  interface Context {
    /** Gradient of output {@code i}, or null when none reached it. */
    Array gradient(int i);

    /** Whether input {@code i} (null inputs do not) wants a gradient. */
    boolean needs(int i);

    /** Adds {@code gradient} to that of input {@code i}. */
    void give(int i, Array gradient);

    /** The {@code i}-th saved array. */
    Array saved(int i);
  }
}
