package org.deixis.infer;

import org.deixis.data.BitMask;

/**
 * From the model's coarse logits to a mask of any size: bilinear as PyTorch's F.interpolate with
 * align_corners = false, then the sign. On the host and row by row, so that a picture of a hundred
 * million pixels needs no more memory than its mask.
 */
final class MaskUpsampling {
  private MaskUpsampling() {}

  static BitMask positive(float[] logits, int rows, int columns, int height, int width) {
    byte[] mask = new byte[Math.multiplyExact(height, width)];
    int[] left = new int[width];
    int[] right = new int[width];
    float[] share = new float[width];
    for (int x = 0; x < width; x++) {
      float at = source(x, columns, width);
      left[x] = Math.min((int) at, columns - 1);
      right[x] = Math.min(left[x] + 1, columns - 1);
      share[x] = at - left[x];
    }
    float[] line = new float[columns];
    for (int y = 0; y < height; y++) {
      float at = source(y, rows, height);
      int top = Math.min((int) at, rows - 1);
      int bottom = Math.min(top + 1, rows - 1);
      float weight = at - top;
      for (int i = 0; i < columns; i++) {
        line[i] = (1 - weight) * logits[top * columns + i] + weight * logits[bottom * columns + i];
      }
      int base = y * width;
      for (int x = 0; x < width; x++) {
        float z = (1 - share[x]) * line[left[x]] + share[x] * line[right[x]];
        mask[base + x] = (byte) (z > 0 ? 1 : 0);
      }
    }
    return new BitMask(height, width, mask);
  }

  private static float source(int i, int from, int to) {
    return Math.max(0, (float) ((i + 0.5) * from / to - 0.5));
  }
}
