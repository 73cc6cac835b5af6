package org.deixis.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.deixis.backend.Backends;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.infer.ModelFolder;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.ParameterSource;

/** Commands in this process, and the smallest model and scenes to give them. */
final class TestCommand {
  record Answer(int code, String out, String err) {
    /** The lines of the error stream that say what is wrong. */
    List<String> complaints() {
      return err.lines().filter(l -> !l.startsWith("deixis: device auto")).toList();
    }
  }

  private TestCommand() {}

  static synchronized Answer run(String... args) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    ByteArrayOutputStream err = new ByteArrayOutputStream();
    PrintStream complaints = new PrintStream(err, true, StandardCharsets.UTF_8);
    PrintStream before = System.err;
    System.setErr(complaints); // warnings go through the logger
    try {
      int code = Main.run(new PrintStream(out, true, StandardCharsets.UTF_8), complaints, args);
      return new Answer(
          code, out.toString(StandardCharsets.UTF_8), err.toString(StandardCharsets.UTF_8));
    } finally {
      System.setErr(before);
    }
  }

  /** One line, exit code 2, and these words in it. */
  static void refused(Answer a, String... words) {
    assertEquals(2, a.code, a.err);
    assertEquals(1, a.complaints().size(), a.err);
    String line = a.complaints().get(0);
    assertTrue(line.startsWith("deixis: "), line);
    for (String word : words) {
      assertTrue(line.contains(word), "'" + word + "' in: " + line);
    }
  }

  /** As small as a whole model gets, in a folder. */
  static Path model(Path folder) {
    String json =
        """
        {"imageHeight": 32, "imageWidth": 32,
         "swin": {"embedDim": 8, "depths": [1, 1, 1, 1], "heads": [1, 1, 1, 1], "window": 4},
         "text": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32, "maxPositions": 24},
         "dim": 16, "maskDim": 8, "regions": 4, "layers": 1, "heads": 2, "fusionLevels": [0], "normGroups": 4,
         "maxTokens": 16}""";
    try (TextTokenizer tokenizer = SceneMaker.tokenizer("simple");
        GuideModel made =
            new GuideModel(
                ParameterSource.fresh(Backends.get("cpu"), 1),
                GresConfig.parse("tiny", json.getBytes(StandardCharsets.UTF_8))
                    .withVocab(tokenizer.vocabSize(), tokenizer.padId()))) {
      ModelFolder.save(folder, made, tokenizer);
    }
    return folder;
  }

  static Path scenes(Path folder) {
    SceneMaker.write(folder, new SceneMaker.Spec("simple", 32, 4, 2, 3, 1));
    return folder;
  }

  /** The arguments of a training run. */
  static String[] trainArguments(Path model, Path data, Path out, int steps, String... more) {
    String[] base = {
      "train",
      "--data",
      data.toString(),
      "--out",
      out.toString(),
      "--steps",
      Integer.toString(steps),
      "--images",
      "2",
      "--expressions",
      "1",
      "--config",
      model.resolve("config.json").toString(),
      "--device",
      "cpu",
      "--quiet"
    };
    return Stream.concat(Arrays.stream(base), Arrays.stream(more)).toArray(String[]::new);
  }

  /** A training run of one step. */
  static Answer train(Path model, Path data, Path out, String... more) {
    return run(trainArguments(model, data, out, 1, more));
  }
}
