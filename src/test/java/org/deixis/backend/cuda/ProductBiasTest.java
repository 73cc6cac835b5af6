package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

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
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Biases that begin anywhere, as a part of a packed one does, and products in captured graphs:
 * cuBLASLt reads a bias 16 bytes at once, and cannot advise an algorithm while a stream is
 * captured.
 */
@Tag("cuda-host")
class ProductBiasTest {
  private static final int M = 2;
  private static final int N = 5;
  private static CudaBackend backend;

  @BeforeAll
  static void standIn() {
    CudaHost.require();
    backend = CudaHost.backend();
  }

  private static double[] numbers(int n, int from) {
    double[] all = new double[n];
    for (int i = 0; i < n; i++) {
      all[i] = from + i;
    }
    return all;
  }

  private static void holds(int from, Array c) {
    double[] got = Host.download(c);
    for (int i = 0; i < M * N; i++) {
      // Rows of a are (1, 2) and (3, 4); b is 1 everywhere.
      assertEquals((i / N == 0 ? 3 : 7) + from + i % N, got[i], 1e-3, "element " + i);
    }
  }

  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F32", "F16", "BF16"})
  void aBiasMayBeginAnywhere(DType dtype) {
    long live = backend.memory().stats().live();
    try (Scope scope = Scope.open()) {
      Array a = Host.upload(backend, numbers(4, 1), Shape.of(M, 2), dtype);
      Array b =
          Host.upload(backend, new double[] {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, Shape.of(2, N), dtype);
      Array c = Host.upload(backend, new double[M * N], Shape.of(M, N), dtype);
      Array packed = Host.upload(backend, numbers(20, 0), Shape.of(20), dtype);
      Array first = Host.upload(backend, numbers(20, 0), Shape.of(20), dtype);
      Array other = Host.upload(backend, numbers(20, 40), Shape.of(20), dtype);
      for (int offset = 0; offset <= 15; offset++) {
        Array bias = packed.slice(offset, offset + N);
        Runnable work = () -> backend.gemm(Gemm.of(M, N, 2, false, false), a, b, bias, null, c);
        backend.fill(c, -1);
        backend.graphs().warmUp(work);
        holds(offset, c);
        try (Graphs.Graph graph = backend.graphs().capture(work)) {
          backend.copy(other, packed);
          graph.launch();
          holds(offset + 40, c); // what the bias is at the launch
          backend.copy(first, packed);
        }
      }
    }
    assertEquals(live, backend.memory().stats().live());
  }

  /** A shape that was never computed has no plan; the library would fail in the middle. */
  @Test
  void aProductIsPlannedBeforeItIsCaptured() {
    DType dtype = DType.F32;
    try (Scope scope = Scope.open()) {
      Array a = Host.upload(backend, new double[3 * 11], Shape.of(3, 11), dtype);
      Array b = Host.upload(backend, new double[11 * 17], Shape.of(11, 17), dtype);
      Array c = Host.upload(backend, new double[3 * 17], Shape.of(3, 17), dtype);
      Runnable work = () -> backend.gemm(Gemm.of(3, 17, 11, false, false), a, b, null, null, c);
      IllegalStateException e =
          assertThrows(IllegalStateException.class, () -> backend.graphs().capture(work));
      assertTrue(e.getMessage().contains("before it is captured"), e.getMessage());
      work.run();
      try (Graphs.Graph graph = backend.graphs().capture(work)) {
        graph.launch();
      }
      assertEquals(0, Host.download(c)[0]);
    }
  }
}
