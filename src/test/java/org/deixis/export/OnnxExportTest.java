package org.deixis.export;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.io.OnnxFile;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.bert.Tokens;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.Prediction;
import org.deixis.model.swin.SwinConfig;
import org.deixis.model.swin.WindowRule;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Exported models in ONNX Runtime against the engine, with random weights. */
class OnnxExportTest {
  private static final double TOLERANCE = 1e-4;
  private static final double HALF_TOLERANCE = 5e-3;
  private static final long SEED = 23;

  @TempDir private Path dir;

  /** A configuration and the options it is exported with. */
  record Case(String name, GresConfig config, int opset, DType precision, int regions) {
    @Override
    public String toString() {
      return name + ", opset " + opset + ", " + precision + ", P " + regions;
    }
  }

  private static GresConfig config(
      int height,
      int width,
      int window,
      WindowRule rule,
      TextConfig.Kind kind,
      int regions,
      boolean adaptive,
      int layers,
      List<Integer> fusion) {
    boolean roberta = kind == TextConfig.Kind.ROBERTA;
    return new GresConfig(
        height,
        width,
        new SwinConfig(16, List.of(2, 2, 2, 2), List.of(1, 2, 4, 8), window, rule, 0, false),
        new TextConfig(kind, 60, 24, 2, 3, 48, 20, 2, roberta ? 1 : 0, 1e-5, 0),
        32,
        16,
        regions,
        adaptive,
        layers,
        4,
        fusion,
        4,
        12);
  }

  static Stream<Case> cases() {
    TextConfig.Kind bert = TextConfig.Kind.BERT;
    TextConfig.Kind roberta = TextConfig.Kind.ROBERTA;
    GresConfig shrink = config(96, 128, 7, WindowRule.SHRINK, bert, 8, false, 3, List.of(0, 1, 2));
    // 90×70: patches are cut at the edge, maps are odd, so Resize has no whole scale.
    GresConfig pad = config(90, 70, 4, WindowRule.PAD, roberta, 4, false, 1, List.of(3));
    GresConfig first = config(75, 100, 5, WindowRule.PAD_FIRST, bert, 16, false, 5, List.of());
    GresConfig odd = config(92, 132, 6, WindowRule.SHRINK, roberta, 16, true, 2, List.of(0, 3));
    return Stream.of(
        new Case("shrink", shrink, 13, DType.F32, 8),
        new Case("shrink", shrink, 17, DType.F32, 8),
        new Case("shrink", shrink, 13, DType.F16, 8),
        new Case("pad", pad, 13, DType.F32, 4),
        new Case("pad", pad, 17, DType.F16, 4),
        new Case("pad first", first, 13, DType.F32, 16),
        new Case("pad first", first, 17, DType.F16, 16),
        new Case("adaptive", odd, 13, DType.F32, 16),
        new Case("adaptive", odd, 17, DType.F32, 4));
  }

  /** Random weights of which none is so small that what it does would not show. */
  static GuideModel random(GresConfig config) {
    GuideModel model = new GuideModel(ParameterSource.fresh(Backends.get("cpu"), SEED), config);
    int[] stream = {0};
    model
        .parameters()
        .forEach(
            (name, p) -> {
              if (p.shape().rank() == 1 || name.endsWith("bias_table")) {
                jitter(p, new Rng(SEED, 1000 + stream[0]++), name);
              }
            });
    return model;
  }

  /** Fresh biases are zeros, norms ones, and tables next to nothing. */
  private static void jitter(Parameter p, Rng rng, String name) {
    float[] values = p.toFloats();
    for (int i = 0; i < values.length; i++) {
      values[i] += (name.endsWith("bias_table") ? 1f : 0.2f) * (float) rng.nextGaussian();
    }
    p.set(values);
  }

  static float[] pictures(GresConfig config, int count) {
    Rng rng = new Rng(SEED, 1);
    float[] values = new float[count * 3 * config.imageHeight() * config.imageWidth()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) rng.nextGaussian();
    }
    return values;
  }

  /** Phrases of different lengths, so that all but the longest are padded. */
  static Tokens phrases(GresConfig config, int count) {
    Rng rng = new Rng(SEED, 2);
    int[][] ids = new int[count][];
    for (int i = 0; i < count; i++) {
      ids[i] = new int[4 + (i * 3) % 7];
      for (int j = 0; j < ids[i].length; j++) {
        ids[i][j] = 2 + rng.nextInt(config.text().vocab() - 2);
      }
    }
    return Tokens.pad(Arrays.asList(ids), config.text().padId());
  }

  private static Map<String, float[]> engine(
      GuideModel model, float[] image, int pictures, Tokens tokens, int regions) {
    Backend backend = Backends.get("cpu");
    GresConfig c = model.config();
    try (Scope scope = Scope.open()) {
      Tensor x = Tensor.floats(backend, image, pictures, 3, c.imageHeight(), c.imageWidth());
      Prediction p = model.forward(x, model.upload(tokens), regions);
      return Map.of(
          "mask", p.mask().toFloats(),
          "region_probs", p.regionLogits().toFloats(),
          "is_negative", p.isNegative().toFloats());
    }
  }

  static void compare(
      GuideModel model, Path file, int pictures, int phrases, int regions, double tolerance) {
    GresConfig c = model.config();
    float[] image = pictures(c, pictures);
    Tokens tokens = phrases(c, phrases);
    Map<String, float[]> expected = engine(model, image, pictures, tokens, regions);
    Map<String, float[]> found =
        OnnxRun.outputs(
            file, image, new long[] {pictures, 3, c.imageHeight(), c.imageWidth()}, tokens);
    assertEquals(expected.keySet(), found.keySet());
    StringBuilder all = new StringBuilder();
    boolean close = true;
    for (String name : List.of("mask", "region_probs", "is_negative")) {
      assertEquals(expected.get(name).length, found.get(name).length, name);
      double d = distance(expected.get(name), found.get(name), tolerance == HALF_TOLERANCE);
      all.append(String.format(" %s %.1e", name, d));
      close &= d <= tolerance;
    }
    System.out.printf("onnx: %d pictures, %d phrases:%s%n", pictures, phrases, all);
    assertTrue(close, "off by" + all);
  }

  /**
   * Relative. A logit that happens to be nothing has no digits left in fp16, so there one below
   * 0.05 (a probability of 0.4875 to 0.5125) is measured as if it were 0.05.
   */
  private static double distance(float[] expected, float[] found, boolean half) {
    double d = TestArrays.distance(TestArrays.doubles(expected), TestArrays.doubles(found));
    double norm = 0;
    for (float v : expected) {
      norm += (double) v * v;
    }
    double least = half ? 0.05 * Math.sqrt(expected.length) : 0;
    return d * Math.min(1, Math.sqrt(norm) / Math.max(least, 1e-30));
  }

  @ParameterizedTest
  @MethodSource("cases")
  void onnxRuntimeAgreesWithTheEngine(Case c) {
    try (GuideModel model = random(c.config)) {
      Path file = dir.resolve("model.onnx");
      var options = new OnnxExport.Options(c.opset, c.precision, c.regions, OnnxFile.MOST_INLINE);
      assertEquals(List.of(file), OnnxExport.write(model, file, options));
      double tolerance = c.precision == DType.F16 ? HALF_TOLERANCE : TOLERANCE;
      System.out.println(c);
      compare(model, file, 1, 1, c.regions, tolerance);
      compare(model, file, 3, 3, c.regions, tolerance);
      compare(model, file, 2, 6, c.regions, tolerance);
    }
  }
}
