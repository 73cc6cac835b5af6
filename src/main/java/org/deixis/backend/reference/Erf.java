package org.deixis.backend.reference;

/** The Gauss error function to double precision. */
final class Erf {
  /** Below: the series; above: the continued fraction, which converges faster the larger x is. */
  private static final double SERIES_LIMIT = 2.5;

  /** Enough for full precision at {@link #SERIES_LIMIT}. */
  private static final int FRACTION_TERMS = 120;

  private static final double INVERSE_SQRT_PI = 1 / Math.sqrt(Math.PI);

  private Erf() {}

  static double erf(double x) {
    double a = Math.abs(x);
    double value = a < SERIES_LIMIT ? series(a) : 1 - fraction(a);
    return x != x ? x : Math.copySign(value, x);
  }

  /** 1 − erf(x), without cancellation for large x. */
  static double erfc(double x) {
    return x >= SERIES_LIMIT ? fraction(x) : 1 - erf(x);
  }

  /** Abramowitz and Stegun 7.1.6: all terms positive, hence no cancellation. */
  private static double series(double x) {
    double term = x;
    double sum = x;
    for (int n = 1; term > sum * 1e-17; n++) {
      term *= 2 * x * x / (2 * n + 1);
      sum += term;
    }
    return 2 * INVERSE_SQRT_PI * Math.exp(-x * x) * sum;
  }

  /**
   * erfc for positive x by Abramowitz and Stegun 7.1.14: exp(−x²)/√π · 1/(x + (1/2)/(x + 1/(x +
   * (3/2)/(x + …)))), evaluated from the inside.
   */
  private static double fraction(double x) {
    double tail = x;
    for (int n = FRACTION_TERMS; n > 0; n--) {
      tail = x + n / 2.0 / tail;
    }
    return Math.exp(-x * x) * INVERSE_SQRT_PI / tail;
  }
}
