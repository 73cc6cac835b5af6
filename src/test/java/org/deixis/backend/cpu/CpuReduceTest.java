package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import java.util.Arrays;
import org.deixis.backend.Array;
import org.deixis.backend.Reduction;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Folds against double precision; the error is measured by the sum of magnitudes. */
class CpuReduceTest {
  @ParameterizedTest
  @EnumSource
  void everyAxis(Reduction kind) {
    int[][] shapes = {
      {1, 1, 1},
      {1, 5, 1},
      {5, 1, 1},
      {5, 1, 7},
      {3, 4, 5},
      {1, 18_432, 96},
      {1, 2500, 97},
      {2, 1031, 3},
      {3000, 7, 1},
      {1, 100_003, 1},
      {3, 8192, 1},
      {2, 9001, 1},
      {500, 4, 8},
      {1, 3, 10_007},
      {2, 1025, 4099},
      {0, 3, 2},
      {2, 0, 3},
      {2, 0, 1}
    };
    for (int threads : new int[] {1, 3}) {
      try (CpuArrays t = new CpuArrays(threads)) {
        for (int[] s : shapes) {
          double[] x = t.gaussian((long) s[0] * s[1] * s[2]);
          for (int i = 0; i < x.length; i++) {
            x[i] = (float) (x[i] + 0.3);
          }
          double[] y = new double[s[0] * s[2]];
          double[] measure = new double[y.length];
          for (int o = 0; o < s[0]; o++) {
            for (int n = 0; n < s[2]; n++) {
              double fold = kind == Reduction.MAX ? Double.NEGATIVE_INFINITY : 0;
              double magnitude = 0;
              for (int i = 0; i < s[1]; i++) {
                double value = x[(o * s[1] + i) * s[2] + n];
                fold = kind == Reduction.MAX ? Math.max(fold, value) : fold + value;
                magnitude += Math.abs(value);
              }
              boolean mean = kind == Reduction.MEAN && s[1] > 0;
              y[o * s[2] + n] = mean ? fold / s[1] : fold;
              measure[o * s[2] + n] =
                  kind == Reduction.MAX ? 0 : mean ? magnitude / s[1] : magnitude;
            }
          }
          Array to = t.empty(s[0], s[2]);
          t.backend.reduce(kind, s[0], s[1], s[2], t.of(x, s), to);
          t.check(kind + " " + Arrays.toString(s), y, measure, to, 1e-6);
          t.clear();
        }
      }
    }
  }

  @Test
  void sumsHaveTheSameBitsWithAnyNumberOfThreads() {
    byte[][] columns = new byte[3][];
    byte[][] all = new byte[3][];
    for (int i = 0; i < 3; i++) {
      try (CpuArrays t = new CpuArrays(i + 1)) {
        Array x = t.of(t.gaussian(5000 * 96), 5000, 96);
        Array y = t.empty(96);
        Array total = t.empty(1);
        t.backend.reduce(Reduction.SUM, 1, 5000, 96, x, y);
        t.backend.reduce(Reduction.SUM, 1, 5000 * 96, 1, x, total);
        columns[i] = t.bytes(y);
        all[i] = t.bytes(total);
      }
    }
    assertArrayEquals(columns[0], columns[1]);
    assertArrayEquals(columns[0], columns[2]);
    assertArrayEquals(all[0], all[1]);
    assertArrayEquals(all[0], all[2]);
  }
}
