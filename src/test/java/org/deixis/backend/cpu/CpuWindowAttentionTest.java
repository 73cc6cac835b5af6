package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.stream.Stream;
import org.deixis.backend.Array;
import org.deixis.backend.Scope;
import org.deixis.backend.WindowAttention;
import org.deixis.backend.reference.ReferenceBackend;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Windowed attention against the reference in double precision. */
class CpuWindowAttentionTest {
  private static final double TOLERANCE = 1e-5;

  static Stream<WindowAttention> specs() {
    return Stream.of(
        new WindowAttention(1, 1, 1, 1, 1, 1, 1, 0, 0, false),
        new WindowAttention(2, 14, 14, 4, 32, 7, 7, 0, 0, false),
        new WindowAttention(2, 14, 14, 4, 32, 7, 7, 3, 3, false),
        new WindowAttention(3, 12, 12, 2, 16, 6, 6, 3, 3, false),
        new WindowAttention(1, 13, 17, 3, 5, 7, 7, 3, 3, false),
        new WindowAttention(2, 13, 17, 3, 5, 7, 7, 3, 3, true),
        new WindowAttention(1, 11, 9, 2, 12, 3, 5, 1, 2, true),
        new WindowAttention(1, 11, 9, 2, 12, 3, 5, 0, 2, false),
        new WindowAttention(1, 24, 24, 8, 32, 12, 12, 6, 6, false),
        new WindowAttention(1, 7, 7, 24, 32, 7, 7, 0, 0, false),
        new WindowAttention(1, 2, 3, 7, 19, 4, 4, 2, 2, true),
        new WindowAttention(1, 5, 5, 2, 64, 2, 3, 1, 1, false),
        new WindowAttention(1, 4, 4, 3, 100, 4, 4, 0, 0, false),
        new WindowAttention(0, 7, 7, 2, 16, 7, 7, 3, 3, false));
  }

  private static boolean padded(WindowAttention s) {
    return s.frameHeight() != s.height() || s.frameWidth() != s.width();
  }

  /** Forward and backward results. */
  private static double[][] run(
      CpuWindowAttention cpu, ReferenceBackend backend, WindowAttention s, Rng rng, DType type) {
    try (Scope scope = Scope.open()) {
      TestArrays make = new TestArrays(backend, type);
      int c = s.channels();
      int tokens = s.windowH() * s.windowW();
      int rows = (2 * s.windowH() - 1) * (2 * s.windowW() - 1);
      // numbers that are floats, so that both types start from the same
      Array qkv =
          make.of(
              floats(rng, 1.5, s.batch(), s.height(), s.width(), 3 * c),
              s.batch(),
              s.height(),
              s.width(),
              3 * c);
      Array bias = padded(s) ? make.of(floats(rng, 1, 3 * c), 3 * c) : null;
      Array table = make.of(floats(rng, 1, rows, s.heads()), rows, s.heads());
      Array dy =
          make.of(
              floats(rng, 1, s.batch(), s.height(), s.width(), c),
              s.batch(),
              s.height(),
              s.width(),
              c);
      Array y = make.result(s.batch(), s.height(), s.width(), c);
      Array lse = make.result(s.batch(), s.windows(), s.heads(), tokens);
      Array dqkv = make.result(s.batch(), s.height(), s.width(), 3 * c);
      Array dBias = padded(s) ? make.result(3 * c) : null;
      Array dTable = make.result(rows, s.heads());
      if (cpu == null) {
        backend.windowAttention(s, qkv, bias, table, y, lse);
        backend.windowAttentionBackward(s, qkv, bias, table, y, lse, dy, dqkv, dBias, dTable);
      } else {
        cpu.windowAttention(s, qkv, bias, table, y, lse);
        cpu.windowAttentionBackward(s, qkv, bias, table, y, lse, dy, dqkv, dBias, dTable);
      }
      return new double[][] {
        TestArrays.values(y),
        TestArrays.values(lse),
        TestArrays.values(dqkv),
        TestArrays.values(dTable),
        padded(s) ? TestArrays.values(dBias) : new double[0]
      };
    }
  }

  private static float[] floats(Rng rng, double spread, int... dims) {
    double[] values = TestArrays.gaussian(rng, dims);
    float[] all = new float[values.length];
    for (int i = 0; i < all.length; i++) {
      all[i] = (float) (spread * values[i]);
    }
    return all;
  }

  @ParameterizedTest
  @MethodSource("specs")
  void agreesWithReference(WindowAttention spec) {
    try (ReferenceBackend backend = new ReferenceBackend();
        WorkerPool pool = new WorkerPool(2)) {
      CpuWindowAttention cpu = new CpuWindowAttention(pool);
      double[][] expected = run(null, backend, spec, new Rng(5), DType.F64);
      double[][] actual = run(cpu, backend, spec, new Rng(5), DType.F32);
      String[] names = {"y", "lse", "dqkv", "dTable", "dBias"};
      for (int i = 0; i < names.length; i++) {
        double distance = TestArrays.distance(expected[i], actual[i]);
        // What only pairs behind the mask contribute is e⁻¹⁰⁰ in truth and 0 in floats.
        double size = TestArrays.distance(new double[expected[i].length], expected[i]);
        assertTrue(distance <= TOLERANCE || size < 1e-30, names[i] + " is off by " + distance);
      }
    }
  }

  @Test
  void threadsDoNotChangeBits() {
    WindowAttention spec = new WindowAttention(3, 20, 23, 4, 24, 7, 7, 3, 3, true);
    double[][] first = null;
    for (int threads : new int[] {1, 2, 3}) {
      try (ReferenceBackend backend = new ReferenceBackend();
          WorkerPool pool = new WorkerPool(threads)) {
        double[][] results =
            run(new CpuWindowAttention(pool), backend, spec, new Rng(6), DType.F32);
        first = first == null ? results : first;
        for (int i = 0; i < results.length; i++) {
          assertArrayEquals(first[i], results[i]);
        }
      }
    }
  }
}
