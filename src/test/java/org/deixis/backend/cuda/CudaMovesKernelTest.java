package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import java.util.List;
import java.util.stream.Stream;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.core.Shape;
import org.deixis.testing.CudaHost;
import org.deixis.testing.Host;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Moves that the operations ask for seldom or not at all, bit for bit against the reference on the
 * stand-in driver: every pair of types, arrays of several tiles, and arrays off alignment.
 */
@Tag("cuda-host")
class CudaMovesKernelTest {
  private static final List<DType> FLOATING = List.of(DType.F32, DType.F16, DType.BF16);
  private static final int[] SIZES = {1, 15, 16, 4099, 9000};

  @BeforeEach
  void needsACompiler() {
    CudaHost.require();
  }

  private interface Use {
    Array on(Backend backend, Rng rng);
  }

  private static void same(String what, Use use) {
    double[][] results = new double[2][];
    Backend[] backends = {Backends.get("reference"), CudaHost.backend()};
    for (int i = 0; i < 2; i++) {
      try (Scope scope = Scope.open()) {
        results[i] = Host.download(use.on(backends[i], new Rng(11)));
      }
    }
    assertArrayEquals(results[0], results[1], what);
  }

  /** Whole numbers, which every type but the bytes holds, from element {@code skip} of a buffer. */
  private static Array draw(Backend backend, Rng rng, int n, int skip, DType type) {
    double[] values = new double[n + skip];
    for (int i = 0; i < values.length; i++) {
      values[i] = rng.nextInt(128);
    }
    return Host.upload(backend, values, Shape.of(n + skip), type).slice(skip, n + skip);
  }

  static Stream<List<DType>> pairs() {
    return Stream.concat(
        Stream.of(
            List.of(DType.U8, DType.F32),
            List.of(DType.U8, DType.F16),
            List.of(DType.I32, DType.F32),
            List.of(DType.I32, DType.BF16),
            List.of(DType.U8, DType.U8),
            List.of(DType.I32, DType.I32)),
        FLOATING.stream().flatMap(a -> FLOATING.stream().map(b -> List.of(a, b))));
  }

  @ParameterizedTest
  @MethodSource("pairs")
  void copies(List<DType> types) {
    for (int n : SIZES) {
      for (int skip = 0; skip < 3; skip++) {
        int first = skip;
        same(
            types + " of " + n + " from " + skip,
            (backend, rng) -> {
              Array x = draw(backend, rng, n, first, types.get(0));
              Array y = draw(backend, rng, n, first, types.get(1));
              backend.copy(x, y);
              return y;
            });
      }
    }
  }

  @Test
  void fills() {
    for (DType type : FLOATING) {
      for (int n : SIZES) {
        for (int skip = 0; skip < 2; skip++) {
          int first = skip;
          same(
              type + " " + n + " from " + skip,
              (backend, rng) -> {
                Array y = draw(backend, rng, n, first, type);
                backend.fill(y, -3);
                return y;
              });
        }
      }
    }
  }

  @ParameterizedTest
  @CsvSource({
    "90, 24, 8, 40, 16, 48",
    "90, 24, 4, 40, 16, 48",
    "7, 13, 0, 13, 5, 29",
    "300, 16, 16, 32, 0, 16"
  })
  void addsColumns(int rows, int columns, int xOffset, int xStride, int yOffset, int yStride) {
    for (DType type : FLOATING) {
      for (int skip = 0; skip < 2; skip++) {
        for (boolean accumulate : new boolean[] {false, true}) {
          int first = skip;
          same(
              type + " from " + skip + ", accumulate " + accumulate,
              (backend, rng) -> {
                Array x = draw(backend, rng, rows * xStride, first, type);
                Array y = draw(backend, rng, rows * yStride, first, type);
                backend.copyColumns(
                    rows, columns, x, xOffset, xStride, y, yOffset, yStride, accumulate);
                return y;
              });
        }
      }
    }
  }
}
