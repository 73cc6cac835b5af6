package org.deixis.bench;

import java.util.Locale;

/** Figures as people read them: three digits and a unit. */
final class Quantity {
  private Quantity() {}

  static String of(double value, String unit) {
    if (unit.equals("s")) {
      return value >= 1
          ? digits(value) + " s"
          : value >= 1e-3 ? digits(value * 1e3) + " ms" : digits(value * 1e6) + " µs";
    }
    if (unit.equals("count")) {
      return String.format(Locale.ROOT, "%.0f", value);
    }
    return digits(value) + " " + unit;
  }

  /** At least three digits, none after the point from 100 on. */
  static String digits(double value) {
    double size = Math.abs(value);
    return String.format(
        Locale.ROOT, size >= 99.95 ? "%.0f" : size >= 9.995 ? "%.1f" : "%.2f", value);
  }
}
