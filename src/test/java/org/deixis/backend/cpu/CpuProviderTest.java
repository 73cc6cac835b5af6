package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Memory;
import org.deixis.backend.Scope;
import org.deixis.backend.Unary;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.junit.jupiter.api.Test;

/** The registry finds the CPU, and it keeps the rules that no kernel test sees. */
class CpuProviderTest {
  @Test
  void registryMakesOneBackend() {
    assertNull(new CpuProvider().missing());
    Backend backend = Backends.get("cpu");
    assertEquals("cpu", backend.name());
    assertSame(backend, Backends.get("cpu"));
  }

  @Test
  void kernelsForFloatsRefuseOtherTypes() {
    try (Scope scope = Scope.open()) {
      Backend backend = Backends.get("cpu");
      Array x = backend.allocate(Shape.of(4), DType.I32);
      IllegalStateException e =
          assertThrows(IllegalStateException.class, () -> backend.unary(Unary.EXP, x, x));
      assertTrue(e.getMessage().contains("(4) I32"), e.getMessage());
    }
  }

  @Test
  void transfersLeaveTheBuffersPositions() {
    try (Scope scope = Scope.open()) {
      Backend backend = Backends.get("cpu");
      Array x = backend.allocate(Shape.of(8), DType.U8).slice(3, 6);
      ByteBuffer source = ByteBuffer.wrap(new byte[] {9, 1, 2, 3, 9}).position(1);
      backend.upload(source, x);
      assertEquals(1, source.position());
      ByteBuffer target = ByteBuffer.allocateDirect(5).position(2);
      backend.download(x, target);
      assertEquals(2, target.position());
      assertEquals(1, target.get(2));
      assertEquals(3, target.get(4));
    }
  }

  @Test
  void kernelsLeaveNoMemoryBehind() {
    Backend backend = Backends.get("cpu");
    Memory.Stats before = backend.memory().stats();
    try (Scope scope = Scope.open()) {
      Array x = backend.allocate(Shape.of(1000, 96), DType.F32);
      backend.fill(x, 1);
      backend.softmax(1000, 96, x, backend.allocate(Shape.of(1000, 96), DType.F32));
      backend.layerNorm(
          1000,
          96,
          1e-5,
          x,
          null,
          null,
          null,
          null,
          backend.allocate(Shape.of(1000, 96), DType.F32),
          backend.allocate(Shape.of(1000, 2), DType.F32));
    }
    assertEquals(before.live(), backend.memory().stats().live());
  }
}
