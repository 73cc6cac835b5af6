package org.deixis.backend.cpu;

import org.deixis.backend.Array;
import org.deixis.backend.MaskLoss;
import org.deixis.core.DType;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Losses against the reference in double precision. */
class CpuLossTest {
  @ParameterizedTest
  @CsvSource({
    "1, 1, 1, 1, 1", "2, 24, 24, 96, 96", "9, 6, 5, 24, 20", "1, 13, 7, 53, 31", "3, 5, 4, 5, 4",
    "1, 9, 11, 4, 3", "1, 30, 20, 240, 161", "2, 1, 3, 17, 40", "17, 2, 2, 9, 70", "0, 4, 4, 8, 8"
  })
  void mask(int batch, int lowHeight, int lowWidth, int height, int width) {
    for (boolean focal : new boolean[] {false, true}) {
      for (float gamma : focal ? new float[] {2, 0.7f} : new float[] {0}) {
        for (float dice : new float[] {0, 1.5f}) {
          for (boolean bytes : new boolean[] {true, false}) {
            MaskLoss s =
                new MaskLoss(batch, lowHeight, lowWidth, height, width, focal, 0.25f, gamma, dice);
            Compare.of(CpuLoss::new)
                .check(
                    t -> {
                      Array logits = t.spread(3.0, batch, lowHeight, lowWidth);
                      Array mask =
                          bytes
                              ? t.whole(DType.U8, 2, batch, height, width)
                              : t.uniform(batch, height, width);
                      Array loss = t.result("loss", batch);
                      Array dLogits = t.result("dLogits", batch, lowHeight, lowWidth);
                      return new Compare.Runs<>(
                          backend -> backend.maskLoss(s, logits, mask, loss, dLogits),
                          cpu -> {
                            cpu.maskLoss(s, logits, mask, loss, null);
                            cpu.maskLoss(s, logits, mask, loss, dLogits);
                          });
                    });
          }
        }
      }
    }
  }

  @ParameterizedTest
  @CsvSource({"0", "1", "17", "4099"})
  void binary(int n) {
    for (boolean focal : new boolean[] {false, true}) {
      for (float gamma : new float[] {2, 0, 0.5f, 1}) {
        for (boolean hard : new boolean[] {false, true}) {
          Compare.of(CpuLoss::new)
              .check(
                  t -> {
                    Array x = t.spread(6.0, n);
                    Array target = hard ? t.make.of(ones(n), n) : t.uniform(n);
                    Array loss = t.result("loss", n);
                    Array dx = t.result("dx", n);
                    return new Compare.Runs<>(
                        backend -> backend.binaryLoss(focal, 0.3f, gamma, x, target, loss, dx),
                        cpu -> {
                          cpu.binaryLoss(focal, 0.3f, gamma, x, target, loss, null);
                          cpu.binaryLoss(focal, 0.3f, gamma, x, target, loss, dx);
                        });
                  });
        }
      }
    }
  }

  private static double[] ones(int n) {
    double[] values = new double[n];
    for (int i = 0; i < n; i++) {
      values[i] = i * 7 % 3 == 0 ? 1 : 0;
    }
    return values;
  }

  @ParameterizedTest
  @CsvSource({"1, 1", "32, 2", "5, 7", "3000, 3", "4, 5000", "0, 3"})
  void classes(int rows, int classes) {
    for (boolean weighted : new boolean[] {false, true}) {
      Compare.of(CpuLoss::new)
          .check(
              t -> {
                Array x = t.spread(4.0, rows, classes);
                Array target = t.whole(DType.I32, classes, rows);
                Array weight = weighted ? t.uniform(classes) : null;
                Array loss = t.result("loss", 1);
                Array dx = t.result("dx", rows, classes);
                return new Compare.Runs<>(
                    backend -> backend.crossEntropy(rows, classes, x, target, weight, loss, dx),
                    cpu -> {
                      cpu.crossEntropy(rows, classes, x, target, weight, loss, null);
                      cpu.crossEntropy(rows, classes, x, target, weight, loss, dx);
                    });
              });
    }
  }
}
