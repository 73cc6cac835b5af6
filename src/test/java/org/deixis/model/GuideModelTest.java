package org.deixis.model;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiFunction;
import java.util.stream.Stream;
import org.deixis.autograd.Tape;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Rng;
import org.deixis.core.Shape;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.bert.Tokens;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GresLoss;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.Prediction;
import org.deixis.model.swin.Swin;
import org.deixis.model.swin.SwinConfig;
import org.deixis.model.swin.WindowRule;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;
import org.deixis.testing.Golden;
import org.deixis.testing.TestArrays;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** What the golden files do not show: draws, memory, other sizes, adaptive regions, half types. */
class GuideModelTest {
  private static final long SEED = 11;

  static Stream<String> backends() {
    return GoldenModels.backends();
  }

  private static GresConfig tiny(double drop, boolean checkpointing, boolean adaptive) {
    return new GresConfig(
        32,
        48,
        new SwinConfig(
            8, List.of(1, 1, 2, 1), List.of(1, 1, 2, 4), 4, WindowRule.SHRINK, drop, checkpointing),
        new TextConfig(TextConfig.Kind.BERT, 50, 16, 1, 2, 32, 16, 2, 0, 1e-12, drop),
        16,
        8,
        4,
        adaptive,
        2,
        2,
        List.of(0, 2),
        4,
        12,
        false);
  }

  private static Tensor pictures(Backend backend, int count, GresConfig config) {
    Rng rng = new Rng(SEED, 1);
    byte[] bytes = new byte[count * config.imageHeight() * config.imageWidth() * 3];
    for (int i = 0; i < bytes.length; i++) {
      bytes[i] = (byte) rng.nextInt(256);
    }
    return Tensor.bytes(backend, bytes, count, config.imageHeight(), config.imageWidth(), 3);
  }

  private static Tokens phrases(int count) {
    Rng rng = new Rng(SEED, 2);
    int[][] ids = new int[count][];
    for (int i = 0; i < count; i++) {
      ids[i] = new int[3 + i % 4];
      for (int j = 0; j < ids[i].length; j++) {
        ids[i][j] = 1 + rng.nextInt(49);
      }
    }
    return Tokens.pad(Arrays.asList(ids), 0);
  }

  private static GresLoss.Result loss(Backend backend, Prediction p, GresConfig config) {
    int b = p.mask().dim(0);
    Rng rng = new Rng(SEED, 3);
    byte[] mask = new byte[b * config.imageHeight() * config.imageWidth()];
    for (int i = 0; i < mask.length; i++) {
      mask[i] = (byte) (rng.nextBoolean(0.3) ? 1 : 0);
    }
    return new GresLoss(0.5f, 1, null)
        .of(
            p,
            Tensor.bytes(backend, mask, b, config.imageHeight(), config.imageWidth()),
            Tensor.zeros(backend, DType.F32, b));
  }

  /** The loss, and the gradients by parameter name. */
  private static Map<String, float[]> step(GuideModel model, Backend backend, long stream) {
    Map<String, float[]> result = new LinkedHashMap<>();
    model.random().stream(stream);
    try (Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      Prediction p = model.forward(pictures(backend, 2, model.config()), model.upload(phrases(4)));
      Tensor total = loss(backend, p, model.config()).total();
      tape.backward(total.variable());
      result.put("loss", new float[] {total.item()});
      model.parameters().forEach((name, q) -> result.put(name, Tensor.of(q.gradient()).toFloats()));
      model.clearGradients();
    }
    return result;
  }

  @ParameterizedTest
  @MethodSource("backends")
  void recomputationMakesTheSameDraws(String device) {
    Backend backend = TestBackends.get(device);
    try (GuideModel plain =
            new GuideModel(ParameterSource.fresh(backend, SEED), tiny(0.3, false, false), 5);
        GuideModel again =
            new GuideModel(ParameterSource.fresh(backend, SEED), tiny(0.3, true, false), 5)) {
      plain.training(true);
      again.training(true);
      Map<String, float[]> expected = step(plain, backend, 1);
      Map<String, float[]> actual = step(again, backend, 1);
      // Not bit for bit: where nothing is recorded, a backend may fuse what it otherwise keeps.
      double largest = expected.values().stream().mapToDouble(GuideModelTest::norm).max().orElse(0);
      expected.forEach(
          (name, g) -> {
            double d =
                TestArrays.distance(TestArrays.doubles(g), TestArrays.doubles(actual.get(name)));
            assertTrue(d <= 1e-4 || d * norm(g) <= 1e-6 * largest, name + " is off by " + d);
          });
      assertArrayEquals(expected.get("loss"), step(plain, backend, 1).get("loss"));
      assertFalse(
          Arrays.equals(expected.get("loss"), step(plain, backend, 2).get("loss")),
          "another stream draws otherwise");
      plain.training(false);
      assertFalse(Arrays.equals(expected.get("loss"), step(plain, backend, 1).get("loss")));
    }
  }

  private static double norm(float[] values) {
    double sum = 0;
    for (float v : values) {
      sum += (double) v * v;
    }
    return Math.sqrt(sum);
  }

  @ParameterizedTest
  @MethodSource("backends")
  void aStepEndsWithTheBytesItBeganWith(String device) {
    Backend backend = TestBackends.get(device);
    long outside = backend.memory().stats().live();
    try (GuideModel model =
        new GuideModel(ParameterSource.fresh(backend, SEED), tiny(0.1, true, false))) {
      model.training(true);
      step(model, backend, 0);
      long before = backend.memory().stats().live();
      for (int i = 1; i <= 50; i++) {
        step(model, backend, i);
        assertEquals(before, backend.memory().stats().live(), "after step " + i);
      }
    }
    assertEquals(outside, backend.memory().stats().live(), "after the model was closed");
  }

  @Test
  void aWrongShapeNamesTheModulePath() {
    Backend backend = Backends.get("reference");
    String broken = "vision.layers.2.blocks.1.mlp.fc2.weight";
    try (GuideModel model =
            new GuideModel(
                replacing(backend, broken, (s, v) -> Shape.of(s.dim(0), s.dim(1) + 1)),
                tiny(0, false, false));
        Scope scope = Scope.open()) {
      RuntimeException e =
          assertThrows(
              RuntimeException.class,
              () -> model.encodePictures(pictures(backend, 1, model.config())));
      assertTrue(e.getMessage().startsWith("feed_forward: "), e.getMessage());
      assertTrue(e.getMessage().contains("(32, 129) F32"), e.getMessage());
      assertTrue(e.getMessage().endsWith("at model.vision.layers.2.blocks.1.mlp"), e.getMessage());
    }
  }

  /** Fresh parameters, but one of another shape (the values are zeros). */
  private static ParameterSource replacing(
      Backend backend, String name, BiFunction<Shape, float[], Shape> change) {
    return new Replacing(ParameterSource.fresh(backend, SEED), "", name, change);
  }

  private record Replacing(
      ParameterSource inner, String prefix, String target, BiFunction<Shape, float[], Shape> change)
      implements ParameterSource {
    @Override
    public Backend backend() {
      return inner.backend();
    }

    @Override
    public Parameter parameter(String name, Shape shape, Init init) {
      if (!target.equals(prefix + name)) {
        return inner.parameter(name, shape, init);
      }
      Shape other = change.apply(shape, null);
      return Parameter.of(backend(), new float[(int) other.size()], other);
    }

    @Override
    public ParameterSource part(String name) {
      return new Replacing(inner.part(name), prefix + name + ".", target, change);
    }
  }

  /**
   * A picture smaller than the one it was built for: the same as a Swin built for that size, whose
   * tables are the distances it needs, picked here by their meaning.
   */
  @ParameterizedTest
  @MethodSource("backends")
  void smallerPicturesReadTheirPartOfTheTables(String device) {
    Backend backend = TestBackends.get(device);
    SwinConfig config =
        new SwinConfig(8, List.of(2, 2, 2, 2), List.of(1, 1, 2, 4), 6, WindowRule.SHRINK, 0, false);
    try (RandomState random = new RandomState(backend, 0);
        Swin large = new Swin(ParameterSource.fresh(backend, SEED), config, 192, 192, random);
        Swin small = new Swin(ParameterSource.fresh(backend, SEED), config, 64, 96, random);
        Scope scope = Scope.open()) {
      Map<String, Parameter> from = large.parameters();
      int smaller = 0;
      for (Map.Entry<String, Parameter> e : small.parameters().entrySet()) {
        Shape shape = from.get(e.getKey()).shape();
        float[] values = from.get(e.getKey()).toFloats();
        if (!shape.equals(e.getValue().shape())) {
          smaller++;
          int stage = e.getKey().charAt("layers.".length()) - '0';
          values = part(values, shape.dim(1), 6, 16 >> stage, 24 >> stage);
        }
        e.getValue().set(values);
      }
      assertEquals(4, smaller, "tables of the last two stages");
      Tensor image =
          Tensor.of(
              new TestArrays(backend, DType.F32)
                  .of(TestArrays.gaussian(new Rng(SEED, 4), 1, 3, 64, 96), 1, 3, 64, 96));
      List<Tensor> expected = small.forward(image);
      List<Tensor> actual = large.forward(image);
      for (int i = 0; i < 4; i++) {
        assertArrayEquals(expected.get(i).toFloats(), actual.get(i).toFloats(), "stage " + i);
      }
    }
  }

  private static float[] part(float[] table, int heads, int window, int mapH, int mapW) {
    int h = Math.min(window, mapH);
    int w = Math.min(window, mapW);
    float[] out = new float[(2 * h - 1) * (2 * w - 1) * heads];
    for (int y1 = 0; y1 < h; y1++) {
      for (int y2 = 0; y2 < h; y2++) {
        for (int x1 = 0; x1 < w; x1++) {
          for (int x2 = 0; x2 < w; x2++) {
            int to = (y1 - y2 + h - 1) * (2 * w - 1) + x1 - x2 + w - 1;
            int at = (y1 - y2 + window - 1) * (2 * window - 1) + x1 - x2 + window - 1;
            System.arraycopy(table, at * heads, out, to * heads, heads);
          }
        }
      }
    }
    return out;
  }

  @ParameterizedTest
  @MethodSource("backends")
  void adaptiveRegionsUseTheFirstQueries(String device) {
    Backend backend = TestBackends.get(device);
    try (GuideModel adaptive =
            new GuideModel(ParameterSource.fresh(backend, SEED), tiny(0, false, true));
        GuideModel fixed =
            new GuideModel(ParameterSource.fresh(backend, SEED), tiny(0, false, false));
        Scope scope = Scope.open()) {
      for (int layer = 0; layer < 2; layer++) {
        String name = "ria." + layer + ".region_queries";
        float[] queries = adaptive.parameters().get(name).toFloats();
        assertEquals(16 * 16, queries.length);
        fixed.parameters().get(name).set(Arrays.copyOf(queries, 4 * 16));
      }
      Tensor images = pictures(backend, 1, fixed.config());
      float[] expected = fixed.forward(images, fixed.upload(phrases(3))).mask().toFloats();
      Prediction four = adaptive.forward(images, adaptive.upload(phrases(3)), 4);
      assertArrayEquals(expected, four.mask().toFloats());
      for (int regions : new int[] {8, 16}) {
        Prediction p = adaptive.forward(images, adaptive.upload(phrases(3)), regions);
        assertEquals(regions, p.regions());
      }
      assertThrows(InputException.class, () -> fixed.forward(images, fixed.upload(phrases(3)), 8));
    }
  }

  @ParameterizedTest
  @MethodSource("backends")
  void halfPrecisionStaysNear(String device) {
    Golden golden = Golden.load("models/guide_p8");
    Backend backend = TestBackends.get(device);
    for (DType half : new DType[] {DType.F16, DType.BF16}) {
      try (GuideModel model =
              new GuideModel(GoldenModels.weights(backend, golden), GoldenModels.guide(golden));
          Scope scope = Scope.open();
          Tape tape = Tape.open()) {
        if (!backend.supports(half)) {
          refused("does not compute in " + half, () -> model.precision(half));
          continue;
        }
        model.precision(half);
        Tensor images = Tensor.of(new TestArrays(backend, DType.F32).of(golden, "in.image"));
        Prediction p =
            model.forward(
                images, model.upload(EncoderGoldenTest.tokens(golden, "in.ids", "in.text_mask")));
        assertEquals(DType.F32, p.mask().dtype());
        double mask =
            TestArrays.distance(
                TestArrays.doubles(golden.floats("out.mask")), TestArrays.values(p.mask().array()));
        System.out.printf("%s %s: mask off by %.1e%n", device, half, mask);
        assertTrue(mask <= (half == DType.F16 ? 5e-3 : 2e-2), half + " is off by " + mask);
        Tensor total = p.mask().mean().add(p.isNegative().mean());
        tape.backward(total.variable());
        Parameter weight = model.parameters().get("vision.layers.0.blocks.0.attn.qkv.weight");
        assertEquals(half, weight.gradient().dtype());
        assertEquals(
            DType.F32,
            model.parameters().get("mask_norm.weight").gradient().dtype(),
            "norms stay in fp32");
      }
    }
  }

  @Test
  void badBatchesAreOneLine() {
    Backend backend = Backends.get("reference");
    try (GuideModel model =
            new GuideModel(ParameterSource.fresh(backend, SEED), tiny(0, false, false));
        Scope scope = Scope.open()) {
      refused("vocabulary ends at 49", () -> model.upload(new Tokens(ones(50), ones(1), 1, 1)));
      refused("vocabulary ends at 49", () -> model.upload(new Tokens(ones(-1), ones(1), 1, 1)));
      refused("no token", () -> model.upload(new Tokens(ones(1), new int[1], 1, 1)));
      refused("at most 16", () -> model.upload(new Tokens(new int[17], new int[17], 1, 17)));
      refused(
          "3 phrases for 2 pictures",
          () -> model.forward(pictures(backend, 2, model.config()), model.upload(phrases(3))));
    }
  }

  private static int[] ones(int value) {
    return new int[] {value};
  }

  private static void refused(String part, Runnable body) {
    InputException e = assertThrows(InputException.class, body::run);
    assertTrue(e.getMessage().contains(part), e.getMessage());
    assertFalse(e.getMessage().contains("\n"));
  }
}
