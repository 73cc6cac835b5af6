package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.function.DoubleUnaryOperator;
import java.util.function.UnaryOperator;
import jdk.incubator.vector.FloatVector;
import org.junit.jupiter.api.Test;

/** Elementary functions against double precision, over dense grids and at the special values. */
class VectorMathTest {
  private static float at(UnaryOperator<FloatVector> f, float x) {
    return f.apply(FloatVector.broadcast(VectorMath.SPECIES, x)).lane(0);
  }

  /** Largest relative error over a grid from low to high. */
  private static double worst(
      UnaryOperator<FloatVector> f, DoubleUnaryOperator exact, double low, double high, int n) {
    float[] x = new float[VectorMath.LANES];
    float[] y = new float[VectorMath.LANES];
    double worst = 0;
    for (int i = 0; i < n; i += x.length) {
      for (int l = 0; l < x.length; l++) {
        x[l] = (float) (low + (high - low) * (i + l) / n);
      }
      f.apply(FloatVector.fromArray(VectorMath.SPECIES, x, 0)).intoArray(y, 0);
      for (int l = 0; l < x.length; l++) {
        double e = exact.applyAsDouble(x[l]);
        worst = Math.max(worst, e == 0 ? Math.abs(y[l]) : Math.abs(y[l] - e) / Math.abs(e));
      }
    }
    return worst;
  }

  /** Abramowitz and Stegun 7.1.5 (series) and 7.1.14 (continued fraction). */
  static double erf(double x) {
    double a = Math.abs(x);
    if (a < 2.5) {
      double term = a;
      double sum = a;
      for (int n = 1; n < 100; n++) {
        term *= -a * a / n;
        sum += term / (2 * n + 1);
      }
      return Math.signum(x) * sum * 2 / Math.sqrt(Math.PI);
    }
    double fraction = a;
    for (int n = 200; n >= 1; n--) {
      fraction = a + n / 2.0 / fraction;
    }
    return Math.signum(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / fraction);
  }

  @Test
  void exponential() {
    assertTrue(worst(VectorMath::exp, Math::exp, -86.5, 88.7, 400_000) < 1.5e-7);
    assertTrue(worst(VectorMath::exp, Math::exp, -1e-3, 1e-3, 40_000) < 1e-7);
    assertTrue(worst(VectorMath::expBelow, Math::exp, -86.5, 0, 40_000) < 1.5e-7);
    assertEquals(1f, at(VectorMath::exp, 0f));
    assertEquals(0f, at(VectorMath::exp, -1000f));
    assertEquals(0f, at(VectorMath::exp, Float.NEGATIVE_INFINITY));
    assertEquals(0f, at(VectorMath::exp, -Float.MAX_VALUE));
    assertEquals(Float.POSITIVE_INFINITY, at(VectorMath::exp, 88.8f));
    assertEquals(Float.POSITIVE_INFINITY, at(VectorMath::exp, Float.POSITIVE_INFINITY));
    assertTrue(Float.isNaN(at(VectorMath::exp, Float.NaN)));
  }

  @Test
  void logarithm() {
    for (int exponent = -126; exponent < 127; exponent += 11) {
      double low = Math.pow(2, exponent);
      assertTrue(worst(VectorMath::log, Math::log, low, 2 * low, 20_000) < 2e-7, "2^" + exponent);
    }
    assertTrue(worst(VectorMath::log, Math::log, 0.5, 2, 300_000) < 2e-7);
    assertTrue(worst(VectorMath::log, Math::log, 1e-44, 1e-38, 1_000) < 2e-7);
    assertTrue(worst(VectorMath::logAbove, Math::log, 1, 2, 300_000) < 2e-7);
    assertTrue(worst(VectorMath::logAbove, Math::log, 1, 20_000, 300_000) < 2e-7);
    assertTrue(Float.isNaN(at(VectorMath::logAbove, Float.NaN)));
    assertEquals(0f, at(VectorMath::log, 1f));
    assertEquals(Float.NEGATIVE_INFINITY, at(VectorMath::log, 0f));
    assertEquals(Float.POSITIVE_INFINITY, at(VectorMath::log, Float.POSITIVE_INFINITY));
    assertTrue(Float.isNaN(at(VectorMath::log, -1f)));
    assertTrue(Float.isNaN(at(VectorMath::log, Float.NaN)));
    assertTrue(worst(VectorMath::log1pUnit, Math::log1p, 1e-12, 1, 200_000) < 3e-7);
    assertTrue(worst(VectorMath::log1pUnit, Math::log1p, 1e-12, 1e-6, 2_000) < 3e-7);
  }

  @Test
  void sigmoids() {
    assertTrue(worst(VectorMath::tanh, Math::tanh, -12, 12, 300_000) < 4e-7);
    assertTrue(worst(VectorMath::tanh, Math::tanh, -1e-4, 1e-4, 1_000) < 2e-7);
    assertTrue(worst(VectorMath::erf, VectorMathTest::erf, -6, 6, 200_000) < 5e-7);
    assertTrue(worst(VectorMath::erf, VectorMathTest::erf, -1e-4, 1e-4, 1_000) < 2e-7);
    assertTrue(worst(VectorMath::sigmoid, x -> 1 / (1 + Math.exp(-x)), -80, 80, 300_000) < 3e-7);
    for (float infinity : new float[] {Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY}) {
      assertEquals(Math.signum(infinity), at(VectorMath::tanh, infinity));
      assertEquals(Math.signum(infinity), at(VectorMath::erf, infinity));
      assertEquals(infinity > 0 ? 1f : 0f, at(VectorMath::sigmoid, infinity));
    }
    assertTrue(Float.isNaN(at(VectorMath::tanh, Float.NaN)));
    assertTrue(Float.isNaN(at(VectorMath::erf, Float.NaN)));
    assertTrue(Float.isNaN(at(VectorMath::sigmoid, Float.NaN)));
  }
}
