package org.deixis.backend.cpu;

import java.util.stream.Stream;
import org.deixis.backend.Array;
import org.deixis.backend.WindowAttention;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Windowed attention against the reference in double precision. */
class CpuWindowAttentionTest {
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

  @ParameterizedTest
  @MethodSource("specs")
  void agreesWithReference(WindowAttention s) {
    boolean padded = s.frameHeight() != s.height() || s.frameWidth() != s.width();
    int c = s.channels();
    int rows = (2 * s.windowH() - 1) * (2 * s.windowW() - 1);
    Compare.of(CpuWindowAttention::new)
        .check(
            t -> {
              Array qkv = t.spread(1.5, s.batch(), s.height(), s.width(), 3 * c);
              Array bias = padded ? t.input(3 * c) : null;
              Array table = t.input(rows, s.heads());
              Array dy = t.input(s.batch(), s.height(), s.width(), c);
              Array y = t.result("y", s.batch(), s.height(), s.width(), c);
              Array lse =
                  t.result("lse", s.batch(), s.windows(), s.heads(), s.windowH() * s.windowW());
              Array dqkv = t.result("dqkv", s.batch(), s.height(), s.width(), 3 * c);
              Array dBias = padded ? t.result("dBias", 3 * c) : null;
              Array dTable = t.result("dTable", rows, s.heads());
              return new Compare.Runs<>(
                  backend -> {
                    backend.windowAttention(s, qkv, bias, table, y, lse);
                    backend.windowAttentionBackward(
                        s, qkv, bias, table, y, lse, dy, dqkv, dBias, dTable);
                  },
                  cpu -> {
                    cpu.windowAttention(s, qkv, bias, table, y, lse);
                    cpu.windowAttentionBackward(
                        s, qkv, bias, table, y, lse, dy, dqkv, dBias, dTable);
                  });
            });
  }

  @ParameterizedTest
  @MethodSource("specs")
  void runsWithoutStatistics(WindowAttention s) {
    int c = s.channels();
    int rows = (2 * s.windowH() - 1) * (2 * s.windowW() - 1);
    Compare.of(CpuWindowAttention::new)
        .check(
            t -> {
              Array qkv = t.input(s.batch(), s.height(), s.width(), 3 * c);
              Array bias = t.input(3 * c);
              Array table = t.input(rows, s.heads());
              Array y = t.result("y", s.batch(), s.height(), s.width(), c);
              return new Compare.Runs<>(
                  backend -> backend.windowAttention(s, qkv, bias, table, y, null),
                  cpu -> cpu.windowAttention(s, qkv, bias, table, y, null));
            });
  }
}
