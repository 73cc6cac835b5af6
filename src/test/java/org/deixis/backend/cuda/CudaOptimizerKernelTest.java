package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
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
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * Norm and AdamW on the stand-in driver against the reference: sizes on both sides of what a block
 * takes at once and of a piece, and arrays that begin off the sixteen bytes of a wide load.
 */
@Tag("cuda-host")
class CudaOptimizerKernelTest {
  private static final AdamW SPEC = new AdamW(0.9f, 0.999f, 1e-8f);
  private static final int[] SIZES = {1, 0, 7, 1023, 2048, 2049, 4096 + 3, 16_384, 16_384 + 4100};
  private static final long SEED = 7;

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
    assertTrue(CudaHost.available(), "g++ is missing: the cuda backend cannot be tested");
    List<double[]> expected = train(Backends.get("reference"), gradients, half, skip);
    List<double[]> actual = train(CudaHost.backend(), gradients, half, skip);
    for (int i = 0; i < expected.size(); i++) {
      boolean copy = half != null && i % 4 == 3;
      double tolerance = copy ? half == DType.F16 ? 1e-4 : 1e-3 : 2e-6;
      double error = Host.relative(actual.get(i), expected.get(i));
      assertTrue(error <= tolerance, "array " + i + " is off by " + error);
    }
  }

  @Test
  void anInfinityInAWideLoadIsAnOverflow() {
    assertTrue(CudaHost.available(), "g++ is missing: the cuda backend cannot be tested");
    for (int at : new int[] {0, 4095, 4096, 5000}) {
      try (Scope scope = Scope.open()) {
        Backend backend = CudaHost.backend();
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
}
