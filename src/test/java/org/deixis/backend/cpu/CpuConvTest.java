package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import org.deixis.backend.Array;
import org.deixis.backend.Conv2d;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Convolutions, cut by pictures and by bands, against double precision. */
class CpuConvTest {
  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3})
  void convolutionsAndTheirGradients(int threads) {
    Conv2d[] specs = {
      new Conv2d(1, 1, 1, 1, 1, 1, 1, 0),
      new Conv2d(1, 5, 7, 3, 2, 3, 1, 1),
      new Conv2d(2, 8, 8, 16, 32, 3, 1, 1),
      new Conv2d(7, 24, 24, 24, 16, 3, 1, 1),
      new Conv2d(1, 31, 29, 33, 17, 3, 1, 1),
      new Conv2d(1, 32, 32, 3, 48, 4, 4, 0),
      new Conv2d(3, 33, 35, 3, 24, 4, 4, 0),
      new Conv2d(1, 56, 31, 32, 32, 3, 2, 1),
      new Conv2d(2, 57, 30, 16, 32, 3, 2, 1),
      new Conv2d(1, 40, 40, 32, 48, 1, 1, 0),
      new Conv2d(1, 41, 40, 32, 48, 1, 2, 0),
      new Conv2d(1, 60, 60, 32, 32, 1, 2, 0),
      new Conv2d(1, 50, 20, 8, 48, 7, 1, 3),
      new Conv2d(1, 50, 20, 8, 48, 5, 3, 2),
      new Conv2d(1, 62, 20, 8, 48, 2, 3, 1),
      new Conv2d(1, 20, 20, 8, 48, 2, 1, 3),
      new Conv2d(0, 20, 20, 8, 4, 3, 1, 1),
    };
    try (CpuArrays t = new CpuArrays(threads)) {
      for (Conv2d s : specs) {
        check(t, s);
      }
    }
  }

  private static void check(CpuArrays t, Conv2d s) {
    int ci = s.inChannels();
    int co = s.outChannels();
    int k = s.kernel();
    int oh = s.outHeight();
    int ow = s.outWidth();
    double[] x = t.gaussian((long) s.batch() * s.height() * s.width() * ci);
    double[] w = t.gaussian((long) co * ci * k * k);
    double[] bias = t.gaussian(co);
    double[] dy = t.gaussian((long) s.batch() * oh * ow * co);
    double[] plain = new double[dy.length];
    double[] dx = new double[x.length];
    double[] dw = new double[w.length];
    for (int b = 0; b < s.batch(); b++) {
      for (int i = 0; i < oh; i++) {
        for (int j = 0; j < ow; j++) {
          int out = ((b * oh + i) * ow + j) * co;
          for (int p = 0; p < k; p++) {
            int row = i * s.stride() - s.padding() + p;
            for (int q = 0; q < k; q++) {
              int column = j * s.stride() - s.padding() + q;
              if (row < 0 || row >= s.height() || column < 0 || column >= s.width()) {
                continue;
              }
              int in = ((b * s.height() + row) * s.width() + column) * ci;
              for (int o = 0; o < co; o++) {
                double sum = 0;
                double gradient = dy[out + o];
                for (int c = 0; c < ci; c++) {
                  int at = ((o * ci + c) * k + p) * k + q;
                  sum += x[in + c] * w[at];
                  dx[in + c] += gradient * w[at];
                  dw[at] += gradient * x[in + c];
                }
                plain[out + o] += sum;
              }
            }
          }
        }
      }
    }
    double[] y = plain.clone();
    for (int i = 0; i < y.length; i++) {
      y[i] += bias[i % co];
    }
    int[] in = {s.batch(), s.height(), s.width(), ci};
    int[] out = {s.batch(), oh, ow, co};
    Array arrayX = t.of(x, in);
    Array arrayW = t.of(w, co, ci, k, k);
    Array arrayDy = t.of(dy, out);
    Array to = t.empty(out);
    t.backend.conv2d(s, arrayX, arrayW, t.of(bias, co), to);
    t.check("y " + s, y, to, 1e-6);
    t.backend.conv2d(s, arrayX, arrayW, null, to);
    t.check("y without bias " + s, plain, to, 1e-6);
    Array arrayDx = t.empty(in);
    t.backend.conv2dBackwardData(s, arrayW, arrayDy, arrayDx);
    t.check("dx " + s, dx, arrayDx, 1e-6);
    Array arrayDw = t.empty(co, ci, k, k);
    t.backend.conv2dBackwardWeight(s, arrayX, arrayDy, arrayDw);
    t.check("dw " + s, dw, arrayDw, 2e-6);
    t.clear();
  }

  @Test
  void bitsDoNotDependOnScheduling() {
    try (CpuArrays t = new CpuArrays(3)) {
      Conv2d s = new Conv2d(4, 24, 24, 32, 48, 3, 1, 1);
      Array x = t.of(t.gaussian(4 * 24 * 24 * 32), 4, 24, 24, 32);
      Array dy = t.of(t.gaussian(4 * 24 * 24 * 48), 4, 24, 24, 48);
      Array dw = t.empty(48, 32, 3, 3);
      byte[] first = null;
      for (int i = 0; i < 10; i++) {
        t.backend.conv2dBackwardWeight(s, x, dy, dw);
        first = first == null ? t.bytes(dw) : first;
        assertArrayEquals(first, t.bytes(dw));
      }
    }
  }
}
