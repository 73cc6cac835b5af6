package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Scope;
import org.deixis.backend.reference.ReferenceBackend;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.core.Shape;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Norm, AdamW and the loss scale against the reference. */
class CpuOptimizerTest {
  private static final AdamW SPEC = new AdamW(0.9f, 0.999f, 1e-8f);
  private static final int[] SIZES = {1, 0, 7, 2048, 2049, 70_001, 16 * 2048, 3};

  private static double[] control(double scale) {
    double[] control = new double[AdamW.SLOTS];
    control[AdamW.LR] = (float) 1e-3;
    control[AdamW.SCALE] = scale;
    return control;
  }

  @ParameterizedTest
  @ValueSource(doubles = {0, 0.5})
  void threeSteps(double maxNorm) {
    Compare.of(CpuOptimizer::new)
        .check(
            t -> {
              List<Array> gradients = new ArrayList<>();
              List<AdamW.Slot> slots = new ArrayList<>();
              for (int i = 0; i < SIZES.length; i++) {
                int n = SIZES[i];
                gradients.add(t.input(n));
                slots.add(
                    new AdamW.Slot(
                        t.both("p" + i, t.input(n)),
                        gradients.get(i),
                        t.both("m" + i, t.spread(0, n)),
                        t.both("v" + i, t.spread(0, n)),
                        null,
                        i % 2 == 0 ? 1 : 0.1f,
                        i % 3 == 0 ? 0 : 0.05f));
              }
              Array control = t.both("control", t.make.of(control(128), AdamW.SLOTS));
              return new Compare.Runs<>(
                  backend -> {
                    for (int step = 0; step < 3; step++) {
                      backend.gradientNorm(gradients, maxNorm, control);
                      backend.adamW(SPEC, slots, control);
                      backend.advance(2, control);
                    }
                  },
                  cpu -> {
                    for (int step = 0; step < 3; step++) {
                      cpu.gradientNorm(gradients, maxNorm, control);
                      cpu.adamW(SPEC, slots, control);
                      cpu.advance(2, control);
                    }
                  });
            });
  }

  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F16", "BF16"})
  void halfGradientsAndCopies(DType type) {
    try (ReferenceBackend backend = new ReferenceBackend();
        WorkerPool pool = new WorkerPool(2);
        Scope scope = Scope.open()) {
      CpuOptimizer cpu = new CpuOptimizer(pool);
      int n = 5000;
      double[][] results = new double[2][];
      double[][] copies = new double[2][];
      for (int run = 0; run < 2; run++) {
        Rng rng = new Rng(3);
        TestArrays make = new TestArrays(backend, DType.F32);
        AdamW.Slot slot =
            new AdamW.Slot(
                make.of(TestArrays.gaussian(rng, n), n),
                make.of(type, TestArrays.gaussian(rng, n), n),
                make.of(new double[n], n),
                make.of(new double[n], n),
                backend.allocate(Shape.of(n), type),
                1,
                0.01f);
        Array control = make.of(control(1), AdamW.SLOTS);
        if (run == 0) {
          backend.gradientNorm(List.of(slot.gradient()), 1, control);
          backend.adamW(SPEC, List.of(slot), control);
        } else {
          cpu.gradientNorm(List.of(slot.gradient()), 1, control);
          cpu.adamW(SPEC, List.of(slot), control);
        }
        results[run] = TestArrays.values(slot.parameter());
        copies[run] = TestArrays.values(slot.half());
        // the copy is the stored master, rounded
        Array rounded = make.of(type, results[run], n);
        assertEquals(0, TestArrays.distance(TestArrays.values(rounded), copies[run]));
      }
      assertTrue(TestArrays.distance(results[0], results[1]) < 1e-6);
    }
  }

  @Test
  void overflowSkipsTheStep() {
    try (ReferenceBackend backend = new ReferenceBackend();
        WorkerPool pool = new WorkerPool(2);
        Scope scope = Scope.open()) {
      CpuOptimizer cpu = new CpuOptimizer(pool);
      TestArrays make = new TestArrays(backend, DType.F32);
      double[] gradient = new double[40_000];
      gradient[33_333] = Double.POSITIVE_INFINITY;
      double[] start = TestArrays.gaussian(new Rng(1), gradient.length);
      Array g = make.of(gradient, gradient.length);
      Array p = make.of(start, gradient.length);
      double[] before = TestArrays.values(p);
      Array m = make.of(new double[gradient.length], gradient.length);
      Array v = make.of(new double[gradient.length], gradient.length);
      Array control = make.of(control(65_536), AdamW.SLOTS);
      cpu.gradientNorm(List.of(g), 1, control);
      cpu.adamW(SPEC, List.of(new AdamW.Slot(p, g, m, v, null, 1, 0.1f)), control);
      cpu.advance(2000, control);
      double[] after = TestArrays.values(control);
      assertEquals(0, TestArrays.distance(before, TestArrays.values(p)));
      assertEquals(1, after[AdamW.OVERFLOW]);
      assertEquals(32_768, after[AdamW.SCALE]);
      assertEquals(0, after[AdamW.STEP]);
      assertEquals(1, after[AdamW.SKIPPED]);
      // a gradient whose square is beyond the floats is none
      gradient[33_333] = 1e30;
      cpu.gradientNorm(List.of(make.of(gradient, gradient.length)), 0, control);
      after = TestArrays.values(control);
      assertEquals(0, after[AdamW.OVERFLOW]);
      assertEquals(1e30 / 32_768, after[AdamW.NORM], 1e21);
    }
  }
}
