package org.deixis.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.onnx.proto.OnnxMl.ModelProto;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.deixis.backend.Backends;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.infer.ModelFolder;
import org.deixis.io.Safetensors;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.ParameterSource;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code deixis export} from a model folder to files, and what it refuses. */
class ExportCommandTest {
  @TempDir static Path shared;
  private static Path model;

  @TempDir Path dir;
  private final ByteArrayOutputStream out = new ByteArrayOutputStream();
  private final ByteArrayOutputStream err = new ByteArrayOutputStream();

  @BeforeAll
  static void make() {
    model = shared.resolve("model");
    String json =
        """
        {"imageHeight": 32, "imageWidth": 32,
         "swin": {"embedDim": 8, "depths": [1, 1, 1, 1], "heads": [1, 1, 1, 1], "window": 4},
         "text": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32, "maxPositions": 24},
         "dim": 16, "maskDim": 8, "regions": 4, "adaptive": true, "layers": 1, "heads": 2,
         "fusionLevels": [0], "normGroups": 4, "maxTokens": 16}""";
    try (TextTokenizer tokenizer = SceneMaker.tokenizer("simple");
        GuideModel made =
            new GuideModel(
                ParameterSource.fresh(Backends.get("reference"), 1),
                GresConfig.parse("tiny", json.getBytes(StandardCharsets.UTF_8))
                    .withVocab(tokenizer.vocabSize(), tokenizer.padId()))) {
      ModelFolder.save(model, made, tokenizer);
    }
  }

  private int export(String format, Path file, String... more) {
    Stream<String> base =
        Stream.of(
            "export", "--model", model.toString(), "--format", format, "--out", file.toString());
    return Main.run(
        new PrintStream(out, true, StandardCharsets.UTF_8),
        new PrintStream(err, true, StandardCharsets.UTF_8),
        Stream.concat(base, Stream.of(more)).toArray(String[]::new));
  }

  private void refused(String word, int code) {
    assertEquals(2, code);
    List<String> lines = err.toString(StandardCharsets.UTF_8).lines().toList();
    assertEquals(1, lines.size(), lines.toString());
    assertTrue(lines.get(0).startsWith("deixis: ") && lines.get(0).contains(word), lines.get(0));
    err.reset();
  }

  @Test
  void onnxAsAsked() throws IOException {
    Path file = dir.resolve("new/m.onnx");
    int code = export("onnx", file, "--opset", "17", "--precision", "fp16", "--regions", "8");
    assertEquals(0, code, err.toString(StandardCharsets.UTF_8));
    ModelProto read = ModelProto.parseFrom(Files.readAllBytes(file));
    assertEquals(17, read.getOpsetImport(0).getVersion());
    var shape = read.getGraph().getOutput(1).getType().getTensorType().getShape();
    assertEquals("region_probs", read.getGraph().getOutput(1).getName());
    assertEquals(8, shape.getDim(1).getDimValue());
    assertTrue(out.toString(StandardCharsets.UTF_8).contains(file.toString()));
    Path far = dir.resolve("far.onnx");
    assertEquals(0, export("onnx", far, "--inline-bytes", "0"));
    assertTrue(Files.size(dir.resolve("far.onnx.data")) > 0);
  }

  @Test
  void weightsAlone() {
    Path file = dir.resolve("w.safetensors");
    assertEquals(0, export("safetensors", file));
    assertEquals(
        Safetensors.read(model.resolve(ModelFolder.WEIGHTS)).tensors().keySet(),
        Safetensors.read(file).tensors().keySet());
    assertEquals(0, export("npz", dir.resolve("w.npz")));
    assertTrue(Files.isRegularFile(dir.resolve("w.npz")));
  }

  @Test
  void badUsage() {
    Path file = dir.resolve("m.onnx");
    refused("14", export("onnx", file, "--opset", "14"));
    refused("fp15", export("onnx", file, "--precision", "fp15"));
    refused("regions 5", export("onnx", file, "--regions", "5"));
    refused("9000000000", export("onnx", file, "--inline-bytes", "9000000000"));
    refused("--opset", export("npz", file, "--opset", "13"));
    refused("folder", export("npz", dir));
    refused("tflite", export("tflite", file));
    Path whole = model;
    model = dir.resolve("nowhere");
    try {
      refused("nowhere", export("onnx", file));
    } finally {
      model = whole;
    }
    assertFalse(Files.exists(file));
  }
}
