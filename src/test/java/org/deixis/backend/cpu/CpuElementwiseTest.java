package org.deixis.backend.cpu;

import org.deixis.backend.Array;
import org.deixis.backend.Binary;
import org.deixis.backend.Unary;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Elementwise kernels against double precision, at every broadcast and awkward size. */
class CpuElementwiseTest {
  private static final int[] SIZES = {1, 7, 49, 1024, 4099, 50_021, 300_000};

  static double value(Unary kind, double x) {
    return switch (kind) {
      case GELU -> CpuGemmTest.gelu(x);
      case GELU_TANH -> 0.5 * x * (1 + Math.tanh(inner(x)));
      case RELU -> Math.max(0, x);
      case SIGMOID -> 1 / (1 + Math.exp(-x));
      case TANH -> Math.tanh(x);
      case EXP -> Math.exp(x);
      case SQUARE -> x * x;
    };
  }

  private static double inner(double x) {
    return Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x);
  }

  static double slope(Unary kind, double x) {
    double y = value(kind, x);
    return switch (kind) {
      case GELU ->
          0.5 * (1 + Functions.erf(x / Math.sqrt(2)))
              + x * Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
      case GELU_TANH -> {
        double t = Math.tanh(inner(x));
        yield 0.5 * (1 + t)
            + 0.5 * x * (1 - t * t) * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x);
      }
      case RELU -> x > 0 ? 1 : 0;
      case SIGMOID -> y * (1 - y);
      case TANH -> 1 - y * y;
      case EXP -> y;
      case SQUARE -> 2 * x;
    };
  }

  @ParameterizedTest
  @EnumSource
  void functionsAndTheirGradients(Unary kind) {
    for (int threads : new int[] {1, 3}) {
      try (CpuArrays t = new CpuArrays(threads)) {
        for (int n : SIZES) {
          double[] x = t.gaussian(n);
          double[] dy = t.gaussian(n);
          for (int i = 0; i < n; i++) {
            x[i] = (float) (x[i] * 3);
          }
          x[0] = 0.5;
          if (n > 7) {
            x[3] = 0;
            x[4] = -30;
            x[5] = 30;
          }
          double[] y = new double[n];
          double[] dx = new double[n];
          for (int i = 0; i < n; i++) {
            y[i] = value(kind, x[i]);
            dx[i] = dy[i] * slope(kind, x[i]);
          }
          Array arrayX = t.of(x, n);
          Array arrayY = t.empty(n);
          Array arrayDx = t.empty(n);
          Array arrayDy = t.of(dy, n);
          t.backend.unary(kind, arrayX, arrayY);
          t.check(kind + " " + n, y, arrayY, 1e-6);
          t.backend.unaryBackward(kind, arrayX, arrayY, arrayDy, arrayDx);
          t.check(kind + " gradient " + n, dx, arrayDx, 2e-6);
          t.backend.unaryBackward(kind, arrayX, arrayY, arrayDy, arrayDy);
          t.check(kind + " gradient in place " + n, dx, arrayDy, 2e-6);
          t.clear();
        }
      }
    }
  }

  private static double value(Binary kind, double a, double b) {
    return switch (kind) {
      case ADD -> a + b;
      case SUB -> a - b;
      case MUL -> a * b;
      case DIV -> a / b;
    };
  }

  @ParameterizedTest
  @EnumSource
  void everyBroadcast(Binary kind) {
    int[][] shapes = {
      {1, 1, 1},
      {1, 1, 5},
      {5, 1, 1},
      {2, 3, 4},
      {7, 1, 96},
      {1, 200, 96},
      {32, 60, 96},
      {3, 1000, 33},
      {40, 1, 1000},
      {1, 1, 70_001},
      {300, 7, 3},
      {0, 3, 4}
    };
    for (int threads : new int[] {1, 3}) {
      try (CpuArrays t = new CpuArrays(threads)) {
        for (int[] s : shapes) {
          for (int flags = 0; flags < 8; flags++) {
            boolean o = (flags & 4) != 0;
            boolean m = (flags & 2) != 0;
            boolean i = (flags & 1) != 0;
            int n = s[0] * s[1] * s[2];
            int[] other = {o ? s[0] : 1, m ? s[1] : 1, i ? s[2] : 1};
            double[] a = t.gaussian(n);
            double[] b = t.gaussian(other[0] * other[1] * other[2]);
            for (int j = 0; j < b.length; j++) {
              b[j] = (float) (b[j] + Math.copySign(0.5, b[j]));
            }
            double[] y = new double[n];
            for (int j = 0; j < n; j++) {
              int inner = j % s[2];
              int middle = j / s[2] % s[1];
              int outer = j / s[2] / s[1];
              int at = ((o ? outer : 0) * other[1] + (m ? middle : 0)) * other[2] + (i ? inner : 0);
              y[j] = value(kind, a[j], b[at]);
            }
            Array arrayA = t.of(a, s);
            Array arrayB = t.of(b, other);
            Array arrayY = t.empty(s);
            String what = kind + " " + java.util.Arrays.toString(s) + " flags " + flags;
            t.backend.binary(kind, s[0], s[1], s[2], o, m, i, arrayA, arrayB, arrayY);
            t.check(what, y, arrayY, 2e-7);
            t.backend.binary(kind, s[0], s[1], s[2], o, m, i, arrayA, arrayB, arrayA);
            t.check(what + " in place", y, arrayA, 2e-7);
            t.clear();
          }
        }
      }
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void scaledSums(int threads) {
    try (CpuArrays t = new CpuArrays(threads)) {
      for (int n : SIZES) {
        double[] x = t.gaussian(n);
        double[] y = t.gaussian(n);
        double[] sum = new double[n];
        double[] scaled = new double[n];
        for (int i = 0; i < n; i++) {
          sum[i] = 0.9 * x[i] - 0.3 * y[i];
          scaled[i] = 0.9 * x[i];
        }
        Array arrayX = t.of(x, n);
        Array arrayY = t.of(y, n);
        t.backend.axpby(0.9, arrayX, -0.3, arrayY);
        t.check("sum " + n, sum, arrayY, 1e-6);
        Array fresh = t.empty(n); // beta 0 must not read the NaNs
        t.backend.axpby(0.9, arrayX, 0, fresh);
        t.check("scaled " + n, scaled, fresh, 1e-6);
        t.clear();
      }
    }
  }
}
