package org.deixis.backend.reference;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.testing.TestArrays;

/**
 * Compares the reference's backward kernels with central differences of its forward ones, in
 * double.
 */
abstract class FiniteDifferences {
  static final double STEP = 1e-5;
  static final double TOLERANCE = 1e-6;

  final Backend backend = Backends.get("reference");
  final TestArrays arrays = new TestArrays(backend, DType.F64);
  final Rng rng = new Rng(Long.getLong("test.seed", 11));

  /** Outputs of the kernel for these inputs. */
  interface Forward {
    Array[] run(double[][] in);
  }

  /** Gradients of the inputs, for the gradients that reach the outputs. */
  interface Backward {
    Array[] run(double[][] in, double[][] up);
  }

  double[] r(int... dims) {
    return TestArrays.gaussian(rng, dims);
  }

  double[][] evaluate(Forward forward, double[][] in) {
    try (Scope scope = Scope.open()) {
      return read(forward.run(in));
    }
  }

  static double[][] read(Array[] results) {
    double[][] values = new double[results.length][];
    for (int i = 0; i < results.length; i++) {
      values[i] = TestArrays.values(results[i]);
    }
    return values;
  }

  static double dot(double[][] a, double[][] b) {
    double sum = 0;
    for (int i = 0; i < a.length; i++) {
      for (int j = 0; j < a[i].length; j++) {
        sum += a[i][j] * b[i][j];
      }
    }
    return sum;
  }

  void check(Forward forward, Backward backward, double[]... in) {
    double[][] outputs = evaluate(forward, in);
    double[][] up = new double[outputs.length][];
    for (int i = 0; i < up.length; i++) {
      up[i] = r(outputs[i].length);
    }
    double[][] gradients;
    try (Scope scope = Scope.open()) {
      gradients = read(backward.run(in, up));
    }
    assertEquals(in.length, gradients.length, "one gradient an input");
    for (int i = 0; i < in.length; i++) {
      double[] numeric = new double[in[i].length];
      for (int j = 0; j < numeric.length; j++) {
        double kept = in[i][j];
        in[i][j] = kept + STEP;
        double above = dot(evaluate(forward, in), up);
        in[i][j] = kept - STEP;
        double below = dot(evaluate(forward, in), up);
        in[i][j] = kept;
        numeric[j] = (above - below) / (2 * STEP);
      }
      double distance = TestArrays.distance(numeric, gradients[i]);
      assertTrue(
          distance <= TOLERANCE,
          "gradient of input " + i + " is off by " + distance + " (seed " + rng.seed() + ")");
    }
  }

  static Array[] all(Array... results) {
    return results;
  }
}
