package org.deixis.backend.cpu;

/**
 * Where bilinear resizing (align_corners = false) reads along one axis: output i lies at (i +
 * ½)·in/out − ½, not below 0, between {@code low[i]} and {@code high[i]} with weight {@code
 * weight[i]} on the higher one.
 */
final class Interpolation {
  final int[] low;
  final int[] high;
  final float[] weight;

  /**
   * For each input, the outputs that read it: entries {@code first[i]} to {@code first[i + 1]} of
   * the two arrays.
   */
  final int[] first;

  final int[] reader;
  final float[] share;

  Interpolation(int in, int out) {
    low = new int[out];
    high = new int[out];
    weight = new float[out];
    double scale = (double) in / out;
    int[] count = new int[in + 1];
    for (int i = 0; i < out; i++) {
      double at = Math.max(0, (i + 0.5) * scale - 0.5);
      low[i] = Math.min((int) at, in - 1);
      high[i] = Math.min(low[i] + 1, in - 1);
      weight[i] = (float) (at - low[i]);
      count[low[i] + 1]++;
      count[high[i] + 1]++;
    }
    for (int i = 0; i < in; i++) {
      count[i + 1] += count[i];
    }
    first = count.clone();
    reader = new int[2 * out];
    share = new float[2 * out];
    for (int i = 0; i < out; i++) {
      int l = count[low[i]]++;
      reader[l] = i;
      share[l] = 1 - weight[i];
      int h = count[high[i]]++;
      reader[h] = i;
      share[h] = weight[i];
    }
  }
}
