package org.deixis.nn;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.model.GoldenModels;
import org.deixis.model.gres.RegionImageAttention;
import org.deixis.tensor.Tensor;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Attention whose projections are folded where nothing is recorded, against sums in double. */
class FoldedProjectionsTest {
  private static final int BATCH = 3;
  private static final int WIDTH = 64;
  private static final long SEED = Long.getLong("test.seed", 11);

  static Stream<String> backends() {
    return GoldenModels.backends();
  }

  private static float[] draw(Random random, int n) {
    float[] values = new float[n];
    for (int i = 0; i < n; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  /** y (rows, out) = x Wᵀ + b. */
  private static double[] project(double[] x, float[] w, float[] b, int from, int out) {
    int rows = x.length / WIDTH;
    double[] y = new double[rows * out];
    for (int r = 0; r < rows; r++) {
      for (int o = 0; o < out; o++) {
        double sum = b[from + o];
        for (int i = 0; i < WIDTH; i++) {
          sum += x[r * WIDTH + i] * w[(from + o) * WIDTH + i];
        }
        y[r * out + o] = sum;
      }
    }
    return y;
  }

  private static double[] wide(float[] x) {
    double[] y = new double[x.length];
    for (int i = 0; i < x.length; i++) {
      y[i] = x[i];
    }
    return y;
  }

  /** Softmax over the keys that count. */
  private static double[] weights(double[] scores, int[] mask) {
    double top = Double.NEGATIVE_INFINITY;
    for (int j = 0; j < scores.length; j++) {
      top = mask[j] != 0 ? Math.max(top, scores[j]) : top;
    }
    double sum = 0;
    double[] p = new double[scores.length];
    for (int j = 0; j < scores.length; j++) {
      p[j] = mask[j] != 0 ? Math.exp(scores[j] - top) : 0;
      sum += p[j];
    }
    for (int j = 0; j < scores.length; j++) {
      p[j] /= sum;
    }
    return p;
  }

  private static void assertClose(double[] expected, float[] found, double tolerance) {
    assertEquals(expected.length, found.length);
    double most = 0;
    for (double e : expected) {
      most = Math.max(most, Math.abs(e));
    }
    for (int i = 0; i < found.length; i++) {
      assertEquals(expected[i], found[i], tolerance * most, "element " + i + ", seed " + SEED);
    }
  }

  @ParameterizedTest
  @MethodSource("backends")
  void manyQueriesFewKeys(String device) {
    int n = 50;
    int t = 4;
    int heads = 2;
    Backend backend = TestBackends.get(device);
    Random random = new Random(SEED);
    float[] x = draw(random, BATCH * n * WIDTH);
    float[] words = draw(random, BATCH * t * WIDTH);
    int[] mask = {1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0};
    try (MultiHeadAttention m =
            new MultiHeadAttention(ParameterSource.fresh(backend, SEED), WIDTH, heads);
        Scope scope = Scope.open()) {
      assertTrue(m.folds(n, t));
      Map<String, Parameter> parameters = m.parameters();
      float[] bias = draw(random, 3 * WIDTH);
      parameters.get("in_proj_bias").set(bias);
      float[] outBias = draw(random, WIDTH);
      parameters.get("out_proj.bias").set(outBias);
      float[] w = parameters.get("in_proj_weight").toFloats();
      float[] outWeight = parameters.get("out_proj.weight").toFloats();
      Tensor y =
          m.cross(
              Tensor.floats(backend, x, BATCH, n, WIDTH),
              Tensor.floats(backend, words, BATCH, t, WIDTH),
              Tensor.ints(backend, mask, BATCH, t));
      double[] q = project(wide(x), w, bias, 0, WIDTH);
      double[] k = project(wide(words), w, bias, WIDTH, WIDTH);
      double[] v = project(wide(words), w, bias, 2 * WIDTH, WIDTH);
      double[] gathered = new double[q.length];
      int d = WIDTH / heads;
      for (int row = 0; row < BATCH * n; row++) {
        int b = row / n;
        for (int h = 0; h < heads; h++) {
          double[] scores = new double[t];
          int[] counts = new int[t];
          for (int j = 0; j < t; j++) {
            counts[j] = mask[b * t + j];
            for (int c = h * d; c < (h + 1) * d; c++) {
              scores[j] += q[row * WIDTH + c] * k[(b * t + j) * WIDTH + c] / Math.sqrt(d);
            }
          }
          double[] p = weights(scores, counts);
          for (int c = h * d; c < (h + 1) * d; c++) {
            for (int j = 0; j < t; j++) {
              gathered[row * WIDTH + c] += p[j] * v[(b * t + j) * WIDTH + c];
            }
          }
        }
      }
      assertClose(project(gathered, outWeight, outBias, 0, WIDTH), y.toFloats(), 2e-6);
    }
  }

  @ParameterizedTest
  @MethodSource("backends")
  void regionsOverPixels(String device) {
    int n = 30;
    int regions = 4;
    Backend backend = TestBackends.get(device);
    Random random = new Random(SEED);
    float[] pixels = draw(random, BATCH * n * WIDTH);
    float[] previous = draw(random, BATCH * regions * WIDTH);
    try (RegionImageAttention ria =
            new RegionImageAttention(ParameterSource.fresh(backend, SEED), WIDTH, regions);
        Scope scope = Scope.open()) {
      Map<String, Parameter> parameters = ria.parameters();
      Tensor[] both =
          ria.forward(
              Tensor.floats(backend, pixels, BATCH, n, WIDTH),
              Tensor.floats(backend, previous, BATCH, regions, WIDTH),
              regions);
      float[] learnt = parameters.get("region_queries").toFloats();
      double[] k =
          project(
              wide(pixels),
              parameters.get("proj_k.weight").toFloats(),
              parameters.get("proj_k.bias").toFloats(),
              0,
              WIDTH);
      double[] v =
          project(
              wide(pixels),
              parameters.get("proj_v.weight").toFloats(),
              parameters.get("proj_v.bias").toFloats(),
              0,
              WIDTH);
      double[] map = new double[BATCH * regions * n];
      double[] gathered = new double[BATCH * regions * WIDTH];
      int[] all = new int[n];
      java.util.Arrays.fill(all, 1);
      for (int row = 0; row < BATCH * regions; row++) {
        int b = row / regions;
        double[] scores = new double[n];
        for (int j = 0; j < n; j++) {
          for (int c = 0; c < WIDTH; c++) {
            double q = previous[row * WIDTH + c] + (double) learnt[row % regions * WIDTH + c];
            scores[j] += q * k[(b * n + j) * WIDTH + c] / Math.sqrt(WIDTH);
          }
        }
        double[] p = weights(scores, all);
        for (int j = 0; j < n; j++) {
          map[row * n + j] = p[j];
          for (int c = 0; c < WIDTH; c++) {
            gathered[row * WIDTH + c] += p[j] * v[(b * n + j) * WIDTH + c];
          }
        }
      }
      assertClose(gathered, both[0].toFloats(), 5e-6);
      assertClose(map, both[1].toFloats(), 5e-6);
    }
  }

  /** A phrase longer than the width allows costs more folded than not. */
  @ParameterizedTest
  @CsvSource({
    "3136, 20, 512, 8, true",
    "196, 20, 512, 8, true",
    "3136, 77, 512, 8, false",
    "49, 20, 512, 8, false",
    "576, 10, 96, 8, false"
  })
  void foldsWhereItSavesProducts(int queries, int keys, int width, int heads, boolean saves) {
    Backend backend = TestBackends.get("reference");
    try (MultiHeadAttention m =
        new MultiHeadAttention(ParameterSource.fresh(backend, SEED), width, heads)) {
      assertEquals(saves, m.folds(queries, keys));
      assertFalse(m.folds(1, keys));
    }
  }
}
