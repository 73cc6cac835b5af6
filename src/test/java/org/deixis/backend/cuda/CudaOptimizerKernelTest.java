package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.core.Shape;
import org.deixis.testing.CudaHost;
import org.deixis.testing.Host;
import org.deixis.testing.KernelMutant;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Norm and AdamW on the stand-in driver against the reference: sizes on both sides of what a block
 * takes at once and of a piece, and arrays that begin off the sixteen bytes of a wide load.
 */
@Tag("cuda-host")
class CudaOptimizerKernelTest {
  private static final AdamW SPEC = new AdamW(0.9f, 0.999f, 1e-8f);
  private static final int[] SIZES = {
    1, 0, 7, 1023, 2048, 2049, 3500, 4096 + 3, 16_384, 16_384 + 4100
  };
  private static final long SEED = 7;

  private static final List<KernelMutant> MUTANTS =
      List.of(
          mutant(
              "the norm adds what lies beyond the pieces' sums",
              "i < pieces; i += blockDim.x",
              "i <= pieces; i += blockDim.x"),
          mutant(
              "loads of squares go on beyond their piece",
              "at + 4 * stride <= last; at",
              "at + 3 * stride <= last; at"),
          mutant(
              "a piece's last element takes no step",
              "min(p.first + length, s.size)",
              "min(p.first + length, s.size) - 1"),
          mutant(
              "wide stores leave the half copy as it was",
              "        if (half) store_some<4>(half + i, w[k]);\n",
              ""),
          mutant(
              "bf16 gradients are read as fp16",
              "default: step_of<bf16_t>",
              "default: step_of<half_t>"),
          mutant("an infinite norm is no overflow", "norm - norm == 0 ? 0 : 1", "0"));

  @TempDir Path folder;

  private static KernelMutant mutant(String name, String right, String wrong) {
    return new KernelMutant(name, "optimizer.cu", right, wrong);
  }

  private static Array vector(Backend backend, int n, int skip, DType type, Rng rng, boolean root) {
    double[] values = new double[n + skip];
    for (int i = 0; i < values.length; i++) {
      double v = rng.nextGaussian();
      values[i] = root ? v * v : v;
    }
    Array whole = Host.upload(backend, values, Shape.of(n + skip), type);
    return skip == 0 ? whole : whole.slice(skip, n + skip);
  }

  /** Parameters, moments, half copies and the control array after three steps. */
  private static List<double[]> train(Backend backend, DType gradients, DType half, int skip) {
    try (Scope scope = Scope.open()) {
      Rng rng = new Rng(SEED);
      List<AdamW.Slot> slots = new ArrayList<>();
      for (int i = 0; i < SIZES.length; i++) {
        int n = SIZES[i];
        slots.add(
            new AdamW.Slot(
                vector(backend, n, skip, DType.F32, rng, false),
                vector(backend, n, skip, gradients, rng, false),
                vector(backend, n, skip, DType.F32, rng, false),
                vector(backend, n, skip, DType.F32, rng, true),
                half == null ? null : vector(backend, n, skip, half, rng, false),
                i % 2 == 0 ? 1 : 0.1f,
                i % 3 == 0 ? 0 : 0.05f));
      }
      double[] start = new double[AdamW.SLOTS];
      start[AdamW.LR] = (float) 1e-2;
      start[AdamW.SCALE] = 4;
      Array control = Host.upload(backend, start, Shape.of(AdamW.SLOTS), DType.F32);
      List<Array> all = slots.stream().map(AdamW.Slot::gradient).toList();
      for (int step = 0; step < 3; step++) {
        backend.gradientNorm(all, 0.5, control);
        backend.adamW(SPEC, slots, control);
        backend.advance(2, control);
      }
      List<double[]> results = new ArrayList<>();
      for (AdamW.Slot s : slots) {
        results.add(Host.download(s.parameter()));
        results.add(Host.download(s.m()));
        results.add(Host.download(s.v()));
        if (half != null) {
          results.add(Host.download(s.half()));
        }
      }
      results.add(Host.download(control));
      return results;
    }
  }

  @ParameterizedTest
  @CsvSource({
    "F32,,0",
    "F32,,1",
    "F32,F16,0",
    "F16,F16,0",
    "F16,F16,3",
    "BF16,BF16,0",
    "BF16,BF16,1",
    "F16,,2"
  })
  void followsTheReference(DType gradients, DType half, int skip) {
    CudaHost.require();
    follow(CudaHost.backend(), gradients, half, skip);
  }

  private static void follow(Backend backend, DType gradients, DType half, int skip) {
    List<double[]> expected = train(Backends.get("reference"), gradients, half, skip);
    List<double[]> actual = train(backend, gradients, half, skip);
    for (int i = 0; i < expected.size(); i++) {
      boolean copy = half != null && i % 4 == 3;
      double tolerance = copy ? half == DType.F16 ? 1e-4 : 1e-3 : 2e-6;
      double error = Host.relative(actual.get(i), expected.get(i));
      assertTrue(error <= tolerance, "array " + i + " is off by " + error);
    }
  }

  @Test
  void anInfinityInAWideLoadIsAnOverflow() {
    CudaHost.require();
    overflow(CudaHost.backend());
  }

  private static void overflow(Backend backend) {
    for (int at : new int[] {0, 4095, 4096, 5000}) {
      try (Scope scope = Scope.open()) {
        double[] gradient = new double[5001];
        gradient[at] = Double.POSITIVE_INFINITY;
        double[] start = new double[AdamW.SLOTS];
        start[AdamW.SCALE] = 8;
        Array control = Host.upload(backend, start, Shape.of(AdamW.SLOTS), DType.F32);
        Array g = Host.upload(backend, gradient, Shape.of(gradient.length), DType.F16);
        backend.gradientNorm(List.of(g), 1, control);
        assertEquals(1, Host.download(control)[AdamW.OVERFLOW], "infinity at " + at);
      }
    }
  }

  @TestFactory
  Stream<DynamicTest> mutantsAreNoticed() {
    CudaHost.require();
    return MUTANTS.stream().map(m -> dynamicTest(m.name(), () -> notice(m)));
  }

  private void notice(KernelMutant mutant) throws IOException {
    Backend backend =
        CudaHost.mutant(mutant, folder.resolve(Integer.toString(MUTANTS.indexOf(mutant))), 0);
    try {
      follow(backend, DType.F32, DType.F16, 0);
      follow(backend, DType.F16, DType.F16, 3);
      follow(backend, DType.BF16, DType.BF16, 1);
      overflow(backend);
    } catch (AssertionError | IllegalStateException e) {
      return; // noticed
    }
    fail("none of the tests notices");
  }
}
