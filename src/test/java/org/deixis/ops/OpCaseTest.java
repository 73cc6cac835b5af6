package org.deixis.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Reduction;
import org.deixis.backend.Scope;
import org.deixis.bench.OpCase;
import org.deixis.bench.OpCases;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.core.Shape;
import org.deixis.testing.CaseRun;
import org.deixis.testing.Host;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/**
 * Every case of the table on every backend: outputs and gradients against the reference in double,
 * gradients against finite differences, half precision, and memory. {@code -Dtest.seed=N} draws
 * other operands.
 */
class OpCaseTest {
  static final long SEED = Long.getLong("test.seed", 20261);
  private static final Backend REFERENCE = Backends.get("reference");

  private static List<Backend> backends() {
    return TestBackends.all();
  }

  @TestFactory
  Stream<DynamicTest> agreesWithTheReferenceInDouble() {
    return backends().stream()
        .flatMap(
            backend ->
                OpCases.all().stream()
                    .map(
                        c ->
                            dynamicTest(
                                c + " on " + backend.name() + ", seed " + SEED,
                                () -> compare(c, backend, DType.F32, 2e-5))));
  }

  @TestFactory
  Stream<DynamicTest> agreesInHalfPrecision() {
    return backends().stream()
        .flatMap(
            backend ->
                OpCases.all().stream()
                    .map(
                        c ->
                            dynamicTest(
                                c + " in half on " + backend.name() + ", seed " + SEED,
                                () -> {
                                  compare(c, backend, DType.F16, 5e-3);
                                  compare(c, backend, DType.BF16, 2e-2);
                                })));
  }

  static void compare(OpCase c, Backend backend, DType dtype, double tolerance) {
    List<double[]> operands = CaseRun.operands(c, dtype, SEED);
    CaseRun.Result expected = CaseRun.run(c, REFERENCE, DType.F64, operands, SEED);
    long before = backend.memory().stats().live();
    CaseRun.Result actual = CaseRun.run(c, backend, dtype, operands, SEED);
    assertEquals(before, backend.memory().stats().live(), c + " leaves memory behind");
    for (int i = 0; i < expected.outputs().size(); i++) {
      double error = Host.relative(actual.outputs().get(i), expected.outputs().get(i));
      assertTrue(error <= tolerance, c + " " + dtype + " output " + i + " is off by " + error);
    }
    double largest = 0;
    for (double[] g : expected.gradients()) {
      largest = Math.max(largest, g == null ? 0 : norm(g));
    }
    for (int i = 0; i < expected.gradients().size(); i++) {
      double[] e = expected.gradients().get(i);
      if (e == null) {
        continue;
      }
      double[] a = actual.gradients().get(i);
      double error = Host.relative(a, e);
      // A gradient that is zero in truth is compared with the largest one instead.
      boolean vanishes =
          norm(e) <= 1e-9 * largest && norm(a) <= Math.max(1e-6, tolerance / 10) * largest;
      assertTrue(
          error <= tolerance || vanishes,
          c + " " + dtype + " gradient " + i + " is off by " + error);
    }
  }

  private static double norm(double[] v) {
    double sum = 0;
    for (double x : v) {
      sum += x * x;
    }
    return Math.sqrt(sum);
  }

  @TestFactory
  Stream<DynamicTest> gradientsAgreeWithFiniteDifferences() {
    return OpCases.all().stream()
        .map(c -> dynamicTest(c + ", seed " + SEED, () -> finiteDifferences(c)));
  }

  private static void finiteDifferences(OpCase c) {
    List<double[]> operands = CaseRun.operands(c, DType.F32, SEED);
    List<CaseRun.Result> results = new ArrayList<>();
    results.add(CaseRun.run(c, REFERENCE, DType.F64, operands, SEED));
    for (Backend backend : backends()) {
      results.add(CaseRun.run(c, backend, DType.F32, operands, SEED));
    }
    for (int i = 0; i < operands.size(); i++) {
      if (!c.inputs().get(i).gradient() || operands.get(i).length == 0) {
        continue;
      }
      double[] v = operands.get(i);
      int samples = Math.min(v.length, 24);
      Rng rng = new Rng(SEED, 7);
      double[] numeric = new double[samples];
      double[][] analytic = new double[results.size()][samples];
      for (int s = 0; s < samples; s++) {
        int at = v.length <= 24 ? s : rng.nextInt(v.length);
        double h = 1e-5 * Math.max(1, Math.abs(v[at]));
        double kept = v[at];
        v[at] = kept + h;
        double above = CaseRun.objective(c, REFERENCE, operands, SEED);
        v[at] = kept - h;
        double below = CaseRun.objective(c, REFERENCE, operands, SEED);
        v[at] = kept;
        numeric[s] = (above - below) / (2 * h);
        for (int r = 0; r < results.size(); r++) {
          analytic[r][s] = results.get(r).gradients().get(i)[at];
        }
      }
      for (int r = 0; r < results.size(); r++) {
        // A cast rounds to fp32 by definition, which is noise to a difference quotient.
        double tolerance = c.op().equals(Layout.CAST) ? 5e-3 : r == 0 ? 2e-6 : 1e-4;
        double error = Host.relative(analytic[r], numeric);
        boolean vanishes = norm(numeric) < 1e-7 && norm(analytic[r]) < 1e-5;
        assertTrue(
            error <= tolerance || vanishes,
            c + " gradient " + i + " of run " + r + " is off by " + error);
      }
    }
  }

  @Test
  void everyOperationHasACaseWithAGradient() {
    Set<String> missing = new TreeSet<>(Ops.names());
    for (OpCase c : OpCases.all()) {
      assertTrue(Ops.names().contains(c.op()), c + " is of no registered operation");
      if (c.inputs().stream().anyMatch(OpCase.Input::gradient)) {
        missing.remove(c.op());
      }
    }
    missing.remove(Reduce.name(Reduction.MAX)); // has none, and says so: the next test
    assertTrue(missing.isEmpty(), "operations without a gradient check: " + missing);
  }

  @Test
  void anOperationWithoutBackwardThrowsInForward() {
    for (Backend backend : backends()) {
      try (Scope scope = Scope.open();
          Tape tape = Tape.open()) {
        Array x = Host.upload(backend, new double[] {1, 2}, Shape.of(2), DType.F32);
        IllegalStateException e =
            assertThrows(
                IllegalStateException.class,
                () -> Reduce.apply(Reduction.MAX, Variable.leaf(x), 0, 1));
        assertTrue(e.getMessage().startsWith("reduce_max has no backward"), e.getMessage());
      }
    }
  }
}
