package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Random;
import java.util.Set;
import org.bytedeco.cuda.global.cublas;
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
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * GELU's tanh form, its argument and its derivative as epilogues of cuBLASLt's products: in half
 * types, where rows of the argument are multiples of 8 elements and the library has an algorithm
 * (the stand-in has none for 24 columns). Elsewhere a kernel of ours does the same.
 */
@Tag("cuda-host")
class GeluEpilogueTest {
  private static final int ROWS = 9;
  private static final int DEPTH = 6;
  private static CudaBackend backend;

  @BeforeAll
  static void standIn() {
    CudaHost.require();
    backend = CudaHost.backend();
  }

  private static double inner(double x) {
    return Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x);
  }

  private static double gelu(double x) {
    return 0.5 * x * (1 + Math.tanh(inner(x)));
  }

  private static double derivative(double x) {
    double t = Math.tanh(inner(x));
    return 0.5 * (1 + t)
        + 0.5 * x * (1 - t * t) * Math.sqrt(2 / Math.PI) * (1 + 3 * 0.044715 * x * x);
  }

  /** Quarters, which every type holds, as it does their sums of products here. */
  private static double[] quarters(Random random, int n) {
    return random.ints(n, -4, 5).mapToDouble(i -> i / 4.0).toArray();
  }

  private static double product(double[] a, double[] b, int n, int i) {
    double sum = 0;
    for (int k = 0; k < DEPTH; k++) {
      sum += a[i / n * DEPTH + k] * b[k * n + i % n];
    }
    return sum;
  }

  private static void close(double expected, double got, DType dtype, String what) {
    double unit = dtype == DType.F32 ? 1e-6 : dtype == DType.F16 ? 0x1p-10 : 0x1p-7;
    assertEquals(expected, got, unit * Math.max(1, Math.abs(expected)), what);
  }

  private static int[] epilogues(int n, DType dtype) {
    return ((CublasLtProducts) backend.products())
        .epilogues(ROWS, n, DEPTH, dtype).stream().mapToInt(i -> i).sorted().toArray();
  }

  /** 16 columns are fused in half types; 12 are no multiple of 8; for 24 the library refuses. */
  @ParameterizedTest
  @CsvSource({"F32, 16", "F16, 16", "BF16, 16", "F16, 12", "BF16, 24", "F16, 24"})
  void thereAndBack(DType dtype, int n) {
    long seed = Long.getLong("test.seed", 7);
    Random random = new Random(seed);
    boolean fused = dtype != DType.F32 && n == 16;
    long live = backend.memory().stats().live();
    double[] a = quarters(random, ROWS * DEPTH);
    double[] other = quarters(random, ROWS * DEPTH);
    double[] b = quarters(random, DEPTH * n);
    double[] bias = quarters(random, n);
    try (Scope scope = Scope.open()) {
      Array arrayA = Host.upload(backend, a, Shape.of(ROWS, DEPTH), dtype);
      Array next = Host.upload(backend, other, Shape.of(ROWS, DEPTH), dtype);
      Array arrayB = Host.upload(backend, b, Shape.of(DEPTH, n), dtype);
      Array arrayBias = Host.upload(backend, bias, Shape.of(n), dtype);
      Array pre = Host.upload(backend, new double[ROWS * n], Shape.of(ROWS, n), dtype);
      Array kept = Host.upload(backend, new double[ROWS * n], Shape.of(ROWS, n), dtype);
      Array bare = Host.upload(backend, new double[ROWS * n], Shape.of(ROWS, n), dtype);
      Array back = Host.upload(backend, new double[ROWS * n], Shape.of(ROWS, n), dtype);
      Gemm spec = Gemm.of(ROWS, n, DEPTH, false, false).activated(Activation.GELU_TANH);
      Runnable work =
          () -> {
            backend.gemm(spec, arrayA, arrayB, arrayBias, pre, kept);
            backend.gemm(spec, arrayA, arrayB, null, null, bare);
            backend.gemmBackwardActivation(spec, arrayA, arrayB, pre, back);
          };
      backend.graphs().warmUp(work);
      check(a, b, bias, n, dtype, pre, kept, bare, back);
      try (Graphs.Graph graph = backend.graphs().capture(work)) {
        backend.copy(next, arrayA);
        graph.launch();
        check(other, b, bias, n, dtype, pre, kept, bare, back);
      }
      int[] met = epilogues(n, dtype);
      Set<Integer> whole =
          Set.of(
              cublas.CUBLASLT_EPILOGUE_GELU,
              cublas.CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
              cublas.CUBLASLT_EPILOGUE_DGELU);
      for (int epilogue : met) {
        assertTrue(!fused || whole.contains(epilogue), "epilogue " + epilogue + ", " + dtype);
      }
      assertEquals(fused, met.length == whole.size() && whole.contains(met[0]));
    }
    assertEquals(live, backend.memory().stats().live());
  }

  private static void check(
      double[] a,
      double[] b,
      double[] bias,
      int n,
      DType dtype,
      Array pre,
      Array kept,
      Array bare,
      Array back) {
    double[] gotPre = Host.download(pre);
    double[] gotKept = Host.download(kept);
    double[] gotBare = Host.download(bare);
    double[] gotBack = Host.download(back);
    for (int i = 0; i < ROWS * n; i++) {
      double sum = product(a, b, n, i);
      double argument = sum + bias[i % n];
      close(argument, gotPre[i], dtype, "argument " + i);
      close(gelu(argument), gotKept[i], dtype, "with its argument kept " + i);
      close(gelu(sum), gotBare[i], dtype, "without " + i);
      close(sum * derivative(argument), gotBack[i], dtype, "derivative " + i);
    }
  }

  /** β C is added behind the activation, which no epilogue does. */
  @Test
  void whatIsAddedIsNotActivated() {
    try (Scope scope = Scope.open()) {
      Array a = Host.upload(backend, new double[] {-1}, Shape.of(1, 1), DType.F32);
      Array b = Host.upload(backend, new double[] {2}, Shape.of(1, 1), DType.F32);
      for (Activation activation : new Activation[] {Activation.RELU, Activation.GELU}) {
        Array c = Host.upload(backend, new double[] {-5}, Shape.of(1, 1), DType.F32);
        Gemm spec = Gemm.of(1, 1, 1, false, false).activated(activation).accumulating(1);
        backend.gemm(spec, a, b, null, null, c);
        double activated = activation == Activation.RELU ? 0 : -0.04550026;
        assertEquals(activated - 5, Host.download(c)[0], 1e-6, activation.name());
      }
    }
  }

  @Test
  void anArgumentThatBeginsElsewhereIsForTheKernel() {
    try (Scope scope = Scope.open()) {
      Array a = Host.upload(backend, new double[8], Shape.of(1, 8), DType.F16);
      Array b = Host.upload(backend, new double[64], Shape.of(8, 8), DType.F16);
      Array c = Host.upload(backend, new double[8], Shape.of(1, 8), DType.F16);
      Array all = Host.upload(backend, new double[32], Shape.of(32), DType.F16);
      Gemm spec = Gemm.of(1, 8, 8, false, false).activated(Activation.GELU_TANH);
      Products products = backend.products();
      assertTrue(products.gemmBackwardActivation(spec, a, b, all.slice(8, 16), c));
      assertFalse(products.gemmBackwardActivation(spec, a, b, all.slice(1, 9), c));
      Gemm erf = spec.activated(Activation.GELU);
      assertFalse(products.gemmBackwardActivation(erf, a, b, all.slice(8, 16), c));
    }
  }
}
