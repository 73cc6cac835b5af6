package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Random;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Gemm;
import org.deixis.backend.Graphs;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.testing.CudaHost;
import org.deixis.testing.Host;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Products that cuBLASLt refuses, at the first asking or after it has advised an algorithm, are
 * computed all the same. The stand-in has no algorithm with a bias for 43 columns of c, none at all
 * for 47, and for 53 refuses all that it advises but the last. Numbers are small and whole, so that
 * every type holds every sum.
 */
@Tag("cuda-host")
class RefusedProductTest {
  private static final int ROWS = 3;
  private static final int DEPTH = 5;
  private static CudaBackend backend;

  @BeforeAll
  static void standIn() {
    assertTrue(CudaHost.available(), "g++ is missing: the cuda backend cannot be tested");
    backend = CudaHost.backend();
  }

  private static double[] whole(Random random, int n) {
    return random.ints(n, -2, 3).asDoubleStream().toArray();
  }

  @ParameterizedTest
  @CsvSource({"43, F32", "43, F16", "47, F32", "47, BF16", "53, F32", "53, F16"})
  void isComputedAllTheSame(int n, DType dtype) {
    long seed = Long.getLong("test.seed", 7);
    Random random = new Random(seed);
    double[] a = whole(random, ROWS * DEPTH);
    double[] b = whole(random, DEPTH * n);
    double[] bias = whole(random, n);
    double[] sums = new double[ROWS * n];
    for (int i = 0; i < sums.length; i++) {
      sums[i] = bias[i % n];
      for (int k = 0; k < DEPTH; k++) {
        sums[i] += a[i / n * DEPTH + k] * b[k * n + i % n];
      }
    }
    long live = backend.memory().stats().live();
    try (Scope scope = Scope.open()) {
      Array arrayA = Host.upload(backend, a, Shape.of(ROWS, DEPTH), dtype);
      Array arrayB = Host.upload(backend, b, Shape.of(DEPTH, n), dtype);
      Array arrayBias = Host.upload(backend, bias, Shape.of(n), dtype);
      Array pre = Host.upload(backend, new double[ROWS * n], Shape.of(ROWS, n), dtype);
      Array c = Host.upload(backend, new double[ROWS * n], Shape.of(ROWS, n), dtype);
      Gemm spec = Gemm.of(ROWS, n, DEPTH, false, false);
      for (boolean active : new boolean[] {false, true}) {
        Runnable work =
            active
                ? () ->
                    backend.gemm(spec.activated(Activation.RELU), arrayA, arrayB, arrayBias, pre, c)
                : () -> backend.gemm(spec, arrayA, arrayB, arrayBias, null, c);
        for (int run = 0; run < 2; run++) {
          backend.fill(c, Double.NaN);
          backend.fill(pre, Double.NaN);
          backend.graphs().warmUp(work);
          check(sums, c, active ? pre : null, seed);
        }
        try (Graphs.Graph graph = backend.graphs().capture(work)) {
          backend.fill(c, Double.NaN);
          graph.launch();
          check(sums, c, active ? pre : null, seed);
        }
      }
    }
    assertEquals(live, backend.memory().stats().live());
  }

  private static void check(double[] sums, Array c, Array pre, long seed) {
    double[] got = Host.download(c);
    double[] argument = pre == null ? null : Host.download(pre);
    for (int i = 0; i < sums.length; i++) {
      double expected = pre == null ? sums[i] : Math.max(0, sums[i]);
      assertEquals(expected, got[i], "element " + i + ", seed " + seed);
      if (pre != null) {
        assertEquals(sums[i], argument[i], "argument " + i + ", seed " + seed);
      }
    }
  }
}
