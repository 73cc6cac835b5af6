package org.deixis.backend.reference;

import org.deixis.backend.Array;
import org.deixis.backend.Binary;
import org.deixis.backend.Unary;
import org.deixis.core.Rng;

/** Elementwise functions and dropout. */
final class ReferenceElementwise {
  private static final double SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);
  private static final double GELU_CUBIC = 0.044715;

  private ReferenceElementwise() {}

  static double sigmoid(double x) {
    return 1 / (1 + Math.exp(-x));
  }

  /** Distribution function of the standard normal. */
  private static double phi(double x) {
    return 0.5 * Erf.erfc(-x / Math.sqrt(2));
  }

  static double apply(Unary kind, double x) {
    return switch (kind) {
      case GELU -> x * phi(x);
      case GELU_TANH -> 0.5 * x * (1 + Math.tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)));
      case RELU -> Math.max(x, 0);
      case SIGMOID -> sigmoid(x);
      case TANH -> Math.tanh(x);
      case EXP -> Math.exp(x);
      case SQUARE -> x * x;
    };
  }

  static double derivative(Unary kind, double x) {
    return switch (kind) {
      case GELU -> phi(x) + x * Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
      case GELU_TANH -> {
        double t = Math.tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
        yield 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x);
      }
      case RELU -> x > 0 ? 1 : 0;
      case SIGMOID -> sigmoid(x) * sigmoid(-x);
      case TANH -> 1 - Math.tanh(x) * Math.tanh(x);
      case EXP -> Math.exp(x);
      case SQUARE -> 2 * x;
    };
  }

  static void unary(Unary kind, Array x, Array y) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    for (int i = 0, n = (int) x.size(); i < n; i++) {
      to.set(i, apply(kind, from.get(i)));
    }
  }

  static void unaryBackward(Unary kind, Array x, Array dy, Array dx) {
    Values at = Values.of(x);
    Values up = Values.of(dy);
    Values to = Values.of(dx);
    for (int i = 0, n = (int) x.size(); i < n; i++) {
      to.set(i, up.get(i) * derivative(kind, at.get(i)));
    }
  }

  static void binary(
      Binary kind,
      int outer,
      int middle,
      int inner,
      boolean bOuter,
      boolean bMiddle,
      boolean bInner,
      Array a,
      Array b,
      Array y) {
    Values left = Values.of(a);
    Values right = Values.of(b);
    Values to = Values.of(y);
    int bInnerExtent = bInner ? inner : 1;
    int bMiddleExtent = bMiddle ? middle : 1;
    for (int o = 0; o < outer; o++) {
      for (int i = 0; i < middle; i++) {
        for (int n = 0; n < inner; n++) {
          int index = (o * middle + i) * inner + n;
          int bRow = (bOuter ? o : 0) * bMiddleExtent + (bMiddle ? i : 0);
          double p = left.get(index);
          double q = right.get(bRow * bInnerExtent + (bInner ? n : 0));
          to.set(
              index,
              switch (kind) {
                case ADD -> p + q;
                case SUB -> p - q;
                case MUL -> p * q;
                case DIV -> p / q;
              });
        }
      }
    }
  }

  static void axpby(double alpha, Array x, double beta, Array y) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    for (int i = 0, n = (int) x.size(); i < n; i++) {
      double scaled = alpha * from.get(i);
      to.set(i, beta == 0 ? scaled : scaled + beta * to.get(i));
    }
  }

  static void dropout(double p, long block, long offset, long[] rng, Array x, Array y) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    int[] words = new int[4];
    for (int i = 0, n = (int) x.size(); i < n; i++) {
      long draw = offset + i / block;
      Rng.philox(rng[0], rng[1], draw >>> 2, words);
      double uniform = (words[(int) (draw & 3)] >>> 8) * 0x1p-24;
      to.set(i, uniform >= p ? from.get(i) / (1 - p) : 0);
    }
  }
}
