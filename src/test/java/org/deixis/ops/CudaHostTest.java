package org.deixis.ops;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.util.stream.Stream;
import org.deixis.bench.OpCases;
import org.deixis.core.DType;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.TestFactory;

/**
 * The cuda backend, its launches and its kernels, on the stand-in driver: every case of the table
 * against the reference in double, gradients included. Needs g++.
 */
@Tag("cuda-host")
class CudaHostTest {
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
    assertTrue(CudaHost.available(), "g++ is missing: the cuda backend cannot be tested");
    return OpCases.all().stream()
        .map(
            c ->
                dynamicTest(
                    c + " " + dtype + ", seed " + OpCaseTest.SEED,
                    () -> OpCaseTest.compare(c, CudaHost.backend(), dtype, tolerance)));
  }
}
