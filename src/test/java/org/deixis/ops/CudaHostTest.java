package org.deixis.ops;

import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.util.List;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
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

  /** Products by our own kernel instead of cuBLASLt's stand-in. */
  @TestFactory
  Stream<DynamicTest> agreesWithPlainProducts() {
    CudaHost.require();
    Backend plain = CudaHost.plain();
    List<String> products = List.of(MatMul.NAME, Linear.NAME, Convolution.NAME);
    return OpCases.all().stream()
        .filter(c -> products.contains(c.op()))
        .flatMap(
            c ->
                Stream.of(DType.F32, DType.F16, DType.BF16)
                    .map(
                        dtype ->
                            dynamicTest(
                                c + " " + dtype,
                                () ->
                                    OpCaseTest.compare(
                                        c,
                                        plain,
                                        dtype,
                                        dtype == DType.F32
                                            ? 2e-5
                                            : dtype == DType.F16 ? 5e-3 : 2e-2))));
  }

  private static Stream<DynamicTest> each(DType dtype, double tolerance) {
    CudaHost.require();
    return each(CudaHost.backend(), dtype, tolerance);
  }

  /** Every case on a backend, against the reference. */
  static Stream<DynamicTest> each(Backend backend, DType dtype, double tolerance) {
    return OpCases.all().stream()
        .map(
            c ->
                dynamicTest(
                    c + " " + dtype + ", seed " + OpCaseTest.SEED,
                    () -> OpCaseTest.compare(c, backend, dtype, tolerance)));
  }
}
