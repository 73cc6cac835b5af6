package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.backend.Backend;
import org.deixis.backend.Binary;
import org.deixis.backend.Gemm;
import org.deixis.backend.KernelResults;
import org.deixis.backend.Scope;
import org.deixis.backend.Unary;
import org.deixis.backend.reference.ReferenceBackend;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.core.Shape;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Half storage over a backend that refuses half arrays, against the reference, which takes them.
 */
class HalfStorageTest {
  private final ReferenceBackend reference = new ReferenceBackend();
  private final WorkerPool pool = new WorkerPool(2);
  private final Backend half = HalfStorage.over(f32Only(reference), pool, Set.of());

  @AfterEach
  void close() {
    pool.close();
    reference.close();
  }

  /** The reference, failing on a half array anywhere but in upload and download. */
  private static Backend f32Only(Backend inner) {
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (self, method, arguments) -> {
              if (!method.getName().endsWith("load") && arguments != null) {
                String all = Arrays.deepToString(arguments);
                assertTrue(!all.contains("F16"), () -> method.getName() + " of " + all);
              }
              return method.invoke(inner, arguments);
            });
  }

  @Test
  void everyMethodThatTakesArraysIsKnown() {
    for (Method method : Backend.class.getMethods()) {
      long arrays = Arrays.stream(method.getParameterTypes()).filter(Array.class::equals).count();
      boolean moves = method.getName().endsWith("load");
      if (arrays > 0 && !moves) {
        Integer written = KernelResults.WRITTEN.get(method.getName());
        assertTrue(written != null && written <= arrays, method.getName());
      }
    }
  }

  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F16", "BF16"})
  void kernelsRoundOnce(DType type) {
    try (Scope scope = Scope.open()) {
      double[][] results = new double[2][];
      for (int run = 0; run < 2; run++) {
        Backend b = run == 0 ? reference : half;
        TestArrays make = new TestArrays(b, type);
        Rng rng = new Rng(4);
        Array x = make.of(TestArrays.gaussian(rng, 5, 7), 5, 7);
        Array w = make.of(TestArrays.gaussian(rng, 7, 3), 7, 3);
        Array bias = make.of(TestArrays.gaussian(rng, 3), 3);
        Array y = make.result(5, 3);
        b.gemm(Gemm.of(5, 3, 7, false, false), x, w, bias, null, y);
        assertSame(b, y.backend());
        // in place, and of a slice of what is written
        b.unary(Unary.SQUARE, y.slice(1, 3), y.slice(1, 3));
        b.binary(Binary.ADD, 1, 1, 3, false, false, true, y.slice(0, 1), bias, y.slice(0, 1));
        results[run] = TestArrays.values(y);
      }
      // the F32 scratch of an exact sum differs from one rounding by an ulp at ties alone
      assertTrue(TestArrays.distance(results[0], results[1]) < 1e-3);
    }
  }

  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F16", "BF16"})
  void packedGradientsShareScratch(DType type) {
    try (Scope scope = Scope.open()) {
      Attention spec = Attention.self(2, 2, 5, 4);
      double[][] results = new double[2][];
      double[][] sums = new double[2][];
      for (int run = 0; run < 2; run++) {
        Backend b = run == 0 ? reference : half;
        TestArrays make = new TestArrays(b, type);
        Rng rng = new Rng(9);
        Array qkv = make.of(TestArrays.gaussian(rng, 2, 5, 24), 2, 5, 24);
        Array dy = make.of(TestArrays.gaussian(rng, 2, 5, 8), 2, 5, 8);
        Array y = make.result(2, 5, 8);
        Array lse = b.allocate(Shape.of(2, 2, 5), DType.F32);
        Array d = make.result(2, 5, 24);
        b.attention(spec, qkv, qkv, qkv, null, y, lse);
        b.attentionBackward(spec, qkv, qkv, qkv, null, y, lse, dy, d, d, d);
        results[run] = TestArrays.values(d);
        sums[run] = TestArrays.values(lse);
      }
      assertTrue(TestArrays.distance(results[0], results[1]) < 1e-3);
      assertTrue(TestArrays.distance(sums[0], sums[1]) < 1e-6);
    }
  }

  @Test
  void copyConvertsAndFloatsPassThrough() {
    try (Scope scope = Scope.open()) {
      TestArrays make = new TestArrays(half, DType.F32);
      double[] values = TestArrays.gaussian(new Rng(2), 9001);
      Array x = make.of(values, 9001);
      for (DType type : new DType[] {DType.F16, DType.BF16}) {
        Array narrow = half.allocate(Shape.of(9001), type);
        half.copy(x, narrow);
        assertArrayEquals(
            TestArrays.values(make.of(type, values, 9001)), TestArrays.values(narrow));
        Array wide = half.allocate(Shape.of(9001), DType.F32);
        half.copy(narrow, wide);
        assertArrayEquals(TestArrays.values(narrow), TestArrays.values(wide));
        half.fill(narrow, 0.333);
        assertEquals(0.333, TestArrays.values(narrow)[9000], 2e-3);
      }
      long live = half.memory().stats().live();
      half.unary(Unary.RELU, x, x);
      assertEquals(live, half.memory().stats().live());
      assertTrue(half.supports(DType.F16) && half.supports(DType.BF16));
      assertTrue(half.equals(half) && half.hashCode() == half.hashCode());
    }
  }

  @Test
  void listsAndSlots() {
    try (Scope scope = Scope.open()) {
      double[][] results = new double[2][];
      for (int run = 0; run < 2; run++) {
        Backend b = run == 0 ? reference : half;
        TestArrays make = new TestArrays(b, DType.F32);
        Rng rng = new Rng(8);
        Array gradient = make.of(DType.BF16, TestArrays.gaussian(rng, 33), 33);
        AdamW.Slot slot =
            new AdamW.Slot(
                make.of(TestArrays.gaussian(rng, 33), 33),
                gradient,
                make.of(new double[33], 33),
                make.of(new double[33], 33),
                b.allocate(Shape.of(33), DType.BF16),
                1,
                0.1f);
        double[] state = new double[AdamW.SLOTS];
        state[AdamW.LR] = 0.01;
        state[AdamW.SCALE] = 4;
        Array control = make.of(state, AdamW.SLOTS);
        b.gradientNorm(List.of(gradient), 1, control);
        b.adamW(new AdamW(0.9f, 0.99f, 1e-8f), List.of(slot), control);
        results[run] = TestArrays.values(slot.half());
      }
      assertArrayEquals(results[0], results[1]);
    }
  }

  @Test
  void faultsComeThroughAsThemselves() {
    try (Scope scope = Scope.open()) {
      Array x = half.allocate(Shape.of(3), DType.F16);
      Array y = half.allocate(Shape.of(3), DType.F32);
      assertThrows(RuntimeException.class, () -> half.transpose(x, new int[] {5}, y));
      assertTrue(half.memory().stats().live() <= 128, "scratch memory is given back");
    }
  }
}
