package org.deixis.backend;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.deixis.backend.reference.ReferenceBackend;
import org.deixis.core.DType;
import org.deixis.core.ModulePath;
import org.deixis.core.Shape;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** What each level of DEIXIS_DEBUG shows of two kernels, the second of which makes a NaN. */
class KernelTraceTest {
  private static String trace(int level, DType type, double value) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    PrintStream out = new PrintStream(bytes, true, StandardCharsets.UTF_8);
    try (Backend backend = KernelTrace.over(new ReferenceBackend(), level, out);
        Scope scope = Scope.open()) {
      assertNull(backend.graphs());
      Array x = backend.allocate(Shape.of(2, 3), type);
      Array y = backend.allocate(Shape.of(2, 3), type);
      backend.fill(x, value);
      ModulePath.enter("neck");
      try {
        backend.axpby(0, x, 0, x);
        backend.binary(Binary.DIV, 1, 1, 6, true, true, true, x, x, y);
      } finally {
        ModulePath.leave();
      }
    }
    return bytes.toString(StandardCharsets.UTF_8);
  }

  @Test
  void levelOneCountsAndTimes() {
    String text = trace(1, DType.F32, 1);
    assertTrue(text.startsWith("kernels of reference: "), text);
    assertTrue(text.matches("(?s).* 1 calls  binary.*"), text);
    assertTrue(text.matches("(?s).* 1 calls  fill.*"), text);
    assertFalse(text.contains("NaN"), text);
  }

  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F64", "F32", "F16", "BF16"})
  void levelTwoNamesTheKernelThatMadeANan(DType type) {
    String text = trace(2, type, 1);
    String first = text.lines().findFirst().orElseThrow();
    assertTrue(first.startsWith("NaN in the result (2, 3) " + type + " of binary(DIV, "), text);
    assertTrue(first.endsWith("  at neck"), text);
    assertEquals(1, text.lines().filter(l -> l.startsWith("NaN")).count(), text);
    assertTrue(text.contains("1 results had a NaN"), text);
  }

  @Test
  void levelThreePrintsEachKernel() {
    String text = trace(3, DType.F32, 1);
    assertTrue(
        text.lines().anyMatch(l -> l.matches(" *[0-9.]+ ms  fill\\(\\(2, 3\\) F32, 1.0\\)")));
    assertTrue(
        text.lines().anyMatch(l -> l.matches(" *[0-9.]+ ms  axpby\\(0.0, .*\\)  at neck")), text);
  }
}
