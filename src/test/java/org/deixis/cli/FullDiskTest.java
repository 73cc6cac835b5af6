package org.deixis.cli;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import org.deixis.data.Images;
import org.deixis.data.RgbImage;
import org.deixis.testing.CommandProcess;
import org.deixis.testing.CommandProcess.Answer;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/**
 * Writing that fails half-way, by the system's limit on a file's size: what a full disk does, in a
 * process of its own.
 */
@EnabledOnOs(OS.LINUX)
class FullDiskTest {
  @TempDir Path dir;
  private Path model;

  @BeforeEach
  void make() {
    model = TestCommand.model(dir.resolve("model"));
  }

  private static void refused(Answer a, String... words) {
    assertEquals(2, a.code(), a.err().toString());
    assertEquals(1, a.err().size(), a.err().toString());
    for (String word : words) {
      assertTrue(a.err().get(0).contains(word), "'" + word + "' in: " + a.err().get(0));
    }
  }

  private static List<String> names(Path folder) throws IOException {
    try (var files = Files.list(folder)) {
      return files.map(f -> f.getFileName().toString()).sorted().toList();
    }
  }

  @Test
  void theLastGoodCheckpointStays() throws IOException, InterruptedException {
    Path data = TestCommand.scenes(dir.resolve("scenes"));
    Path run = dir.resolve("run");
    assertEquals(0, TestCommand.train(model, data, run).code());
    Path log = run.resolve("metrics.jsonl");
    // Longer than the limit, so that a resumed run cannot write it anew either.
    Files.writeString(log, Files.readString(log) + "{\"step\":1,\"loss\":1.5}\n".repeat(2_000));
    byte[] logged = Files.readAllBytes(log);
    String[] resume = TestCommand.trainArguments(model, data, run, 2, "--resume");
    refused(CommandProcess.runWithLargestFile(16, dir, resume), "metrics.jsonl", "free some space");
    assertArrayEquals(logged, Files.readAllBytes(log));
    assertEquals(List.of("step-00000001.safetensors"), names(run.resolve("checkpoints")));

    Files.writeString(log, "{\"step\":1,\"loss\":1.5}\n");
    refused(
        CommandProcess.runWithLargestFile(16, dir, resume),
        "step-00000002.safetensors",
        "free some space");
    assertEquals(List.of("step-00000001.safetensors"), names(run.resolve("checkpoints")));
    assertTrue(names(run).stream().noneMatch(n -> n.endsWith(".tmp")), names(run).toString());

    TestCommand.Answer on = TestCommand.run(resume);
    assertEquals(0, on.code(), on.err());
    assertTrue(on.out().contains("trained after 2 steps"), on.out());
  }

  @Test
  void anAnswerIsWholeOrNotThere() throws IOException, InterruptedException {
    byte[] noise = new byte[80 * 80 * 3];
    new Random(1).nextBytes(noise);
    Path picture = dir.resolve("noise.png");
    Files.write(picture, Images.encodePng(new RgbImage(80, 80, noise)));
    Path found = dir.resolve("found");
    // The mask fits, the picture under it does not.
    refused(
        CommandProcess.runWithLargestFile(
            4,
            dir,
            "predict",
            "--model",
            model.toString(),
            "--image",
            picture.toString(),
            "--text",
            "the red circle",
            "--out",
            found.toString(),
            "--device",
            "cpu"),
        "overlay.png",
        "free some space");
    assertEquals(List.of(), names(found));
  }
}
