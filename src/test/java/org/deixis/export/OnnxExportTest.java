package org.deixis.export;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.onnx.proto.OnnxMl.ModelProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.deixis.backend.Activation;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Rng;
import org.deixis.core.Shape;
import org.deixis.io.OnnxFile;
import org.deixis.model.GoldenModels;
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
import org.deixis.testing.Golden;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

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
        12,
        adaptive || regions == 8); // with and without the mask's evidence
  }

  static Stream<Case> cases() {
    TextConfig.Kind bert = TextConfig.Kind.BERT;
    TextConfig.Kind roberta = TextConfig.Kind.ROBERTA;
    GresConfig shrink = config(96, 128, 7, WindowRule.SHRINK, bert, 8, false, 3, List.of(0, 1, 2));
    // 90×70: patches are cut at the edge, maps are odd, so Resize has no whole scale.
    GresConfig pad = config(90, 70, 4, WindowRule.PAD, roberta, 4, false, 1, List.of(3));
    GresConfig first = config(75, 100, 5, WindowRule.PAD_FIRST, bert, 16, false, 5, List.of());
    GresConfig odd = config(92, 132, 6, WindowRule.SHRINK, roberta, 16, true, 2, List.of(0, 3));
    SwinConfig swin = shrink.swin();
    GresConfig tanh =
        new GresConfig(
            shrink.imageHeight(),
            shrink.imageWidth(),
            new SwinConfig(
                swin.embedDim(),
                swin.depths(),
                swin.heads(),
                swin.window(),
                swin.windowRule(),
                Activation.GELU_TANH,
                0,
                false),
            new TextConfig(bert, 60, 24, 2, 3, 48, Activation.GELU_TANH, 20, 2, 0, 1e-5, 0),
            shrink.dim(),
            shrink.maskDim(),
            shrink.regions(),
            shrink.adaptive(),
            shrink.layers(),
            shrink.heads(),
            shrink.fusionLevels(),
            shrink.normGroups(),
            shrink.maxTokens(),
            shrink.maskEvidence());
    return Stream.of(
        new Case("GELU's tanh form", tanh, 13, DType.F32, 8),
        new Case("GELU's tanh form", tanh, 17, DType.F16, 8),
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

  /**
   * Random weights of which none is so small that what it does would not show: fresh encoders
   * hardly attend, biases are zeros, norms ones, and tables of positions next to nothing.
   */
  static GuideModel random(GresConfig config) {
    return random(config, 8);
  }

  /**
   * @param gain of the encoders' matrices, so that a narrow one does something; 1 for a wide one
   */
  static GuideModel random(GresConfig config, float gain) {
    GuideModel model = new GuideModel(ParameterSource.fresh(Backends.get("cpu"), SEED), config);
    int[] stream = {1000};
    model
        .parameters()
        .forEach(
            (name, p) -> {
              Rng rng = new Rng(SEED, stream[0]++);
              boolean table = name.endsWith("bias_table");
              boolean encoder = name.startsWith("vision.") || name.startsWith("text.");
              float[] values = p.toFloats();
              for (int i = 0; i < values.length; i++) {
                if (table || p.shape().rank() == 1) {
                  values[i] += (table ? 1f : 0.2f) * (float) rng.nextGaussian();
                } else if (encoder && p.shape().rank() == 2) {
                  values[i] *= gain;
                }
              }
              p.set(values);
            });
    return model;
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
   * Relative. A single logit that happens to be almost nothing has no digits left in fp16, so there
   * one below 0.05 (a probability of 0.4875 to 0.5125) is measured as if it were 0.05; in fp32
   * nothing is excused.
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

  /** PyTorch's own answers, from its weights: nothing of the engine's forward lies between. */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "models/guide_p8",
        "models/guide_p4_one_layer",
        "models/guide_p8_shared_picture",
        "models/guide_p16_roberta"
      })
  @Tag("golden")
  void onnxRuntimeAgreesWithPyTorch(String name) {
    Golden golden = Golden.load(name);
    GresConfig config = GoldenModels.guide(golden);
    Path file = dir.resolve("golden.onnx");
    try (GuideModel model =
        new GuideModel(GoldenModels.weights(Backends.get("cpu"), golden), config)) {
      OnnxExport.write(model, file, OnnxExport.Options.of(config));
    }
    long[] shape = Arrays.stream(golden.shape("in.image").dims()).asLongStream().toArray();
    Shape text = golden.shape("in.ids");
    Tokens tokens =
        new Tokens(
            Arrays.stream(golden.longs("in.ids")).mapToInt(Math::toIntExact).toArray(),
            Arrays.stream(golden.longs("in.text_mask")).mapToInt(Math::toIntExact).toArray(),
            text.dim(0),
            text.dim(1));
    OnnxRun.outputs(file, golden.floats("in.image"), shape, tokens)
        .forEach(
            (output, values) ->
                GoldenModels.assertClose(
                    name + " " + output, golden.floats("out." + output), values, TOLERANCE));
  }

  @Test
  void weightsBesideTheModelAboveTheLimit() throws IOException {
    GresConfig config = cases().findFirst().orElseThrow().config;
    try (GuideModel model = random(config)) {
      Path whole = dir.resolve("whole.onnx");
      OnnxExport.write(model, whole, OnnxExport.Options.of(config));
      Path file = dir.resolve("far/split.onnx");
      Path data = dir.resolve("far/split.onnx.data");
      List<Path> written =
          OnnxExport.write(model, file, new OnnxExport.Options(13, DType.F32, 8, 1000));
      assertEquals(List.of(file, data), written);
      assertTrue(Files.size(data) >= 4 * model.parameterCount() * 9 / 10, "the weights");
      assertTrue(Files.size(file) < Files.size(whole) - Files.size(data) / 2, "only there");
      try (Stream<Path> files = Files.list(file.getParent())) {
        assertEquals(2, files.count(), "no temporary files stay");
      }
      compare(model, file, 1, 2, 8, TOLERANCE);
      assertEquals(List.of(whole), OnnxExport.write(model, whole, OnnxExport.Options.of(config)));
    }
  }

  @Test
  void nodesBearTheModulesPaths() throws IOException {
    GresConfig config = cases().findFirst().orElseThrow().config;
    Path file = dir.resolve("model.onnx");
    try (GuideModel model = random(config)) {
      OnnxExport.write(model, file, new OnnxExport.Options(17, DType.F32, 8, OnnxFile.MOST_INLINE));
    }
    ModelProto read = ModelProto.parseFrom(Files.readAllBytes(file));
    assertEquals(17, read.getOpsetImport(0).getVersion());
    Set<String> names = new HashSet<>();
    Set<String> operators = new HashSet<>();
    for (NodeProto n : read.getGraph().getNodeList()) {
      assertTrue(names.add(n.getName()), n.getName() + " twice");
      assertFalse(n.getName().startsWith("graph/"), n.getName() + " bears no path");
      operators.add(n.getOpType());
    }
    assertTrue(
        names.containsAll(
            List.of(
                "vision.layers.2.blocks.1.attn/MatMul",
                "vision.layers.2.blocks.1.attn.qkv/MatMul",
                "text.encoder.layer.1.attention.self/Softmax",
                "fusion.1.attn.out_proj/MatMul",
                "rla.2.mlp.0/MatMul",
                "ria_norm.0/LayerNormalization")),
        names.toString());
    long roots = names.stream().filter(n -> n.contains("/Sqrt")).count();
    assertEquals(1, roots, "only the group norm is written out");
    assertFalse(operators.contains("Gelu"), "which is of opset 20");
    assertEquals("12", read.getMetadataProps(0).getValue(), "max_tokens");
    List<String> inputs = read.getGraph().getInputList().stream().map(i -> i.getName()).toList();
    assertEquals(List.of("image", "input_ids", "attention_mask"), inputs);
  }

  /** Who serves the model elsewhere looks there for what it needs. */
  @Test
  void theDocumentListsEveryOperator() throws IOException {
    String document = Files.readString(Path.of("docs/onnx.md"));
    Set<String> operators = new TreeSet<>();
    for (Case c : cases().toList()) {
      Path file = dir.resolve("model.onnx");
      try (GuideModel model = random(c.config)) {
        OnnxExport.write(
            model,
            file,
            new OnnxExport.Options(c.opset, c.precision, c.regions, OnnxFile.MOST_INLINE));
      }
      ModelProto.parseFrom(Files.readAllBytes(file))
          .getGraph()
          .getNodeList()
          .forEach(n -> operators.add(n.getOpType()));
    }
    operators.removeIf(o -> document.contains("`" + o + "`"));
    assertEquals(Set.of(), operators, "not in docs/onnx.md");
  }

  @Test
  void badOptionsAndPlacesAreRefused() throws IOException {
    GresConfig config = cases().findFirst().orElseThrow().config;
    long most = OnnxFile.MOST_INLINE;
    assertThrows(InputException.class, () -> new OnnxExport.Options(14, DType.F32, 8, most));
    assertThrows(InputException.class, () -> new OnnxExport.Options(13, DType.BF16, 8, most));
    assertThrows(InputException.class, () -> new OnnxExport.Options(13, DType.F32, 8, most + 1));
    Path old = Files.writeString(dir.resolve("old.onnx"), "old");
    try (GuideModel model = random(config)) {
      assertThrows(
          InputException.class,
          () -> OnnxExport.write(model, old, new OnnxExport.Options(13, DType.F32, 4, most)),
          "4 regions of a model of 8");
      Path below = old.resolve("model.onnx");
      assertThrows(
          InputException.class,
          () -> OnnxExport.write(model, below, OnnxExport.Options.of(config)));
      Parameter p = model.parameters().get("rla.2.mlp.0.weight");
      float[] values = p.toFloats();
      values[5] = 70_000;
      p.set(values);
      String message =
          assertThrows(
                  InputException.class,
                  () ->
                      OnnxExport.write(model, old, new OnnxExport.Options(13, DType.F16, 8, most)))
              .getMessage();
      assertTrue(message.contains("rla.2.mlp.0.weight"), message);
    }
    assertEquals("old", Files.readString(old), "what was there stays");
    try (Stream<Path> files = Files.list(dir)) {
      assertEquals(1, files.count(), "no temporary files stay");
    }
  }
}
