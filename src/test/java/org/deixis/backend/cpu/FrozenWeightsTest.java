package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.util.Random;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Conv2d;
import org.deixis.backend.Gemm;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Products and convolutions with frozen weights, against double precision and the plain ones. */
class FrozenWeightsTest {
  private final CpuBackend inner = new CpuBackend(2);
  private final Backend backend = HalfStorage.over(inner, inner.pool(), CpuBackend.HALF_METHODS);
  private final Random random = new Random(Long.getLong("test.seed", 11));

  @AfterEach
  void close() {
    backend.close();
  }

  private double[] gaussian(int n) {
    return random.doubles(n, -1, 1).map(x -> (float) x).toArray();
  }

  private Array array(double[] values, int... dims) {
    return new TestArrays(backend, DType.F32).of(DType.F32, values, dims);
  }

  private static void close(double[] expected, double[] found, double tolerance) {
    double off = 0;
    double size = 0;
    for (int i = 0; i < expected.length; i++) {
      off += (expected[i] - found[i]) * (expected[i] - found[i]);
      size += expected[i] * expected[i];
    }
    assertTrue(Math.sqrt(off / size) <= tolerance, "off by " + Math.sqrt(off / size));
  }

  private static boolean hasBf16() {
    try {
      FrozenWeights.check(DType.BF16);
      return true;
    } catch (InputException e) {
      return false;
    }
  }

  @ParameterizedTest
  @CsvSource({
    "1, 16, 16, true, NONE",
    "20, 768, 96, true, GELU",
    "20, 96, 768, true, NONE",
    "333, 200, 100, true, RELU",
    "700, 130, 257, false, NONE",
    "3, 300, 64, false, GELU",
    "50, 33, 70, true, GELU_TANH",
    "40, 7, 64, true, NONE"
  })
  void products(int m, int n, int k, boolean trans, Activation activation) {
    double[] x = gaussian(m * k);
    double[] w = gaussian(n * k);
    double[] shift = gaussian(n);
    double[] expected = new double[m * n];
    for (int i = 0; i < m; i++) {
      for (int j = 0; j < n; j++) {
        double sum = shift[j];
        for (int l = 0; l < k; l++) {
          sum += x[i * k + l] * w[trans ? j * k + l : l * n + j];
        }
        expected[i * n + j] = CpuGemmTest.apply(activation, sum);
      }
    }
    for (DType type : hasBf16() ? new DType[] {DType.F32, DType.BF16} : new DType[] {DType.F32}) {
      long before = backend.memory().stats().live();
      try (Scope scope = Scope.open()) {
        Array weight = array(w, trans ? new int[] {n, k} : new int[] {k, n});
        backend.freeze(weight, type);
        Array y = backend.allocate(Shape.of(m, n), DType.F32);
        Gemm spec = Gemm.of(m, n, k, false, trans).activated(activation);
        for (int run = 0; run < 2; run++) {
          backend.fill(y, Double.NaN);
          backend.gemm(spec, array(x, m, k), weight, array(shift, n), null, y);
          close(expected, TestArrays.values(y), type == DType.F32 ? 2e-6 : 1e-2);
        }
      }
      assertEquals(before, backend.memory().stats().live(), "copies are freed with the weight");
    }
  }

  @Test
  void bf16RoundsBothOperands() {
    assumeTrue(hasBf16(), "no avx512_bf16");
    try (Scope scope = Scope.open()) {
      double[] w = new double[64 * 16];
      double[] x = new double[16];
      java.util.Arrays.fill(w, 1 + 1.0 / 512); // rounds to 1
      java.util.Arrays.fill(x, 1 - 1.0 / 1024); // rounds to 1
      Array weight = array(w, 64, 16);
      backend.freeze(weight, DType.BF16);
      Array y = backend.allocate(Shape.of(1, 64), DType.F32);
      backend.gemm(Gemm.of(1, 64, 16, false, true), array(x, 1, 16), weight, null, null, y);
      double[] expected = new double[64];
      java.util.Arrays.fill(expected, 16);
      assertArrayEquals(expected, TestArrays.values(y));
    }
  }

  @ParameterizedTest
  @CsvSource({
    "2, 9, 11, 32, 24, false", // oneDNN's
    "2, 16, 16, 64, 96, true", // minimal filtering, whole tiles
    "1, 21, 14, 96, 64, true", // tiles cut off at the edge
    "3, 13, 19, 64, 64, false"
  })
  void convolutions(int pictures, int height, int width, int from, int to, boolean withBias) {
    Conv2d spec = new Conv2d(pictures, height, width, from, to, 3, 1, 1);
    double[] x = gaussian(pictures * height * width * from);
    double[] w = gaussian(to * from * 9);
    double[] shift = gaussian(to);
    try (Scope scope = Scope.open()) {
      Array plain = backend.allocate(Shape.of(pictures, height, width, to), DType.F32);
      Array in = array(x, pictures, height, width, from);
      Array bias = withBias ? array(shift, to) : null;
      backend.conv2d(spec, in, array(w, to, from, 3, 3), bias, plain);
      for (DType type : hasBf16() ? new DType[] {DType.F32, DType.BF16} : new DType[] {DType.F32}) {
        Array weight = array(w, to, from, 3, 3);
        backend.freeze(weight, type);
        Array y = backend.allocate(plain.shape(), DType.F32);
        backend.fill(y, Double.NaN);
        backend.conv2d(spec, in, weight, bias, y);
        close(TestArrays.values(plain), TestArrays.values(y), type == DType.F32 ? 5e-6 : 1e-2);
      }
    }
  }

  @Test
  void aWriteIntoAFrozenArrayIsAnError() {
    try (Scope scope = Scope.open()) {
      Array weight = array(gaussian(64 * 32), 64, 32);
      Array other = array(gaussian(64 * 32), 64, 32);
      backend.freeze(weight, DType.F32);
      double[] before = TestArrays.values(weight);
      assertThrows(IllegalStateException.class, () -> backend.fill(weight, 0));
      assertThrows(IllegalStateException.class, () -> backend.copy(other, weight));
      assertThrows(IllegalStateException.class, () -> backend.axpby(1, other, 1, weight));
      assertThrows(
          IllegalStateException.class,
          () -> backend.upload(java.nio.ByteBuffer.allocate(4 * 64 * 32), weight));
      assertThrows(
          IllegalStateException.class,
          () -> backend.fill(weight.slice(1, 2), 0),
          "a view's writes count too");
      assertArrayEquals(before, TestArrays.values(weight));
      backend.copy(weight, other); // reading is free
    }
  }

  @Test
  void memoryThatIsUsedAgainHasNoOldCopies() {
    double[] x = gaussian(64);
    for (int i = 0; i < 3; i++) {
      try (Scope scope = Scope.open()) {
        double[] w = gaussian(64 * 64);
        Array weight = array(w, 64, 64);
        backend.freeze(weight, DType.F32);
        Array y = backend.allocate(Shape.of(1, 64), DType.F32);
        backend.gemm(Gemm.of(1, 64, 64, false, true), array(x, 1, 64), weight, null, null, y);
        double[] expected = new double[64];
        for (int j = 0; j < 64; j++) {
          for (int l = 0; l < 64; l++) {
            expected[j] += x[l] * w[j * 64 + l];
          }
        }
        close(expected, TestArrays.values(y), 2e-6);
        assertTrue(HostBuffer.of(weight).derived() != null);
      }
    }
  }

  @Test
  void binary16IsRefused() {
    assertThrows(InputException.class, () -> backend.freezes(DType.F16));
  }
}
