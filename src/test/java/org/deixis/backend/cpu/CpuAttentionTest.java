package org.deixis.backend.cpu;

import java.util.stream.Stream;
import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.core.DType;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Attention over sequences and of regions against the reference in double precision. */
class CpuAttentionTest {
  static Stream<Attention> specs() {
    return Stream.of(
        Attention.self(1, 1, 1, 1),
        Attention.self(2, 12, 20, 64),
        Attention.self(3, 2, 7, 5),
        Attention.self(9, 4, 130, 16),
        Attention.cross(4, 8, 576, 10, 12),
        Attention.cross(2, 8, 100, 6, 64),
        Attention.cross(1, 3, 1, 97, 7),
        Attention.cross(1, 1, 65, 3, 300),
        Attention.cross(10, 8, 8, 20, 48),
        Attention.cross(0, 2, 3, 4, 5),
        Attention.cross(2, 2, 0, 4, 5),
        new Attention(2, 2, 5, 9, 6, 0.3f, 4, 20, 1, 40, 15, 31));
  }

  @ParameterizedTest
  @MethodSource("specs")
  void dense(Attention s) {
    check(s, false);
  }

  @ParameterizedTest
  @MethodSource("specs")
  void masked(Attention s) {
    check(s, true);
  }

  private static void check(Attention s, boolean masked) {
    int c = s.heads() * s.headDim();
    Compare.of(CpuAttention::new)
        .check(
            t -> {
              Array q = t.spread(1.5, s.batch(), s.queries(), s.qStride());
              boolean self = s.kOffset() == c && s.qStride() == s.kStride();
              Array k = self ? q : t.spread(1.5, s.batch(), s.keys(), s.kStride());
              boolean packed = s.vStride() == s.kStride();
              Array v = packed ? k : t.input(s.batch(), s.keys(), s.vStride());
              Array mask = masked ? mask(t, s) : null;
              Array dy = t.input(s.batch(), s.queries(), c);
              Array y = t.result("y", s.batch(), s.queries(), c);
              Array lse = t.result("lse", s.batch(), s.heads(), s.queries());
              // columns of others must keep what they hold
              Array dq = t.both("dq", t.input(s.batch(), s.queries(), s.qStride()));
              Array dk = self ? dq : t.both("dk", t.input(s.batch(), s.keys(), s.kStride()));
              Array dv = packed ? dk : t.both("dv", t.input(s.batch(), s.keys(), s.vStride()));
              return new Compare.Runs<>(
                  backend -> {
                    backend.attention(s, q, k, v, mask, y, lse);
                    backend.attentionBackward(s, q, k, v, mask, y, lse, dy, dq, dk, dv);
                  },
                  cpu -> {
                    cpu.attention(s, q, k, v, mask, y, null);
                    cpu.attention(s, q, k, v, mask, y, lse);
                    cpu.attentionBackward(s, q, k, v, mask, y, lse, dy, dq, dk, dv);
                  });
            });
  }

  /** The first key always counts, another with probability ½. */
  private static Array mask(Compare.Case t, Attention s) {
    double[] values = new double[s.batch() * s.keys()];
    for (int i = 0; i < values.length; i++) {
      values[i] = i % s.keys() == 0 ? 1 : t.rng.nextInt(2);
    }
    return t.make.of(DType.I32, values, s.batch(), s.keys());
  }

  @ParameterizedTest
  @CsvSource({
    "1, 8, 576, 96", "1, 8, 3601, 512", "9, 8, 144, 96", "2, 4, 17, 5", "1, 1, 1, 1",
    "3, 33, 700, 20", "1, 128, 300, 64", "9, 3, 1100, 7", "0, 4, 10, 8", "2, 4, 0, 8"
  })
  void regions(int batch, int regions, int pixels, int dim) {
    for (boolean withMap : new boolean[] {false, true}) {
      Compare.of(CpuRegionAttention::new)
          .check(
              t -> {
                float scale = (float) (1 / Math.sqrt(dim));
                Array q = t.spread(2.0, batch, regions, dim);
                Array k = t.spread(2.0, batch, pixels, dim);
                Array v = t.input(batch, pixels, dim);
                Array dy = t.input(batch, regions, dim);
                Array dMap = withMap ? t.input(batch, regions, pixels) : null;
                Array y = t.result("y", batch, regions, dim);
                Array map = t.result("map", batch, regions, pixels);
                Array dq = t.result("dq", batch, regions, dim);
                Array dk = t.result("dk", batch, pixels, dim);
                Array dv = t.result("dv", batch, pixels, dim);
                return new Compare.Runs<>(
                    backend -> {
                      backend.regionAttention(batch, regions, pixels, dim, scale, q, k, v, y, map);
                      backend.regionAttentionBackward(
                          batch, regions, pixels, dim, scale, q, k, v, map, dy, dMap, dq, dk, dv);
                    },
                    cpu -> {
                      cpu.regionAttention(batch, regions, pixels, dim, scale, q, k, v, y, map);
                      cpu.regionAttentionBackward(
                          batch, regions, pixels, dim, scale, q, k, v, map, dy, dMap, dq, dk, dv);
                    });
              });
    }
  }
}
