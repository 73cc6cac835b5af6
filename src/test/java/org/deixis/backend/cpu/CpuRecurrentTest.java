package org.deixis.backend.cpu;

import org.deixis.backend.Array;
import org.deixis.core.DType;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Recurrent step and dropout against the reference in double precision. */
class CpuRecurrentTest {
  @ParameterizedTest
  @CsvSource({"1, 1", "7, 33", "32, 256", "0, 5", "100, 64"})
  void gru(int batch, int hidden) {
    Compare.of(CpuRecurrent::new)
        .check(
            t -> {
              Array gi = t.spread(2.0, batch, 3 * hidden);
              Array gh = t.spread(2.0, batch, 3 * hidden);
              Array h = t.input(batch, hidden);
              Array dy = t.input(batch, hidden);
              Array y = t.result("y", batch, hidden);
              Array dgi = t.result("dgi", batch, 3 * hidden);
              Array dgh = t.result("dgh", batch, 3 * hidden);
              Array dh = t.result("dh", batch, hidden);
              return new Compare.Runs<>(
                  backend -> {
                    backend.gruCell(batch, hidden, gi, gh, h, y);
                    backend.gruCellBackward(batch, hidden, gi, gh, h, dy, dgi, dgh, dh);
                  },
                  cpu -> {
                    cpu.gruCell(batch, hidden, gi, gh, h, y);
                    cpu.gruCellBackward(batch, hidden, gi, gh, h, dy, dgi, dgh, dh);
                  });
            });
  }

  @ParameterizedTest
  @CsvSource({
    "10000, 0.1, 1, 0", "4099, 0.5, 1, 3", "5000, 0.3, 1, 17179869181", "1, 0.5, 1, 2",
    "6000, 0.5, 300, 5", "20000, 0.2, 7, 1", "12000, 0.4, 5000, 0", "0, 0.5, 1, 0",
    "100, 0, 1, 0"
  })
  void dropout(int n, double p, long block, long offset) {
    Compare.of(CpuRecurrent::new)
        .check(
            t -> {
              Array rng = t.make.of(DType.I64, new double[] {0x123456789abcL, 77}, 2);
              Array x = t.input(n);
              Array y = t.result("y", n);
              Array same = t.both("same", t.input(n));
              return new Compare.Runs<>(
                  backend -> {
                    backend.dropout(p, block, offset, rng, x, y);
                    backend.dropout(p, block, offset, rng, same, same);
                  },
                  cpu -> {
                    cpu.dropout(p, block, offset, rng, x, y);
                    cpu.dropout(p, block, offset, rng, same, same);
                  });
            });
  }
}
