package org.deixis.backend.cpu;

import java.util.concurrent.ConcurrentHashMap;

/**
 * Linear interpolation along one axis, align_corners = false: output i lies at (i + ½)·in/out − ½,
 * cut at 0, between input {@link #low} and the next, or at the last input where there is none
 * (PyTorch's area_pixel_compute_source_index).
 */
final class Taps {
  private record Extents(int in, int out) {}

  private static final int KEPT = 512;

  private static final ConcurrentHashMap<Extents, Taps> ALL = new ConcurrentHashMap<>();

  final int in;
  final int out;

  /** The nearer-to-0 input of each output. */
  final int[] low;

  /** The other input: low + 1, or low at the end. */
  final int[] high;

  /** The other input's weight. */
  final float[] share;

  /** Of each input r (and of {@code in}): the first output whose low is at least r. */
  final int[] first;

  private Taps(int in, int out) {
    this.in = in;
    this.out = out;
    low = new int[out];
    high = new int[out];
    share = new float[out];
    first = new int[in + 1];
    java.util.Arrays.fill(first, out);
    for (int i = out - 1; i >= 0; i--) {
      double at = Math.max(0, (i + 0.5) * in / out - 0.5);
      low[i] = Math.min((int) at, in - 1);
      high[i] = Math.min(low[i] + 1, in - 1);
      share[i] = (float) (at - low[i]);
      for (int r = low[i]; r >= 0 && first[r] > i; r--) {
        first[r] = i;
      }
    }
  }

  static Taps of(int in, int out) {
    Extents key = new Extents(in, out);
    Taps taps = ALL.get(key);
    if (taps == null) {
      if (ALL.size() >= KEPT) {
        ALL.clear();
      }
      taps = new Taps(in, out);
      ALL.put(key, taps);
    }
    return taps;
  }
}
