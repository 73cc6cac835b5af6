package org.deixis.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.deixis.core.InputException;
import org.deixis.core.Rng;
import org.junit.jupiter.api.Test;

class CalibrationTest {
  /**
   * Where logits are drawn from N(±1, 1), one kind four times as often, the log-odds under even
   * weights are twice the logit, and the balanced point of the logit is 0 whatever was added to it.
   */
  @Test
  void findsTheShiftThatWasTakenAway() {
    Rng rng = new Rng(Long.getLong("test.seed", 7), 0);
    double[] logits = new double[4000];
    double[] truth = new double[logits.length];
    for (int i = 0; i < logits.length; i++) {
      truth[i] = i % 5 == 0 ? 1 : 0;
      logits[i] = 2 * (rng.nextGaussian() + (truth[i] == 1 ? 1 : -1)) - 1.7;
    }
    assertEquals(1.7, Calibration.shift(logits, truth), 0.15);
  }

  @Test
  void twoPointsHaveAClosedForm() {
    // One of each kind, at logits a and b: slope 0 where σ(a + s) = 1 − σ(b + s), s = −(a + b)/2.
    assertEquals(-0.8, Calibration.shift(new double[] {2.6, -1.0}, new double[] {0, 1}), 1e-6);
  }

  @Test
  void oneKindAloneIsRefused() {
    assertThrows(
        InputException.class, () -> Calibration.shift(new double[] {1, 2}, new double[] {0, 0}));
  }
}
