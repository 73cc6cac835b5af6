package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import org.deixis.backend.Array;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Gradients of a linear layer's parameters against sums in double precision. */
class CpuLinearTest {
  /** rows, in, out: few rows, many with every number of parts, widths that fill no vector. */
  private static final int[][] SHAPES = {
    {0, 3, 5},
    {1, 1, 1},
    {20, 48, 33},
    {6143, 17, 9},
    {6144, 17, 9},
    {6200, 96, 200},
    {7003, 31, 130},
    {12_544, 24, 40},
    {18_433, 7, 3},
    {6144, 400, 330}
  };

  private static double[] product(int rows, int in, int out, double[] x, double[] dy) {
    double[] w = new double[out * in];
    for (int r = 0; r < rows; r++) {
      for (int o = 0; o < out; o++) {
        double g = dy[r * out + o];
        for (int i = 0; i < in; i++) {
          w[o * in + i] += g * x[r * in + i];
        }
      }
    }
    return w;
  }

  private static double[] magnitudes(double[] x) {
    double[] m = x.clone();
    for (int i = 0; i < m.length; i++) {
      m[i] = Math.abs(m[i]);
    }
    return m;
  }

  private static double[] sums(int rows, int out, double[] dy) {
    double[] sums = new double[out];
    for (int i = 0; i < rows * out; i++) {
      sums[i % out] += dy[i];
    }
    return sums;
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3})
  void agreesWithDouble(int threads) {
    try (CpuArrays t = new CpuArrays(threads)) {
      for (int[] s : SHAPES) {
        String what = s[0] + " rows, " + s[1] + " in, " + s[2] + " out";
        double[] x = t.gaussian((long) s[0] * s[1]);
        double[] dy = t.gaussian((long) s[0] * s[2]);
        double[] w = product(s[0], s[1], s[2], x, dy);
        double[] bound = product(s[0], s[1], s[2], magnitudes(x), magnitudes(dy));
        Array dw = t.empty(s[2], s[1]);
        Array db = t.empty(s[2]);
        Array arrayX = t.of(x, s[0], s[1]);
        Array arrayDy = t.of(dy, s[0], s[2]);
        t.backend.linearBackwardWeight(s[0], s[1], s[2], arrayX, arrayDy, dw, db);
        t.check("dWeight, " + what, w, bound, dw, 3e-7);
        t.check("dBias, " + what, sums(s[0], s[2], dy), sums(s[0], s[2], magnitudes(dy)), db, 3e-7);
        Array alone = t.empty(s[2], s[1]);
        t.backend.linearBackwardWeight(s[0], s[1], s[2], arrayX, arrayDy, alone, null);
        assertArrayEquals(t.bytes(dw), t.bytes(alone), "without a bias, " + what);
        t.clear();
      }
    }
  }

  @Test
  void manyRowsGiveTheSameBitsWithAnyNumberOfThreads() {
    byte[][] weights = new byte[4][];
    byte[][] biases = new byte[4][];
    for (int i = 0; i < 4; i++) {
      try (CpuArrays t = new CpuArrays(i + 1)) {
        Array x = t.of(t.gaussian(12_544 * 24), 12_544, 24);
        Array dy = t.of(t.gaussian(12_544 * 40), 12_544, 40);
        Array dw = t.empty(40, 24);
        Array db = t.empty(40);
        t.backend.linearBackwardWeight(12_544, 24, 40, x, dy, dw, db);
        weights[i] = t.bytes(dw);
        biases[i] = t.bytes(db);
        t.clear();
      }
      assertArrayEquals(weights[0], weights[i]);
      assertArrayEquals(biases[0], biases[i]);
    }
  }
}
