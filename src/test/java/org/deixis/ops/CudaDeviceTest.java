package org.deixis.ops;

import java.util.stream.Stream;
import org.deixis.core.DType;
import org.deixis.testing.Card;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.TestFactory;

/**
 * Every case of the table on a real GPU against the reference in double, gradients included: {@code
 * mvn -B verify -Pgpu}.
 */
@Tag("gpu")
class CudaDeviceTest {
  @TestFactory
  Stream<DynamicTest> agreesWithTheReferenceInDouble() {
    return each(DType.F32, 2e-5);
  }

  @TestFactory
  Stream<DynamicTest> agreesInHalfPrecision() {
    return each(DType.F16, 5e-3);
  }

  @TestFactory
  Stream<DynamicTest> agreesInBrainFloat() {
    return each(DType.BF16, 2e-2);
  }

  private static Stream<DynamicTest> each(DType dtype, double tolerance) {
    return CudaHostTest.each(Card.backend(), dtype, tolerance);
  }
}
