package org.deixis.bench;

import org.deixis.backend.Backend;

/** Somebody who does the work that is timed: the engine, or a peer in another process. */
interface Contender {
  /** What its column is called. */
  String name();

  /** Does the work {@code calls} times, one untimed call before them; seconds of a timed call. */
  double seconds(int calls);

  /** The engine in this process; waits for the device once, after the last call. */
  static Contender engine(Backend backend, Runnable work) {
    return new Contender() {
      @Override
      public String name() {
        return Row.ENGINE;
      }

      @Override
      public double seconds(int calls) {
        work.run(); // caches and clocks that somebody else's round has left cold
        backend.synchronize();
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
