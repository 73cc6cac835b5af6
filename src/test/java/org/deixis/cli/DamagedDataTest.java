package org.deixis.cli;

import static org.deixis.cli.TestCommand.refused;
import static org.deixis.cli.TestCommand.run;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.zip.CRC32;
import java.util.zip.DeflaterOutputStream;
import org.deixis.cli.TestCommand.Answer;
import org.deixis.data.Images;
import org.deixis.data.RgbImage;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * Each damage of a data set in a folder of one's own, through each command that reads one: data
 * check, train and eval.
 */
class DamagedDataTest {
  @TempDir static Path shared;
  private static Path model;

  @TempDir Path dir;
  private Path data;
  private Path run;
  private Path measured;

  @BeforeAll
  static void make() {
    model = TestCommand.model(shared.resolve("model"));
  }

  /** Two pictures to train on and one to measure on, each with a mask. */
  @BeforeEach
  void folder() throws IOException {
    data = dir.resolve("data");
    run = dir.resolve("run");
    measured = dir.resolve("measured");
    Files.createDirectories(data.resolve("images"));
    Files.createDirectories(data.resolve("masks"));
    try (TextTokenizer tokenizer = SceneMaker.tokenizer("simple")) {
      tokenizer.save(data);
    }
    byte[] pixels = new byte[40 * 60 * 3];
    for (int i = 0; i < pixels.length; i++) {
      pixels[i] = (byte) (i * 7919 >> 4);
    }
    for (int i = 0; i < 3; i++) {
      Files.write(image(i), Images.encodeJpeg(new RgbImage(40, 60, pixels)));
      Files.write(mask(i), npy(40, 60));
    }
    records("the red circle", "false");
    assertEquals(0, run("data", "check", data.toString()).code(), "sound before it is damaged");
  }

  private Path image(int i) {
    return data.resolve("images").resolve(i + ".jpg");
  }

  private Path mask(int i) {
    return data.resolve("masks").resolve(i + ".npy");
  }

  /** Of the first training record and of the one to measure on. */
  private void records(String phrase, String negative) throws IOException {
    StringBuilder json = new StringBuilder("[");
    for (int i = 0; i < 3; i++) {
      boolean damaged = i != 1;
      json.append(
          """
          {"image": "%d.jpg", "mask": "%d.npy", "expression": "%s", "is_negative": %s, "split": "%s"}%s"""
              .formatted(
                  i,
                  i,
                  damaged ? phrase : "the red circle",
                  damaged ? negative : "false",
                  i < 2 ? "train" : "val",
                  i < 2 ? ",\n" : "]"));
    }
    Files.writeString(data.resolve("annotations.json"), json);
  }

  private static byte[] npy(int height, int width) {
    String header =
        "{'descr': '|b1', 'fortran_order': False, 'shape': (%d, %d), }".formatted(height, width);
    header += " ".repeat(117 - header.length()) + "\n";
    byte[] file = new byte[128 + height * width];
    byte[] magic = {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 118, 0};
    System.arraycopy(magic, 0, file, 0, magic.length);
    System.arraycopy(header.getBytes(StandardCharsets.US_ASCII), 0, file, 10, 118);
    Arrays.fill(file, 128 + height / 8 * width, 128 + (height + 3) / 4 * width, (byte) 1);
    return file;
  }

  private static void cut(Path file) throws IOException {
    byte[] whole = Files.readAllBytes(file);
    Files.write(file, Arrays.copyOf(whole, whole.length * 2 / 3));
  }

  private Answer train(String... more) {
    return TestCommand.train(model, data, run, more);
  }

  private Answer eval(String... more) {
    String[] base = {
      "eval",
      "--model",
      model.toString(),
      "--data",
      data.toString(),
      "--out",
      measured.toString(),
      "--device",
      "cpu",
      "--quiet"
    };
    return run(
        java.util.stream.Stream.concat(Arrays.stream(base), Arrays.stream(more))
            .toArray(String[]::new));
  }

  /** All commands say it in one line and leave no result; with --skip-bad they do without it. */
  private void everywhere(String... words) throws IOException {
    Answer check = run("data", "check", data.toString());
    refused(check, "2 bad records");
    for (String word : words) {
      assertTrue(check.out().contains(word), "'" + word + "' in: " + check.out());
    }
    refused(train(), words);
    assertFalse(Files.exists(run.resolve("model")));
    noneHalfWritten(run);
    refused(eval(), words);
    assertFalse(Files.exists(measured));
    Answer without = train("--skip-bad", "--val-split", "train");
    assertEquals(0, without.code(), without.err());
    assertTrue(without.err().contains("1 records skipped"), without.err());
    for (String word : words) {
      assertTrue(without.err().contains(word), "'" + word + "' in: " + without.err());
    }
  }

  private static void noneHalfWritten(Path folder) throws IOException {
    if (!Files.exists(folder)) {
      return;
    }
    try (var files = Files.walk(folder)) {
      List<Path> half =
          files.filter(f -> f.toString().matches(".*(\\.tmp|\\.partial|\\.safetensors)")).toList();
      assertEquals(List.of(), half);
    }
  }

  @Test
  void aTruncatedPicture() throws IOException {
    cut(image(0));
    cut(image(2));
    everywhere("jpg: picture is cut off before its end");
  }

  @Test
  void aMissingPicture() throws IOException {
    Files.delete(image(0));
    Files.delete(image(2));
    everywhere("annotations.json: record", ".jpg");
  }

  @Test
  void aMaskOfAnotherSize() throws IOException {
    Files.write(mask(0), npy(41, 60));
    Files.write(mask(2), npy(41, 60));
    everywhere("annotations.json: record", "mask is 60x41, its picture 60x40");
  }

  @Test
  void noTargetWithAMask() throws IOException {
    records("the red circle", "true");
    everywhere("annotations.json: record", "no target, yet it has a mask");
  }

  @Test
  void anEmptyPhrase() throws IOException {
    records("  ", "false");
    everywhere("annotations.json: record", "empty phrase");
  }

  @Test
  void aPictureOfManyMegapixels() throws IOException {
    for (int i : new int[] {0, 2}) {
      Files.write(image(i), png(12_000, 9_000));
    }
    everywhere("annotations.json: record", "12000x9000", "DEIXIS_MAX_MEGAPIXELS");
  }

  /** Whole and honest: one grey byte a pixel, almost nothing when packed. */
  private static byte[] png(int width, int height) throws IOException {
    ByteArrayOutputStream file = new ByteArrayOutputStream();
    file.write(new byte[] {(byte) 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'});
    ByteArrayOutputStream head = new ByteArrayOutputStream();
    DataOutputStream fields = new DataOutputStream(head);
    fields.writeInt(width);
    fields.writeInt(height);
    fields.write(new byte[] {8, 0, 0, 0, 0});
    chunk(file, "IHDR", head.toByteArray());
    ByteArrayOutputStream packed = new ByteArrayOutputStream();
    try (DeflaterOutputStream deflater = new DeflaterOutputStream(packed)) {
      byte[] row = new byte[1 + width];
      for (int y = 0; y < height; y++) {
        deflater.write(row);
      }
    }
    chunk(file, "IDAT", packed.toByteArray());
    chunk(file, "IEND", new byte[0]);
    return file.toByteArray();
  }

  private static void chunk(ByteArrayOutputStream file, String type, byte[] data)
      throws IOException {
    DataOutputStream out = new DataOutputStream(file);
    byte[] name = type.getBytes(StandardCharsets.US_ASCII);
    CRC32 crc = new CRC32();
    crc.update(name);
    crc.update(data);
    out.writeInt(data.length);
    out.write(name);
    out.write(data);
    out.writeInt((int) crc.getValue());
  }

  @Test
  void jsonThatIsCutOff() throws IOException {
    cut(data.resolve("annotations.json"));
    String[] words = {"annotations.json: JSON is cut off or malformed at line 2", "copy the file"};
    for (Answer a : List.of(run("data", "check", data.toString()), train(), eval())) {
      refused(a, words);
      assertFalse(a.err().contains("Source:"), a.err());
    }
    // Nobody can say what such a file has lost.
    refused(train("--skip-bad"), words);
    assertFalse(Files.exists(run));
    assertFalse(Files.exists(measured));
  }

  @Test
  void aTokenizerThatIsCutOff() throws IOException {
    cut(data.resolve("tokenizer.json"));
    Answer check = run("data", "check", data.toString());
    refused(check, "1 bad record");
    assertTrue(check.out().contains("tokenizer is cut off"), check.out());
    Answer trained = train();
    refused(trained, "tokenizer.json: tokenizer is cut off or malformed");
    assertFalse(trained.err().contains("Source:"), trained.err());
    assertFalse(Files.exists(run));
  }

  @Test
  void picturesOfOnePixelAndPhrasesOfTenThousandWordsAreNoDamage() throws IOException {
    for (int i = 0; i < 3; i++) {
      Files.write(image(i), Images.encodeJpeg(new RgbImage(1, 1, new byte[3])));
      Files.write(mask(i), npy(1, 1));
    }
    records("red circle ".repeat(5_000).strip(), "false");
    for (Answer a : List.of(run("data", "check", data.toString()), train(), eval())) {
      assertEquals(0, a.code(), a.err());
    }
    assertTrue(eval().err().contains("deixis: WARN phrase of 10002 tokens cut at the limit"));
  }
}
