package org.deixis.optim;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.deixis.core.InputException;
import org.junit.jupiter.api.Test;

/**
 * Against values of PyTorch's schedulers: CosineAnnealingLR(T_max=100), PolynomialLR(100,
 * power=0.9), MultiStepLR.
 */
class ScheduleTest {
  @Test
  void cosine() {
    Schedule s = new Schedule.Cosine(100, 0);
    assertEquals(1, s.factor(0), 1e-12);
    assertEquals(0.9938441702975689, s.factor(5), 1e-9);
    assertEquals(0.7938926261462367, s.factor(30), 1e-9);
    assertEquals(0.5, s.factor(50), 1e-9);
    assertEquals(0, s.factor(100), 1e-12);
  }

  @Test
  void polynomial() {
    Schedule s = new Schedule.Polynomial(100, 0, 0.9);
    assertEquals(0.535886731268146, s.factor(50), 1e-9); // 0.5^0.9
    assertEquals(0.12589254117941673, s.factor(90), 1e-9); // 0.1^0.9
    assertEquals(0, s.factor(100), 1e-12);
  }

  @Test
  void multiStep() {
    Schedule s = new Schedule.MultiStep(100, 0, 0.1, 0.7, 0.9);
    assertEquals(1, s.factor(69), 1e-12);
    assertEquals(0.1, s.factor(70), 1e-12);
    assertEquals(0.01, s.factor(95), 1e-12);
  }

  @Test
  void warmUpIsLinearAndBeginsAboveZero() {
    Schedule s = new Schedule.Constant(10);
    assertEquals(0.1, s.factor(0), 1e-12);
    assertEquals(0.5, s.factor(4), 1e-12);
    assertEquals(1, s.factor(9), 1e-12);
    assertEquals(1, s.factor(1000), 1e-12);
  }

  @Test
  void anUnknownNameIsRefused() {
    assertThrows(InputException.class, () -> Schedule.of("cosin", 10, 1));
  }
}
