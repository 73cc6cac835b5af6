package org.deixis.weights;

/**
 * Resizes a relative-position bias table to another window, as published fine-tuning of Swin does:
 * each head's (2h−1)×(2w−1) grid by bicubic interpolation (Keys, 1981, with a = −0.75,
 * align_corners = false, no anti-aliasing: PyTorch's F.interpolate).
 */
final class PositionTable {
  private static final double A = -0.75;

  private PositionTable() {}

  /**
   * @param table (rows·columns, heads), row-major
   * @return (outRows·outColumns, heads)
   */
  static float[] resize(
      float[] table, int rows, int columns, int outRows, int outColumns, int heads) {
    float[] out = new float[outRows * outColumns * heads];
    double[] wy = new double[4];
    double[] wx = new double[4];
    for (int y = 0; y < outRows; y++) {
      int y0 = weights(y, rows, outRows, wy);
      for (int x = 0; x < outColumns; x++) {
        int x0 = weights(x, columns, outColumns, wx);
        for (int h = 0; h < heads; h++) {
          double sum = 0;
          for (int i = 0; i < 4; i++) {
            int sy = Math.max(0, Math.min(rows - 1, y0 - 1 + i));
            for (int j = 0; j < 4; j++) {
              int sx = Math.max(0, Math.min(columns - 1, x0 - 1 + j));
              sum += wy[i] * wx[j] * table[(sy * columns + sx) * heads + h];
            }
          }
          out[(y * outColumns + x) * heads + h] = (float) sum;
        }
      }
    }
    return out;
  }

  /** Fills the weights of the four neighbours; returns the index of the second of them. */
  private static int weights(int at, int from, int to, double[] w) {
    double source = (at + 0.5) * from / to - 0.5;
    int low = (int) Math.floor(source);
    double t = source - low;
    w[0] = far(t + 1);
    w[1] = near(t);
    w[2] = near(1 - t);
    w[3] = far(2 - t);
    return low;
  }

  private static double near(double d) {
    return ((A + 2) * d - (A + 3)) * d * d + 1;
  }

  private static double far(double d) {
    return ((A * d - 5 * A) * d + 8 * A) * d - 4 * A;
  }
}
