package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.Arrays;
import java.util.Random;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.MaskLoss;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.testing.Host;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Values at which a short formula has lost its digits, against double.
 *
 * <p>Norms of values around 1,000 with a deviation of 1, in fp32: a variance as E[x²] − E[x]² has
 * lost all its digits there, one about the mean has three or four.
 */
@Tag("cuda-host")
class FarFromZeroTest {
  private static final double MEAN = 1000;
  private static final double EPS = 1e-5;
  private static final double TOLERANCE = 5e-4;

  private static double[] values(int n) {
    long seed = Long.getLong("test.seed", 7);
    Random random = new Random(seed);
    double[] x = new double[n];
    for (int i = 0; i < n; i++) {
      x[i] = (float) (MEAN + random.nextGaussian());
    }
    return x;
  }

  /** Normalises what stands at the given places, in double. */
  private static void normalise(double[] x, double[] y, int[] places) {
    double mean = 0;
    for (int i : places) {
      mean += x[i] / places.length;
    }
    double variance = 0;
    for (int i : places) {
      variance += (x[i] - mean) * (x[i] - mean) / places.length;
    }
    for (int i : places) {
      y[i] = (x[i] - mean) / Math.sqrt(variance + EPS);
    }
  }

  private static void compare(String what, double[] expected, Array actual) {
    double[] got = Host.download(actual);
    for (int i = 0; i < got.length; i++) {
      assertEquals(expected[i], got[i], TOLERANCE, what + ", element " + i);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"cpu", "cuda-host"})
  void groupNorm(String name) {
    Backend backend = TestBackends.get(name);
    int batch = 2;
    int pixels = 300;
    for (int width : new int[] {8, 3}) { // whole packs of 16 bytes, and not
      int groups = 4;
      int channels = groups * width;
      double[] x = values(batch * pixels * channels);
      double[] y = new double[x.length];
      for (int b = 0; b < batch; b++) {
        for (int g = 0; g < groups; g++) {
          int[] places = new int[pixels * width];
          for (int i = 0; i < places.length; i++) {
            places[i] = (b * pixels + i / width) * channels + g * width + i % width;
          }
          normalise(x, y, places);
        }
      }
      try (Scope scope = Scope.open()) {
        Shape shape = Shape.of(batch, pixels, channels);
        Array from = Host.upload(backend, x, shape, DType.F32);
        Array to = Host.upload(backend, new double[x.length], shape, DType.F32);
        Array stats =
            Host.upload(
                backend, new double[2 * batch * groups], Shape.of(batch, groups, 2), DType.F32);
        backend.groupNorm(batch, pixels, channels, groups, EPS, from, null, null, to, stats);
        compare(name + ", " + width + " channels a group", y, to);
      }
    }
  }

  /** Logits of 12 to 20 that are right everywhere: losses of 1e-6, gradients alike. */
  @ParameterizedTest
  @ValueSource(strings = {"cpu", "cuda-host"})
  void maskLossOfSureLogits(String name) {
    Backend backend = TestBackends.get(name);
    Backend reference = TestBackends.get("reference");
    Random random = new Random(Long.getLong("test.seed", 7));
    for (int sign : new int[] {1, -1}) {
      double[] z = random.doubles(2 * 6 * 5).map(v -> (float) (sign * (12 + 8 * v))).toArray();
      double[] t = new double[2 * 24 * 20];
      Arrays.fill(t, sign > 0 ? 1 : 0);
      MaskLoss spec = new MaskLoss(2, 6, 5, 24, 20, false, 0, 0, 0);
      double[][] expected = maskLoss(reference, DType.F64, spec, z, t);
      double[][] got = maskLoss(backend, DType.F32, spec, z, t);
      for (int part = 0; part < 2; part++) {
        for (int i = 0; i < expected[part].length; i++) {
          double e = expected[part][i];
          assertEquals(e, got[part][i], 1e-4 * Math.abs(e), name + ", part " + part + ", " + i);
        }
      }
    }
  }

  /** Losses and the logits' gradient. */
  private static double[][] maskLoss(Backend on, DType dtype, MaskLoss s, double[] z, double[] t) {
    try (Scope scope = Scope.open()) {
      Array logits = Host.upload(on, z, Shape.of(s.batch(), s.lowHeight(), s.lowWidth()), dtype);
      Array mask = Host.upload(on, t, Shape.of(s.batch(), s.height(), s.width()), dtype);
      Array loss = Host.upload(on, new double[s.batch()], Shape.of(s.batch()), dtype);
      Array slope = Host.upload(on, new double[z.length], logits.shape(), dtype);
      on.maskLoss(s, logits, mask, loss, slope);
      return new double[][] {Host.download(loss), Host.download(slope)};
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"cpu", "cuda-host"})
  void layerNorm(String name) {
    Backend backend = TestBackends.get(name);
    int rows = 9;
    for (int columns : new int[] {96, 1024, 37}) {
      double[] x = values(rows * columns);
      double[] y = new double[x.length];
      for (int r = 0; r < rows; r++) {
        int[] places = new int[columns];
        for (int i = 0; i < columns; i++) {
          places[i] = r * columns + i;
        }
        normalise(x, y, places);
      }
      try (Scope scope = Scope.open()) {
        Shape shape = Shape.of(rows, columns);
        Array from = Host.upload(backend, x, shape, DType.F32);
        Array to = Host.upload(backend, new double[x.length], shape, DType.F32);
        Array stats = Host.upload(backend, new double[2 * rows], Shape.of(rows, 2), DType.F32);
        backend.layerNorm(rows, columns, EPS, from, null, null, null, null, to, stats);
        compare(name + ", " + columns + " columns", y, to);
      }
    }
  }
}
