package org.deixis.backend.cpu;

/** Functions in double precision for oracles. */
final class Functions {
  private Functions() {}

  /** Error function by its series near 0 and Lentz' continued fraction beyond, to about 1e-15. */
  static double erf(double x) {
    double z = Math.abs(x);
    if (z < 3) {
      double term = z;
      double sum = z;
      for (int n = 1; n < 200 && Math.abs(term) > 1e-18 * Math.abs(sum); n++) {
        term *= -z * z / n;
        sum += term / (2 * n + 1);
      }
      return Math.signum(x) * 2 / Math.sqrt(Math.PI) * sum;
    }
    double tail = 0;
    for (int n = 60; n > 0; n--) {
      tail = n / 2.0 / (z + tail);
    }
    return Math.signum(x) * (1 - Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + tail));
  }
}
