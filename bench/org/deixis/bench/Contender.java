package org.deixis.bench;

import org.deixis.backend.Backend;

/** Somebody who does the work that is timed: the engine, or a peer in another process. */
interface Contender {
  /** What its column is called. */
  String name();

  /**
   * Does the work {@code calls} times; seconds of a call.
   *
   * @param warm whether one untimed call comes first, for caches and clocks that somebody else's
   *     round has left cold
   */
  double seconds(int calls, boolean warm);

  /** Whether it starts cold, its code yet to be compiled. */
  default boolean compiles() {
    return false;
  }

  /** The engine in this process; waits for the device once, after the last call. */
  static Contender engine(Backend backend, Runnable work) {
    return new Contender() {
      @Override
      public String name() {
        return Row.ENGINE;
      }

      @Override
      public boolean compiles() {
        return true;
      }

      @Override
      public double seconds(int calls, boolean warm) {
        if (warm) {
          work.run();
          backend.synchronize();
        }
        long start = System.nanoTime();
        for (int i = 0; i < calls; i++) {
          work.run();
        }
        backend.synchronize();
        return (System.nanoTime() - start) / 1e9 / calls;
      }
    };
  }
}
