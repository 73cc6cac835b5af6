package org.deixis.backend.reference;

import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Conv2d;
import org.deixis.backend.Gemm;

/** Matrix products and convolutions. */
final class ReferenceProducts {
  private ReferenceProducts() {}

  static void gemm(Gemm s, Array aArray, Array bArray, Array bias, Array preActivation, Array c) {
    double[] a = Values.read(aArray);
    double[] b = Values.read(bArray);
    double[] shift = Values.read(bias);
    Values before = preActivation == null ? null : Values.of(preActivation);
    Values to = Values.of(c);
    for (int batch = 0; batch < s.batch(); batch++) {
      int aStart = (int) (batch * s.strideA());
      int bStart = (int) (batch * s.strideB());
      int cStart = (int) (batch * s.strideC());
      for (int i = 0; i < s.m(); i++) {
        for (int j = 0; j < s.n(); j++) {
          double sum = 0;
          for (int l = 0; l < s.k(); l++) {
            double p = a[aStart + (s.transA() ? l * s.lda() + i : i * s.lda() + l)];
            double q = b[bStart + (s.transB() ? j * s.ldb() + l : l * s.ldb() + j)];
            sum += p * q;
          }
          double value = s.alpha() * sum + (shift == null ? 0 : shift[j]);
          int index = cStart + i * s.ldc() + j;
          if (before != null) {
            before.set(index, value);
          }
          if (s.activation() != Activation.NONE) {
            value = ReferenceElementwise.apply(s.activation().unary(), value);
          }
          to.set(index, s.beta() == 0 ? value : value + s.beta() * to.get(index));
        }
      }
    }
  }

  /** What to do with one product x·w → y of a convolution, by the three indices. */
  private interface Term {
    void add(int x, int w, int y);
  }

  /** Calls {@code term} for every multiply-add of the convolution, outputs in order. */
  private static void walk(Conv2d s, Term term) {
    int k = s.kernel();
    int c = s.inChannels();
    for (int n = 0; n < s.batch(); n++) {
      for (int oy = 0; oy < s.outHeight(); oy++) {
        for (int ox = 0; ox < s.outWidth(); ox++) {
          for (int o = 0; o < s.outChannels(); o++) {
            int y = ((n * s.outHeight() + oy) * s.outWidth() + ox) * s.outChannels() + o;
            for (int ky = 0; ky < k; ky++) {
              int iy = oy * s.stride() - s.padding() + ky;
              for (int kx = 0; kx < k; kx++) {
                int ix = ox * s.stride() - s.padding() + kx;
                if (iy < 0 || iy >= s.height() || ix < 0 || ix >= s.width()) {
                  continue;
                }
                for (int i = 0; i < c; i++) {
                  int x = ((n * s.height() + iy) * s.width() + ix) * c + i;
                  term.add(x, ((o * c + i) * k + ky) * k + kx, y);
                }
              }
            }
          }
        }
      }
    }
  }

  static void conv2d(Conv2d s, Array x, Array weight, Array bias, Array y) {
    double[] in = Values.read(x);
    double[] w = Values.read(weight);
    double[] shift = Values.read(bias);
    double[] out = new double[(int) y.size()];
    if (shift != null) {
      for (int i = 0; i < out.length; i++) {
        out[i] = shift[i % s.outChannels()];
      }
    }
    walk(s, (xi, wi, yi) -> out[yi] += in[xi] * w[wi]);
    Values.write(out, y);
  }

  static void conv2dBackwardData(Conv2d s, Array weight, Array dy, Array dx) {
    double[] w = Values.read(weight);
    double[] up = Values.read(dy);
    double[] out = new double[(int) dx.size()];
    walk(s, (xi, wi, yi) -> out[xi] += up[yi] * w[wi]);
    Values.write(out, dx);
  }

  static void conv2dBackwardWeight(Conv2d s, Array x, Array dy, Array dWeight) {
    double[] in = Values.read(x);
    double[] up = Values.read(dy);
    double[] out = new double[(int) dWeight.size()];
    walk(s, (xi, wi, yi) -> out[wi] += up[yi] * in[xi]);
    Values.write(out, dWeight);
  }
}
