package org.deixis.data;

/**
 * How busy a picture is, in [0, 1]: the mean of two shares.
 *
 * <ul>
 *   <li>edges: the share of pixels whose luma (ITU-R BT.601) changes by more than 24 of 255 per
 *       pixel, as the length of the central-difference gradient, doubled and capped at 1, since
 *       even a very busy picture has edges at no more than half of its pixels;
 *   <li>colours: the Shannon entropy of the histogram of 4x4x4 colours, over its maximum of 6 bits.
 * </ul>
 *
 * A plain picture has 0, uniform noise nearly 1. {@code adaptive} regions choose their number by it
 * (below 0.3: 4, below 0.6: 8, else 16). Depends on the resolution, so it is always taken at the
 * model's.
 */
public final class Complexity {
  private static final double EDGE = 24;

  private Complexity() {}

  public static float of(RgbImage image) {
    return of(image.data(), 0, image.height(), image.width());
  }

  /** Of the picture {@code (height, width, 3)} at {@code rgb[offset...]}. */
  static float of(byte[] rgb, int offset, int height, int width) {
    int n = height * width;
    int[] histogram = new int[64];
    int[] luma = new int[n]; // in thousandths
    for (int i = 0, p = offset; i < n; i++, p += 3) {
      int r = rgb[p] & 0xff;
      int g = rgb[p + 1] & 0xff;
      int b = rgb[p + 2] & 0xff;
      histogram[r >> 6 << 4 | g >> 6 << 2 | b >> 6]++;
      luma[i] = 299 * r + 587 * g + 114 * b;
    }
    double entropy = 0;
    for (int count : histogram) {
      if (count > 0) {
        double p = (double) count / n;
        entropy -= p * Math.log(p);
      }
    }
    entropy /= Math.log(64);
    double threshold = 2 * EDGE * 1000;
    long square = (long) (threshold * threshold);
    int edges = 0;
    for (int y = 1; y < height - 1; y++) {
      for (int x = 1; x < width - 1; x++) {
        int i = y * width + x;
        long dx = luma[i + 1] - luma[i - 1];
        long dy = luma[i + width] - luma[i - width];
        if (dx * dx + dy * dy > square) {
          edges++;
        }
      }
    }
    double inner = Math.max(1, (double) (height - 2) * (width - 2));
    double share = Math.min(1, 2 * edges / inner);
    return (float) Math.max(0, Math.min(1, (share + entropy) / 2));
  }
}
