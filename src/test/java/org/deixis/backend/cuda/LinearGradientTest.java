package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;

import java.util.Arrays;
import java.util.Random;
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
import org.junit.jupiter.params.provider.EnumSource;

/**
 * The gradient of a bias as an epilogue of the product for the weight, where cuBLASLt has it, where
 * it does not (the stand-in: 11 columns of x), and where the bias begins at no 16 bytes. Numbers
 * are small and whole, so that every type holds every sum.
 */
@Tag("cuda-host")
class LinearGradientTest {
  private static final int ROWS = 9;
  private static final int OUT = 6;
  private static CudaBackend backend;

  @BeforeAll
  static void standIn() {
    CudaHost.require();
    backend = CudaHost.backend();
  }

  private static double[] whole(Random random, int n) {
    return random.ints(n, -2, 3).asDoubleStream().toArray();
  }

  private static double[] weight(int in, double[] x, double[] dy) {
    double[] w = new double[OUT * in];
    for (int i = 0; i < w.length; i++) {
      for (int r = 0; r < ROWS; r++) {
        w[i] += dy[r * OUT + i / in] * x[r * in + i % in];
      }
    }
    return w;
  }

  private static double[] sums(double[] dy) {
    double[] sums = new double[OUT];
    for (int i = 0; i < ROWS * OUT; i++) {
      sums[i % OUT] += dy[i];
    }
    return sums;
  }

  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F32", "F16", "BF16"})
  void weightAndBias(DType dtype) {
    long seed = Long.getLong("test.seed", 7);
    long live = backend.memory().stats().live();
    for (int in : new int[] {8, 11}) {
      for (int offset : new int[] {0, 3}) {
        String what = dtype + ", " + in + " in, bias from " + offset + ", seed " + seed;
        Random random = new Random(seed);
        double[] x = whole(random, ROWS * in);
        double[] dy = whole(random, ROWS * OUT);
        double[] other = whole(random, ROWS * OUT);
        try (Scope scope = Scope.open()) {
          Array arrayX = Host.upload(backend, x, Shape.of(ROWS, in), dtype);
          Array arrayDy = Host.upload(backend, dy, Shape.of(ROWS, OUT), dtype);
          Array next = Host.upload(backend, other, Shape.of(ROWS, OUT), dtype);
          Array dw = Host.upload(backend, new double[OUT * in], Shape.of(OUT, in), dtype);
          Array all = Host.upload(backend, new double[32], Shape.of(32), dtype);
          Array db = all.slice(offset, offset + OUT);
          Runnable work =
              () -> backend.linearBackwardWeight(ROWS, in, OUT, arrayX, arrayDy, dw, db);
          backend.graphs().warmUp(work);
          assertArrayEquals(weight(in, x, dy), Host.download(dw), what);
          assertArrayEquals(sums(dy), Host.download(db), what);
          assertEquals(0, Host.download(all)[offset + OUT], what);
          try (Graphs.Graph graph = backend.graphs().capture(work)) {
            backend.copy(next, arrayDy);
            graph.launch();
            assertArrayEquals(weight(in, x, other), Host.download(dw), what);
            assertArrayEquals(sums(other), Host.download(db), what);
          }
        }
      }
    }
    assertEquals(live, backend.memory().stats().live());
  }

  /** Whether the product did it, by whether the sums were written without another kernel. */
  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F32", "F16", "BF16"})
  void oneProductMakesBothWhereItCan(DType dtype) {
    try (Scope scope = Scope.open()) {
      for (int in : new int[] {8, 11}) {
        Array x = Host.upload(backend, new double[ROWS * in], Shape.of(ROWS, in), dtype);
        double[] ones = new double[ROWS * OUT];
        Arrays.fill(ones, 1);
        Array dy = Host.upload(backend, ones, Shape.of(ROWS, OUT), dtype);
        Array dw = Host.upload(backend, new double[OUT * in], Shape.of(OUT, in), dtype);
        Array all = Host.upload(backend, new double[32], Shape.of(32), dtype);
        Gemm spec = Gemm.of(OUT, in, ROWS, true, false);
        Array db = all.slice(0, OUT);
        assertEquals(in == 8, backend.products().gemmWithSums(spec, dy, x, dw, db));
        assertEquals(in == 8 ? ROWS : 0, Host.download(db)[0]);
        Array odd = all.slice(1, 1 + OUT);
        assertFalse(backend.products().gemmWithSums(spec, dy, x, dw, odd));
      }
    }
  }
}
