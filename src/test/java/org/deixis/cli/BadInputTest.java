package org.deixis.cli;

import static org.deixis.cli.TestCommand.refused;
import static org.deixis.cli.TestCommand.run;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.cli.TestCommand.Answer;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.data.Images;
import org.deixis.data.RgbImage;
import org.deixis.testing.CudaHost;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Bad input at the command line: one clear line, exit code 2, and nothing half-written. */
class BadInputTest {
  @TempDir static Path shared;
  private static Path model;
  private static Path picture;

  @TempDir Path dir;

  @BeforeAll
  static void make() throws IOException {
    model = TestCommand.model(shared.resolve("model"));
    picture = shared.resolve("p.png");
    Files.write(picture, Images.encodePng(new RgbImage(40, 60, new byte[40 * 60 * 3])));
  }

  private Path scenes() {
    return TestCommand.scenes(dir.resolve("scenes"));
  }

  private Answer train(Path data, String... more) {
    return TestCommand.train(model, data, dir.resolve("run"), more);
  }

  private static Path only(Path folder, String part) throws IOException {
    try (Stream<Path> files = Files.list(folder)) {
      return files
          .filter(f -> f.getFileName().toString().contains(part))
          .sorted()
          .findFirst()
          .orElseThrow();
    }
  }

  private static void edit(Path file, String from, String to) throws IOException {
    String text = Files.readString(file);
    String changed = text.replaceFirst(from, to);
    assertFalse(text.equals(changed), "nothing to change in " + file);
    Files.writeString(file, changed);
  }

  @Test
  void aMissingOrEmptyDataFolder() throws IOException {
    refused(train(dir.resolve("nowhere")), "nowhere");
    Path empty = Files.createDirectory(dir.resolve("empty"));
    refused(train(empty), "empty");
    refused(run("data", "check", empty.toString()), "empty");
    assertFalse(Files.exists(dir.resolve("run")), "nothing is made for a run that cannot begin");
  }

  @Test
  void damageInTheDataNamesTheRecord() throws IOException {
    Path cut = scenes();
    Path json = only(cut, "instances");
    byte[] whole = Files.readAllBytes(json);
    Files.write(json, Arrays.copyOf(whole, whole.length / 2));
    refused(train(cut), "instances.json");
    Files.write(json, whole);
    Path grefs = only(cut, "grefs");
    String refs = Files.readString(grefs);
    edit(grefs, "\"ann_id\":\\[\\d+", "\"ann_id\":[987654");
    refused(train(cut), "grefs", "987654");
    Files.writeString(grefs, refs);
    edit(grefs, "\"raw\":\"[^\"]+\",\"sent\":\"[^\"]+\"", "\"raw\":\"\",\"sent\":\" \"");
    refused(train(cut), "grefs", "empty phrase");
  }

  @Test
  void masksThatDoNotBelongNameTheRecord() throws IOException {
    Path data = scenes();
    Path instances = only(data, "instances");
    String whole = Files.readString(instances);
    Files.writeString(instances, whole.replaceAll("\"size\":\\[\\d+,", "\"size\":[17,"));
    refused(train(data), "annotation id", "32x17");
    Files.writeString(instances, whole);
    // A record that names nothing, and an annotation all the same.
    edit(
        only(data, "grefs"),
        "\"no_target\":false,\"ann_id\":\\[(\\d+)",
        "\"no_target\":true,\"ann_id\":[$1");
    refused(train(data), "grefs", "no target");
  }

  @Test
  void aTruncatedPictureFailsBeforeAnythingIsWritten() throws IOException {
    Path jpeg = dir.resolve("cut.jpg");
    byte[] whole = Images.encodeJpeg(new RgbImage(80, 80, new byte[80 * 80 * 3]));
    Files.write(jpeg, Arrays.copyOf(whole, whole.length * 2 / 3));
    Path out = dir.resolve("found");
    refused(
        run(
            "predict",
            "--model",
            model.toString(),
            "--image",
            picture.toString(),
            jpeg.toString(),
            "--text",
            "the red circle",
            "--out",
            out.toString(),
            "--device",
            "cpu"),
        "cut.jpg");
    assertFalse(Files.exists(out), "the good picture's answer is not left behind alone");
  }

  @Test
  void phrasesEmptyAndEndless() {
    refused(
        run(
            "predict",
            "--model",
            model.toString(),
            "--image",
            picture.toString(),
            "--text",
            " ",
            "--out",
            dir.toString(),
            "--device",
            "cpu"),
        "empty phrase");
    Answer endless =
        run(
            "predict",
            "--model",
            model.toString(),
            "--image",
            picture.toString(),
            "--text",
            "red ".repeat(10_000).strip(),
            "--out",
            dir.resolve("found").toString(),
            "--device",
            "cpu");
    assertEquals(0, endless.code(), endless.err());
    List<String> cut = endless.err().lines().filter(l -> l.contains("cut at the limit")).toList();
    assertEquals(1, cut.size(), endless.err());
    assertTrue(cut.get(0).startsWith("deixis: WARN phrase of 10002 tokens"), cut.get(0));
    assertTrue(cut.get(0).contains("limit of 16"), cut.get(0));
    assertTrue(endless.out().length() < 500, "ten thousand words do not flood the console");
  }

  @Test
  void picturesTinyAndHuge() throws IOException {
    Path one = dir.resolve("one.png");
    Files.write(one, Images.encodePng(new RgbImage(1, 1, new byte[3])));
    Answer tiny =
        run(
            "predict",
            "--model",
            model.toString(),
            "--image",
            one.toString(),
            "--text",
            "the red circle",
            "--out",
            dir.resolve("found").toString(),
            "--device",
            "cpu");
    assertEquals(0, tiny.code(), tiny.err());
    assertEquals(3, Files.list(dir.resolve("found")).count(), "mask, overlay and JSON");
    // Only the header claims the size: it is refused before a pixel is read.
    byte[] png = Files.readAllBytes(one);
    java.nio.ByteBuffer.wrap(png).putInt(16, 12_000).putInt(20, 9_000);
    java.util.zip.CRC32 crc = new java.util.zip.CRC32();
    crc.update(png, 12, 17);
    java.nio.ByteBuffer.wrap(png).putInt(29, (int) crc.getValue());
    Path huge = dir.resolve("huge.png");
    Files.write(huge, png);
    refused(
        run(
            "predict",
            "--model",
            model.toString(),
            "--image",
            huge.toString(),
            "--text",
            "the red circle",
            "--out",
            dir.resolve("huge").toString(),
            "--device",
            "cpu"),
        "huge.png");
  }

  @Test
  void namesThatDoNotExistGetTheNearest() {
    // Though what the typo stands for is missing, too.
    refused(run("train", "--dat", "x", "--out", "y"), "'--dat'", "did you mean --data?");
    refused(run("predict", "--modle=x"), "'--modle=x'", "did you mean --model?");
    refused(run("trian"), "trian", "did you mean train?");
    refused(
        run("train", "--data", "x", "--out", "y", "--schedule", "cosine"),
        "did you mean --set schedule=VALUE?");
    refused(
        run(
            "eval",
            "--model",
            model.toString(),
            "--data",
            scenes().toString(),
            "--out",
            dir.toString(),
            "--device",
            "cpuu"),
        "cpuu",
        "did you mean cpu?");
    refused(train(dir.resolve("scenes"), "--set", "diceWieght=1"), "diceWieght", "diceWeight");
    refused(train(dir.resolve("scenes"), "--precision", "fp15"), "fp15", "fp16");
    refused(
        train(dir.resolve("scenes"), "--accumulate", "many"),
        "accumulate: \"many\" is not a whole number");
    refused(
        train(dir.resolve("scenes"), "--accumulate", "1.5"),
        "accumulate: 1.5 is not a whole number");
    refused(train(dir.resolve("scenes"), "--lr", "fast"), "rate: \"fast\" is not a number");
    refused(train(dir.resolve("scenes"), "--set", "focal=2"), "focal: 2 is not true or false");
    refused(
        run(
            "eval",
            "--model",
            model.toString(),
            "--data",
            dir.resolve("scenes").toString(),
            "--out",
            dir.toString(),
            "--device",
            "cuda"),
        "cuda");
  }

  @Test
  void aBatchThatDoesNotFitSaysWhatToLower() {
    Backend cpu = Backends.get("cpu");
    var memory = cpu.memory();
    long cap = memory.stats().cap();
    Path scenes = scenes();
    try {
      memory.cap(memory.stats().live() + (256L << 10));
      refused(
          train(scenes, "--set", "images=4", "--set", "expressions=3"),
          "asked for",
          "lower --images");
    } finally {
      memory.cap(cap);
    }
    assertEquals(
        8, cpu.allocate(Shape.of(2), DType.F32).bytes(), "the device goes on working afterwards");
  }

  @Test
  void helpAndAnUnknownConfigurationKey() throws IOException {
    for (String command :
        List.of(
            "demo", "scenes", "data", "train", "eval", "predict", "export", "doctor", "bench")) {
      Answer help = run(command, "--help");
      assertEquals(0, help.code());
      assertTrue(help.out().contains("Usage: deixis " + command), help.out());
    }
    Path config = dir.resolve("c.json");
    Files.writeString(config, "{\"regoins\": 8}");
    Answer a =
        run(
            "train",
            "--data",
            scenes().toString(),
            "--out",
            dir.resolve("r").toString(),
            "--config",
            config.toString(),
            "--device",
            "cpu");
    refused(a, "regoins", "regions");
    // It loads CUDA's bindings; where there is no driver, that would fail for good in this process
    // and for the tests on the stand-in after it.
    if (CudaHost.available() && !TestBackends.names().contains("cuda")) {
      CudaHost.backend();
    }
    assertEquals(0, run("doctor").code());
  }
}
