package org.deixis.weights;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.deixis.backend.Backends;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.io.Checkpoint;
import org.deixis.io.HostTensor;
import org.deixis.model.gres.GresConfig;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Names and shapes that timm, torchvision and transformers give to models of one small size ({@code
 * weights/names.json}, listed once from their state dicts; Microsoft's and Detectron2's were
 * derived from timm's by what their repositories name differently), and where each must land.
 */
class NameMapTest {
  private static final String CONFIG =
      """
      {"imageHeight": 128, "imageWidth": 128,
       "swin": {"embedDim": 8, "depths": [1, 1, 2, 1], "heads": [1, 1, 2, 2], "window": 4},
       "text": {"kind": "%s", "vocab": 30, "hidden": 16, "layers": 2, "heads": 2, "intermediate": 32,
                "maxPositions": 24, "typeVocab": %d, "padId": %d},
       "dim": 16, "maskDim": 8, "regions": 4, "layers": 1, "heads": 2, "fusionLevels": [0], "normGroups": 4,
       "maxTokens": 16}""";

  /** For some names of each source, our name: written by hand, not by a map. */
  private static final Map<String, Map<String, String>> PLACES =
      Map.of(
          "timm Swin (0.9 and later)",
          Map.of(
              "layers.1.downsample.reduction.weight", "layers.1.downsample.reduction.weight",
              "layers.2.blocks.1.mlp.fc2.bias", "layers.2.blocks.1.mlp.fc2.bias"),
          "Microsoft Swin, timm before 0.9",
          Map.of(
              "layers.0.downsample.norm.weight", "layers.1.downsample.norm.weight",
              "layers.2.downsample.reduction.weight", "layers.3.downsample.reduction.weight",
              "patch_embed.norm.bias", "patch_embed.norm.bias"),
          "Detectron2 Swin",
          Map.of(
              "backbone.layers.1.downsample.norm.bias", "layers.2.downsample.norm.bias",
              "backbone.layers.3.blocks.0.attn.qkv.weight", "layers.3.blocks.0.attn.qkv.weight"),
          "torchvision Swin",
          Map.of(
              "features.0.2.weight", "patch_embed.norm.weight",
              "features.2.reduction.weight", "layers.1.downsample.reduction.weight",
              "features.5.1.mlp.3.weight", "layers.2.blocks.1.mlp.fc2.weight",
              "features.7.0.norm2.bias", "layers.3.blocks.0.norm2.bias"),
          "Hugging Face Swin",
          Map.of(
              "swin.encoder.layers.0.downsample.norm.weight", "layers.1.downsample.norm.weight",
              "swin.encoder.layers.2.blocks.1.layernorm_after.bias",
                  "layers.2.blocks.1.norm2.bias"),
          "Hugging Face Swin, old names",
          Map.of(
              "swin.encoder.layers.2.blocks.0.attention.output.dense.bias",
                  "layers.2.blocks.0.attn.proj.bias",
              "swin.encoder.layers.3.blocks.0.output.dense.weight",
                  "layers.3.blocks.0.mlp.fc2.weight"),
          "Hugging Face BERT",
          Map.of(
              "bert.encoder.layer.1.attention.self.key.bias",
              "encoder.layer.1.attention.self.key.bias"),
          "Hugging Face BERT, old names",
          Map.of(
              "bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight",
              "bert.encoder.layer.0.attention.output.LayerNorm.beta",
                  "encoder.layer.0.attention.output.LayerNorm.bias"),
          "Hugging Face RoBERTa",
          Map.of(
              "roberta.encoder.layer.0.output.dense.weight",
              "encoder.layer.0.output.dense.weight"));

  /** A checkpoint of given names and shapes; each tensor is filled with a number of its own. */
  private record Listed(Map<String, Entry> entries) implements Checkpoint {
    static float mark(String name) {
      return 1 + Math.floorMod(name.hashCode(), 9973) / 16f;
    }

    @Override
    public String format() {
      return "a list";
    }

    @Override
    public HostTensor read(String name) {
      Shape shape = entries.get(name).shape();
      float[] values = new float[Math.toIntExact(shape.size())];
      Arrays.fill(values, mark(name));
      return HostTensor.ofFloats(name, shape, values);
    }

    @Override
    public void close() {
      // holds nothing
    }
  }

  private static JsonNode resource(String name) {
    try (InputStream in = NameMapTest.class.getResourceAsStream("/weights/" + name)) {
      return new ObjectMapper().readTree(in);
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
  }

  static Stream<String> sources() {
    List<String> names = new ArrayList<>();
    resource("names.json").fieldNames().forEachRemaining(names::add);
    return names.stream();
  }

  private static Listed listed(String source) {
    Map<String, Checkpoint.Entry> entries = new LinkedHashMap<>();
    resource("names.json")
        .get(source)
        .fields()
        .forEachRemaining(
            e -> {
              int[] dims = new int[e.getValue().size()];
              for (int i = 0; i < dims.length; i++) {
                dims[i] = e.getValue().get(i).asInt();
              }
              entries.put(e.getKey(), new Checkpoint.Entry(DType.F32, Shape.of(dims)));
            });
    return new Listed(entries);
  }

  private static boolean roberta(String source) {
    return source.contains("RoBERTa");
  }

  private static String encoder(String source) {
    return source.contains("BERT") || roberta(source) ? "text" : "vision";
  }

  private static Map<String, Shape> wanted(String source) {
    boolean roberta = roberta(source);
    String json = CONFIG.formatted(roberta ? "ROBERTA" : "BERT", roberta ? 1 : 2, roberta ? 1 : 0);
    return new ModelImport(
            Backends.get("reference"),
            GresConfig.parse("tiny", json.getBytes(StandardCharsets.UTF_8)))
        .wanted(encoder(source) + ".");
  }

  private static NameMap map(String source, Listed listed) {
    return NameMap.recognise(
        source,
        listed.entries().keySet(),
        encoder(source),
        encoder(source).equals("vision") ? "" : roberta(source) ? "ROBERTA" : "BERT");
  }

  @ParameterizedTest
  @MethodSource("sources")
  void everyParameterIsMatchedOnceAndLandsInItsPlace(String source) {
    Listed listed = listed(source);
    NameMap map = map(source, listed);
    assertEquals(source.replace(", old names", ""), map.source());
    Map<String, Shape> wanted = wanted(source);
    WeightImport found = new WeightImport(source, listed, map, wanted, name -> false);
    assertEquals(wanted.size(), found.matched());
    assertEquals(List.of(), found.missing());
    assertEquals(List.of(), found.unexpected());
    assertEquals(List.of(), found.reshaped());
    PLACES
        .get(source)
        .forEach(
            (theirs, ours) -> {
              float[] values = found.values(ours);
              assertEquals(wanted.get(ours).size(), values.length, ours);
              assertEquals(Listed.mark(theirs), values[values.length - 1], theirs);
            });
  }

  @Test
  void separateQueriesKeysAndValuesAreStackedInThisOrder() {
    String source = "Hugging Face Swin";
    Listed listed = listed(source);
    WeightImport found =
        new WeightImport(source, listed, map(source, listed), wanted(source), name -> false);
    float[] qkv = found.values("layers.2.blocks.1.attn.qkv.bias");
    assertEquals(3 * 32, qkv.length);
    String[] parts = {"q", "k", "v"};
    for (int i = 0; i < qkv.length; i++) {
      assertEquals(
          Listed.mark("swin.encoder.layers.2.blocks.1.attention." + parts[i / 32] + "_proj.bias"),
          qkv[i]);
    }
  }

  @Test
  void tablesOfAnotherWindowAreResizedAsPyTorchDoes() {
    for (JsonNode c : resource("bicubic.json").get("cases")) {
      int from = c.get("from").asInt();
      int to = c.get("to").asInt();
      float[] table = floats(c.get("table"));
      assertArrayEquals(
          floats(c.get("out")),
          PositionTable.resize(table, from, from, to, to, 2),
          1e-5f,
          from + " to " + to);
    }
  }

  private static float[] floats(JsonNode array) {
    float[] values = new float[array.size()];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) array.get(i).asDouble();
    }
    return values;
  }

  @Test
  void whatIsMissingIsNamedUnlessAllowed() {
    String source = "timm Swin (0.9 and later)";
    Listed listed = listed(source);
    NameMap map = map(source, listed);
    Map<String, Shape> wanted = wanted(source);
    listed.entries().remove("layers.2.blocks.1.mlp.fc1.weight");
    InputException e =
        assertThrows(
            InputException.class, () -> new WeightImport("f", listed, map, wanted, name -> false));
    assertTrue(e.getMessage().contains("layers.2.blocks.1.mlp.fc1.weight"), e.getMessage());
    WeightImport found =
        new WeightImport("f", listed, map, wanted, name -> name.startsWith("layers.2."));
    assertEquals(List.of("layers.2.blocks.1.mlp.fc1.weight"), found.missing());
  }

  @Test
  void anotherWidthIsRefusedWithBothShapes() {
    String source = "torchvision Swin";
    Listed listed = listed(source);
    listed.entries().put("features.7.0.norm2.bias", new Checkpoint.Entry(DType.F32, Shape.of(65)));
    InputException e =
        assertThrows(
            InputException.class,
            () ->
                new WeightImport("f", listed, map(source, listed), wanted(source), name -> false));
    assertTrue(e.getMessage().contains("(65)") && e.getMessage().contains("(64)"), e.getMessage());
  }

  /** Shapes are a file's own claim, and a table that is none has any number of axes. */
  @Test
  void tablesThatAreNoneAreRefused() {
    refusedWithShape("Hugging Face BERT", "bert.embeddings.position_embeddings.weight", 24 * 16);
    refusedWithShape("Hugging Face BERT", "bert.embeddings.position_embeddings.weight");
    refusedWithShape("Hugging Face BERT", "bert.embeddings.position_embeddings.weight", 1, 24, 16);
    String table = "layers.0.blocks.0.attn.relative_position_bias_table";
    refusedWithShape("timm Swin (0.9 and later)", table);
    refusedWithShape("timm Swin (0.9 and later)", table, 25);
    // A square, but a window of w has 2w - 1 offsets, which is odd.
    refusedWithShape("timm Swin (0.9 and later)", table, 36, 1);
  }

  private static void refusedWithShape(String source, String name, int... dims) {
    Listed listed = listed(source);
    listed.entries().put(name, new Checkpoint.Entry(DType.F32, Shape.of(dims)));
    NameMap map = map(source, listed);
    Map<String, Shape> wanted = wanted(source);
    InputException e =
        assertThrows(
            InputException.class, () -> new WeightImport("f", listed, map, wanted, n -> false));
    assertTrue(e.getMessage().contains(Shape.of(dims) + " there"), e.getMessage());
  }

  /** 768 wide and 12 deep are both: only the configuration says which of the two it is. */
  @Test
  void theOtherTextEncoderIsNamed() {
    InputException e =
        assertThrows(
            InputException.class,
            () ->
                NameMap.recognise(
                    "f", listed("Hugging Face RoBERTa").entries().keySet(), "text", "BERT"));
    assertTrue(e.getMessage().contains("Hugging Face RoBERTa"), e.getMessage());
    assertTrue(e.getMessage().contains("text.kind"), e.getMessage());
  }

  @Test
  void namesOfNoKnownSourceAreRefused() {
    InputException e =
        assertThrows(
            InputException.class,
            () -> NameMap.recognise("f", List.of("conv1.weight"), "vision", ""));
    assertTrue(e.getMessage().contains("conv1.weight"), e.getMessage());
  }
}
