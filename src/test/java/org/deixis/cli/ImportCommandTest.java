package org.deixis.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.deixis.autograd.Tape;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.Shape;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.infer.ModelFolder;
import org.deixis.io.HostTensor;
import org.deixis.io.Safetensors;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.swin.Swin;
import org.deixis.nn.ParameterSource;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code deixis import} from files to a model folder, and what it refuses. */
class ImportCommandTest {
  private static final Backend CPU = Backends.get("cpu");

  @TempDir static Path shared;
  private static Path config;
  private static Path vision;
  private static Path text;
  private static Path whole;
  private static float[] qkv;

  @TempDir Path dir;
  private final ByteArrayOutputStream out = new ByteArrayOutputStream();
  private final ByteArrayOutputStream err = new ByteArrayOutputStream();

  @BeforeAll
  static void make() throws IOException {
    String json =
        """
        {"imageHeight": 64, "imageWidth": 64,
         "swin": {"embedDim": 8, "depths": [1, 1, 1, 1], "heads": [1, 1, 1, 1], "window": 2},
         "text": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32, "maxPositions": 24},
         "dim": 16, "maskDim": 8, "regions": 4, "layers": 1, "heads": 2,
         "fusionLevels": [0], "normGroups": 4, "maxTokens": 16}""";
    config = Files.writeString(shared.resolve("tiny.json"), json);
    List<HostTensor> eyes = new ArrayList<>();
    List<HostTensor> words = new ArrayList<>();
    List<HostTensor> all = new ArrayList<>();
    try (TextTokenizer tokenizer = SceneMaker.tokenizer("simple");
        GuideModel model =
            new GuideModel(
                ParameterSource.fresh(CPU, 5),
                GresConfig.parse("tiny", json.getBytes(StandardCharsets.UTF_8))
                    .withVocab(tokenizer.vocabSize(), tokenizer.padId()))) {
      Files.write(shared.resolve("tokenizer.json"), tokenizer.toJson());
      model
          .parameters()
          .forEach(
              (name, p) -> {
                all.add(HostTensor.ofFloats(name, p.shape(), p.toFloats()));
                if (name.startsWith("vision.")) {
                  eyes.add(HostTensor.ofFloats(name.substring(7), p.shape(), p.toFloats()));
                } else if (name.startsWith("text.")) {
                  words.add(
                      HostTensor.ofFloats("bert." + name.substring(5), p.shape(), p.toFloats()));
                }
              });
      qkv = model.parameters().get("vision.layers.2.blocks.0.attn.qkv.weight").toFloats();
      reference(model);
    }
    vision = shared.resolve("swin.safetensors");
    text = shared.resolve("bert.safetensors");
    whole = shared.resolve("whole.safetensors");
    Safetensors.write(vision, eyes, Map.of());
    Safetensors.write(text, words, Map.of());
    Safetensors.write(whole, all, Map.of());
  }

  /** As export_reference.py has it, with the pyramid's input computed by another backend. */
  private static void reference(GuideModel model) {
    Backend oracle = Backends.get("reference");
    float[] image = new float[3 * 64 * 64];
    for (int i = 0; i < image.length; i++) {
      image[i] = (float) Math.sin(0.37 * i);
    }
    List<HostTensor> all = new ArrayList<>();
    all.add(HostTensor.ofFloats("vision.image", Shape.of(1, 3, 64, 64), image));
    try (RandomState random = new RandomState(oracle, 0);
        Swin swin =
            new Swin(
                ParameterSource.fresh(oracle, 5).part("vision"),
                model.config().swin(),
                64,
                64,
                random);
        Tape off = Tape.pause();
        Scope scope = Scope.open()) {
      List<Tensor> maps = swin.forward(Tensor.floats(oracle, image, 1, 3, 64, 64));
      for (int i = 0; i < maps.size(); i++) {
        all.add(
            HostTensor.ofFloats("vision.level." + i, maps.get(i).shape(), maps.get(i).toFloats()));
      }
    }
    Safetensors.write(shared.resolve("reference.safetensors"), all, Map.of());
    float[] last = all.get(4).toFloats();
    last[0] += 1;
    all.set(4, HostTensor.ofFloats("vision.level.3", all.get(4).shape(), last));
    Safetensors.write(shared.resolve("wrong.safetensors"), all, Map.of());
  }

  private int run(String... arguments) {
    return Main.run(
        new PrintStream(out, true, StandardCharsets.UTF_8),
        new PrintStream(err, true, StandardCharsets.UTF_8),
        Stream.concat(Stream.of("import"), Arrays.stream(arguments)).toArray(String[]::new));
  }

  private void refused(int code, String part) {
    String said = err.toString(StandardCharsets.UTF_8);
    assertEquals(2, code, said);
    assertEquals(1, said.lines().count(), said);
    assertTrue(said.contains(part), said);
  }

  private String[] encoders(String... more) {
    return Stream.concat(
            Stream.of(
                "--vision",
                vision.toString(),
                "--text",
                text.toString(),
                "--config",
                config.toString(),
                "--out",
                dir.resolve("model").toString()),
            Arrays.stream(more))
        .toArray(String[]::new);
  }

  @Test
  void encodersBecomeAModelFolder() {
    int code = run(encoders("--verify", shared.resolve("reference.safetensors").toString()));
    assertEquals(0, code, err.toString(StandardCharsets.UTF_8));
    String said = out.toString(StandardCharsets.UTF_8);
    assertTrue(said.contains("timm Swin") && said.contains("Hugging Face BERT"), said);
    assertTrue(said.contains("as the reference has it"), said);
    try (ModelFolder made = ModelFolder.load(dir.resolve("model"), CPU)) {
      assertArrayEquals(
          qkv,
          made.model().parameters().get("vision.layers.2.blocks.0.attn.qkv.weight").toFloats());
    }
  }

  @Test
  void trainingStartsFromAnImportedModel() {
    assertEquals(0, run(encoders()), err.toString(StandardCharsets.UTF_8));
    SceneMaker.write(dir.resolve("scenes"), new SceneMaker.Spec("simple", 64, 4, 2, 2, 1));
    int code =
        Main.run(
            new PrintStream(out, true, StandardCharsets.UTF_8),
            new PrintStream(err, true, StandardCharsets.UTF_8),
            "train",
            "--data",
            dir.resolve("scenes").toString(),
            "--init",
            dir.resolve("model").toString(),
            "--out",
            dir.resolve("run").toString(),
            "--steps",
            "1",
            "--images",
            "1",
            "--expressions",
            "1",
            "--lr",
            "0",
            "--quiet");
    assertEquals(0, code, err.toString(StandardCharsets.UTF_8));
    // At a rate of 0 a step changes nothing: what comes out is what was imported.
    assertArrayEquals(
        qkv,
        Safetensors.read(dir.resolve("run/model/model.safetensors"))
            .tensors()
            .get("vision.layers.2.blocks.0.attn.qkv.weight")
            .toFloats());
  }

  @Test
  void aReferenceThatDiffersIsRefused() {
    refused(
        run(encoders("--verify", shared.resolve("wrong.safetensors").toString())),
        "vision.level.3 is off");
  }

  @Test
  void aWholeModelComesByItsOwnNames() {
    int code =
        run(
            "--whole",
            whole.toString(),
            "--config",
            config.toString(),
            "--out",
            dir.resolve("model").toString());
    assertEquals(0, code, err.toString(StandardCharsets.UTF_8));
    Map<String, HostTensor> before = Safetensors.read(whole).tensors();
    Map<String, HostTensor> after =
        Safetensors.read(dir.resolve("model/model.safetensors")).tensors();
    assertEquals(before.keySet(), after.keySet());
    before.forEach((name, t) -> assertEquals(t.bytes(), after.get(name).bytes(), name));
  }

  @Test
  void anotherWindowResizesTheTables() {
    assertEquals(0, run(encoders("--window", "4", "--image-size", "128")));
    assertTrue(
        out.toString().contains("its tables are of window 2; --window 2 keeps them"),
        out.toString());
    assertTrue(
        out.toString(StandardCharsets.UTF_8)
            .contains("layers.0.blocks.0.attn.relative_position_bias_table (9, 1) to (49, 1)"),
        out.toString(StandardCharsets.UTF_8));
    ModelFolder.load(dir.resolve("model"), CPU).close();
  }

  @Test
  void whatIsMissingIsRefusedAndNothingIsWritten() {
    Path lacking = dir.resolve("lacking.safetensors");
    List<HostTensor> some =
        Safetensors.read(vision).tensors().values().stream()
            .filter(t -> !t.name().equals("layers.3.blocks.0.norm1.bias"))
            .toList();
    Safetensors.write(lacking, some, Map.of());
    String[] arguments = encoders();
    arguments[1] = lacking.toString();
    refused(run(arguments), "layers.3.blocks.0.norm1.bias");
    assertFalse(Files.exists(dir.resolve("model")));
    err.reset();
    String[] allowed = encoders("--allow-missing", "vision.layers.3.*");
    allowed[1] = lacking.toString();
    assertEquals(0, run(allowed), err.toString(StandardCharsets.UTF_8));
  }

  /** Imports the text encoder from a folder in which {@code json} is the config.json. */
  private int withPublished(String json) throws IOException {
    Path folder = Files.createDirectories(dir.resolve("bert"));
    Files.copy(text, folder.resolve("model.safetensors"), StandardCopyOption.REPLACE_EXISTING);
    Files.writeString(folder.resolve("config.json"), json);
    String tokenizer = shared.resolve("tokenizer.json").toString();
    String[] all = encoders("--tokenizer", tokenizer);
    all[3] = folder.toString();
    err.reset();
    return run(all);
  }

  @Test
  void aPublishedConfigurationThatSaysOtherwiseIsRefused() throws IOException {
    String like = "{'model_type': 'bert', 'hidden_act': '%s', 'num_attention_heads': %d}";
    refused(
        withPublished(like.formatted("gelu_new", 4).replace('\'', '"')),
        "bert/config.json has hidden_act gelu_new, not activation GELU but GELU_TANH;"
            + " num_attention_heads 4, not heads 2; say so under \"text\"");
    refused(
        withPublished(like.formatted("silu", 2).replace('\'', '"')),
        "hidden_act silu, which is none of GELU, GELU_TANH, RELU");
    refused(
        withPublished("{\"model_type\": \"roberta\", \"layer_norm_eps\": 1e-5}"),
        "layer_norm_eps 1.0E-5, not layerNormEps 1.0E-12");
    refused(withPublished("{\"model_type\": "), "bert/config.json: not valid JSON");
    refused(withPublished(" ".repeat((1 << 20) + 1)), "larger than 1 MiB");
    assertFalse(Files.exists(dir.resolve("model")));
    // What agrees, and what speaks of something else, is no hindrance.
    String agrees = like.formatted("gelu", 2).replace("}", ", 'layer_norm_eps': 1e-12}");
    assertEquals(0, withPublished(agrees.replace('\'', '"')), err.toString());
    assertTrue(Files.exists(dir.resolve("model")));
  }

  @Test
  void aConfigurationOfAnotherKindIsNoHindrance() throws IOException {
    int code = withPublished("{\"model_type\": \"t5\", \"hidden_act\": \"silu\"}");
    assertEquals(0, code, err.toString(StandardCharsets.UTF_8));
  }

  @Test
  void whatIsNoEncoderIsRefused() {
    String[] arguments = encoders();
    arguments[1] = text.toString();
    refused(run(arguments), "no known vision encoder");
    err.reset();
    refused(run("--vision", vision.toString(), "--out", "x"), "--config");
    err.reset();
    arguments = encoders();
    arguments[5] = "guide-swin-b";
    refused(run(arguments), "in the configuration");
  }

  @Test
  void whatMayBeMissingMustBeThereToMiss() {
    refused(run(encoders("--allow-missing", "vison.layers.3.*")), "names no parameter");
    err.reset();
    refused(run(encoders("--allow-missing", "vision.[a")), "--allow-missing");
    assertFalse(Files.exists(dir.resolve("model")));
  }

  /** Nothing is left of a model that does not meet its reference, or of one without any. */
  @Test
  void aReferenceThatIsNoneIsOneLineAndNoModel() {
    Map<String, HostTensor> good =
        Safetensors.read(shared.resolve("reference.safetensors")).tensors();
    HostTensor image = good.get("vision.image");
    float[] values = image.toFloats();
    long[] four = {4, 5, 6, 7};
    List<List<HostTensor>> all =
        List.of(
            List.of(HostTensor.ofFloats("vision.image", Shape.of(3, 64, 64), values)),
            List.of(HostTensor.ofFloats("vision.image", Shape.of(3, 1, 64, 64), values)),
            List.of(HostTensor.ofFloats("vision.image", Shape.of(0, 3, 64, 64), new float[0])),
            List.of(HostTensor.ofLongs("vision.image", image.shape(), new long[values.length])),
            words(Shape.of(2, 2), four, Shape.of(2, 1), new long[] {1, 1}),
            words(Shape.of(4), four, Shape.of(4), new long[] {1, 1, 1, 1}),
            words(Shape.of(0, 4), new long[0], Shape.of(0, 4), new long[0]),
            words(Shape.of(1, 4), new long[] {4, 5, 1L << 40, 7}, Shape.of(1, 4), four),
            words(Shape.of(1, 4), new long[] {4, 5, -1, 7}, Shape.of(1, 4), four),
            words(Shape.of(1, 4), four, Shape.of(1, 4), new long[] {1, 2, 3, 1}),
            words(Shape.of(1, 4), four, Shape.of(1, 4), new long[4]),
            words(Shape.of(1, 25), new long[25], Shape.of(1, 25), new long[25]));
    for (int i = 0; i < all.size(); i++) {
      Path file = dir.resolve("reference" + i);
      Safetensors.write(file, all.get(i), Map.of());
      err.reset();
      refused(run(encoders("--verify", file.toString())), file.toString());
      assertFalse(Files.exists(dir.resolve("model")), file.toString());
    }
    err.reset();
    refused(run(encoders("--verify", dir.resolve("none").toString())), "no such file");
    assertFalse(Files.exists(dir.resolve("model")));
  }

  private static List<HostTensor> words(Shape ids, long[] id, Shape mask, long[] tokens) {
    return List.of(
        HostTensor.ofLongs("text.input_ids", ids, id),
        HostTensor.ofLongs("text.attention_mask", mask, tokens),
        HostTensor.ofFloats("text.hidden", Shape.of(1, 1, 1), new float[1]));
  }

  @Test
  void aFolderThatIsThereStays() throws IOException {
    Files.createDirectories(dir.resolve("model"));
    Files.writeString(dir.resolve("model/mine.txt"), "mine");
    refused(run(encoders()), "is there already");
    assertEquals("mine", Files.readString(dir.resolve("model/mine.txt")));
  }

  @Test
  void inspectListsATensorALine() {
    assertEquals(0, run("--inspect", vision.toString()));
    String said = out.toString(StandardCharsets.UTF_8);
    assertTrue(said.contains("layers.1.downsample.reduction.weight"), said);
    assertTrue(said.contains("safetensors"), said);
    assertEquals(Safetensors.read(vision).tensors().size() + 1, said.lines().count());
  }
}
