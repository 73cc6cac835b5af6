package org.deixis.bench;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Times contenders in turns: a round of each, then the next round of each, so that whatever else
 * the machine does hits them alike.
 */
final class Rounds {
  private static final int MOST_CALLS = 20_000;

  /** Work from so many seconds on needs no untimed call before it. */
  private static final double LONG = 0.1;

  /** Contenders that are compiled already are warm after this. */
  private static final double PEER_WARMING = 0.2;

  /**
   * Threads of the one before still spin for more work when it has answered: GNU's OpenMP, which
   * PyTorch brings, some 300,000 times round a pause, which is up to 10 ms. Waiting for less takes
   * a core from whoever comes next.
   */
  private static final long SETTLE_MILLIS = 20;

  /** Seconds of a call. */
  record Timing(double median, double low, double high) {
    /** Median and quartiles. */
    static Timing of(double[] seconds) {
      double[] sorted = seconds.clone();
      Arrays.sort(sorted);
      return new Timing(quantile(sorted, 0.5), quantile(sorted, 0.25), quantile(sorted, 0.75));
    }

    /** Linear between the neighbours. */
    private static double quantile(double[] sorted, double q) {
      double at = q * (sorted.length - 1);
      int below = (int) at;
      int above = Math.min(below + 1, sorted.length - 1);
      return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
    }
  }

  private Rounds() {}

  /** Timings by contender, in their order. */
  static Map<String, Timing> run(List<Contender> contenders, Effort effort) {
    int[] calls = new int[contenders.size()];
    boolean[] warm = new boolean[calls.length];
    for (int i = 0; i < calls.length; i++) {
      double once = warm(contenders.get(i), effort);
      calls[i] = calls(once, effort.roundSeconds());
      warm[i] = once < LONG;
    }
    double[][] seconds = new double[calls.length][effort.rounds()];
    for (int round = 0; round < effort.rounds(); round++) {
      for (int i = 0; i < calls.length; i++) {
        if (calls.length > 1) {
          settle();
        }
        seconds[i][round] = contenders.get(i).seconds(calls[i], warm[i]);
      }
    }
    Map<String, Timing> timings = new LinkedHashMap<>();
    for (int i = 0; i < calls.length; i++) {
      timings.put(contenders.get(i).name(), Timing.of(seconds[i]));
    }
    return timings;
  }

  /**
   * Runs by time, not by count, since a short kernel needs thousands of calls before it is compiled
   * for good; returns the seconds that a call takes then.
   */
  private static double warm(Contender contender, Effort effort) {
    double wanted =
        contender.compiles() ? effort.warmSeconds() : Math.min(effort.warmSeconds(), PEER_WARMING);
    long start = System.nanoTime();
    int calls = 1;
    double once;
    do {
      once = contender.seconds(calls, false);
      calls = calls(once, Math.max(effort.roundSeconds(), 0.005));
    } while ((System.nanoTime() - start) / 1e9 < wanted);
    return once;
  }

  private static int calls(double seconds, double wanted) {
    return (int) Math.max(1, Math.min(MOST_CALLS, Math.round(wanted / Math.max(seconds, 1e-9))));
  }

  private static void settle() {
    try {
      Thread.sleep(SETTLE_MILLIS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while measuring", e);
    }
  }
}
