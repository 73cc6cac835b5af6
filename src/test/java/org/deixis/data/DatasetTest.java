package org.deixis.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.deixis.core.InputException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DatasetTest {
  private static final String SENTENCE = "'sentences': [{'raw': 'The Cup', 'sent': 'the cup'}]";
  private static final String IMAGES =
      "'images': [{'id': 7, 'file_name': 'a.png', 'height': 4, 'width': 6},"
          + " {'id': 8, 'file_name': 'b.jpg', 'height': 8, 'width': 8}]";
  private static final String ANNOTATIONS =
      "'annotations': ["
          + "{'id': 1, 'image_id': 7, 'segmentation': [[0, 0, 2, 0, 2, 2, 0, 2]]},"
          + "{'id': 2, 'image_id': 7, 'segmentation': {'size': [4, 6], 'counts': [20, 4]}},"
          + "{'id': 3, 'image_id': 7, 'segmentation': {'size': [4, 6], 'counts': '84<'}},"
          + "{'id': 4, 'image_id': 7, 'segmentation': {'size': [6, 4], 'counts': [20, 4]}},"
          + "{'id': 5, 'image_id': 8, 'segmentation': {'size': [8, 8], 'counts': [64]}},"
          + "{'id': 6, 'image_id': 7, 'segmentation': [[0, 0, 2, 0]]}]";

  @TempDir Path dir;

  private static String json(String text) {
    return text.replace('\'', '"');
  }

  private static String ref(int id, int image, String split, String annIds, String more) {
    return "{'ref_id': %d, 'image_id': %d, 'split': '%s', 'ann_id': %s, %s}"
        .formatted(id, image, split, annIds, more);
  }

  private void write(String... refs) throws Exception {
    Files.createDirectories(dir.resolve("images"));
    Files.write(dir.resolve("images/a.png"), Images.encodePng(ImagesTest.noise(4, 6, 1)));
    Files.write(dir.resolve("images/b.jpg"), Images.encodeJpeg(ImagesTest.noise(8, 8, 2)));
    Files.writeString(
        dir.resolve("instances.json"),
        json("{'info': {'x': [1]}, " + IMAGES + ", " + ANNOTATIONS + ", 'categories': []}"));
    Files.writeString(dir.resolve("grefs(unc).json"), json("[" + String.join(",\n", refs) + "]"));
  }

  /**
   * Fails naming {@code words}; with skipping, only the good record stays and one skip is listed.
   */
  private void assertBadRef(String bad, String... words) throws Exception {
    write(ref(0, 7, "train", "[1]", SENTENCE), bad);
    assertDamage(words);
  }

  private void assertDamage(String... words) {
    InputException e = assertThrows(InputException.class, () -> Dataset.open(dir, "train", false));
    assertEquals(1, e.getMessage().lines().count());
    Dataset rest = Dataset.open(dir, "train", true);
    assertEquals(1, rest.skipped().size(), rest.skipped().toString());
    for (String word : words) {
      assertTrue(e.getMessage().contains(word), word + " in: " + e.getMessage());
      assertTrue(rest.skipped().get(0).contains(word), word + " in: " + rest.skipped());
    }
    assertEquals(1, rest.size());
    rest.samples().get(0).mask();
    rest.samples().get(0).picture().read();
    DataCheck.Report report = DataCheck.run(dir);
    assertFalse(report.ok());
    assertEquals(1, report.problems().size());
    assertTrue(report.text().contains(words[0]), report.text());
  }

  @Test
  void readsAllKindsOfMasksAndRecords() throws Exception {
    write(
        ref(10, 7, "train", "[1]", SENTENCE),
        ref(11, 7, "train", "[2, 1]", "'no_target': false, " + SENTENCE),
        ref(12, 7, "val", "[-1]", "'no_target': true, " + SENTENCE),
        ref(13, 7, "val", "[3]", "'sentences': [{'sent': 'one'}, {'raw': 'two three'}]"));
    Dataset train = Dataset.open(dir, "train", false);
    assertEquals(2, train.size());
    assertEquals(1, train.pictures().size());
    Sample single = train.samples().get(0);
    assertEquals(Sample.Kind.SINGLE, single.kind());
    assertEquals("the cup", single.phrase());
    assertEquals(10, single.refId());
    assertEquals(7, single.imageId());
    byte[] corner = {1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    assertArrayEquals(corner, single.mask().data());
    Sample multi = train.samples().get(1);
    assertEquals(Sample.Kind.MULTI, multi.kind());
    byte[] both = corner.clone();
    for (int y = 0; y < 4; y++) {
      both[6 * y + 5] = 1; // the last column: run of 20 zeros, then 4 ones
    }
    assertArrayEquals(both, multi.mask().data());
    assertEquals(ImagesTest.noise(4, 6, 1), multi.picture().read());
    Dataset val = Dataset.open(dir, "val", false);
    assertEquals(3, val.size());
    assertTrue(val.samples().get(0).noTarget());
    assertEquals(0, val.samples().get(0).mask().area());
    assertEquals("two three", val.samples().get(2).phrase());
    assertEquals(4, val.samples().get(2).mask().area());
    assertEquals(5, Dataset.open(dir, "all", false).size());
    DataCheck.Report report = DataCheck.run(dir);
    assertTrue(report.ok(), report.text());
    assertEquals(new DataCheck.Split("train", 1, 2, 1, 1, 0, 0, 2, 2.0, 2), report.splits().get(0));
    assertEquals(
        new DataCheck.Split("val", 1, 3, 2, 0, 1, 0, 1, 5 / 3.0, 2), report.splits().get(1));
  }

  @Test
  void damagedRecordsAreNamed() throws Exception {
    String where = "grefs(unc).json: record 1 (ref_id 1)";
    assertBadRef(ref(1, 7, "train", "[99]", SENTENCE), where, "99");
    assertBadRef(ref(1, 70, "train", "[1]", SENTENCE), where, "image id 70");
    assertBadRef(ref(1, 7, "train", "[4]", SENTENCE), where, "mask is 4x6, its picture 6x4");
    assertBadRef(ref(1, 7, "train", "[5]", SENTENCE), where, "belongs to image 8");
    assertBadRef(ref(1, 7, "train", "[6]", SENTENCE), where, "polygon of 4 coordinates");
    assertBadRef(ref(1, 7, "train", "[-1, 1]", SENTENCE), where, "no target, yet it has a mask");
    String none = "'no_target': true, " + SENTENCE;
    assertBadRef(ref(1, 7, "train", "[1]", none), where, "no target, yet it has a mask");
    String some = "'no_target': false, " + SENTENCE;
    assertBadRef(ref(1, 7, "train", "[-1]", some), where, "no_target is false");
    assertBadRef(ref(1, 7, "train", "[]", SENTENCE), where, "ann_id");
    assertBadRef(ref(1, 7, "train", "[1, 1]", SENTENCE), where, "twice");
    String empty = "'sentences': [{'sent': ' ', 'raw': ''}]";
    assertBadRef(ref(1, 7, "train", "[1]", empty), where, "empty phrase");
    assertBadRef(ref(1, 7, "train", "[1]", "'sentences': []"), where, "no sentences");
    assertBadRef("{'split': 'train', 'ref_id': 1, 'ann_id': [1], " + SENTENCE + "}", where);
    assertBadRef("{'ref_id': 1, 'image_id': 7, 'ann_id': [1]}", "record 1", "split");
  }

  @Test
  void damagedPicturesAreNamed() throws Exception {
    String bad = ref(1, 8, "train", "[5]", SENTENCE);
    String good = ref(0, 7, "train", "[1]", SENTENCE);
    write(good, bad);
    Path jpeg = dir.resolve("images/b.jpg");
    byte[] whole = Files.readAllBytes(jpeg);
    Files.delete(jpeg);
    assertDamage("b.jpg", "record 1");
    Files.write(jpeg, Images.encodeJpeg(ImagesTest.noise(8, 9, 2)));
    assertDamage("b.jpg", "record 1", "picture is 9x8");
    Files.write(jpeg, new byte[0]);
    assertDamage("b.jpg", "record 1");
    Files.write(jpeg, Arrays.copyOf(whole, 20));
    assertDamage("b.jpg", "record 1", "cut off");
    // A cut behind the header is seen when the picture is read, or on opening with skipBad.
    Files.write(jpeg, Arrays.copyOf(whole, whole.length - 30));
    Dataset dataset = Dataset.open(dir, "train", false);
    InputException e =
        assertThrows(InputException.class, () -> dataset.samples().get(1).picture().read());
    assertTrue(e.getMessage().contains("b.jpg") && e.getMessage().contains("cut off"));
    Dataset rest = Dataset.open(dir, "train", true);
    assertEquals(1, rest.size());
    assertTrue(rest.skipped().get(0).contains("b.jpg"));
    assertFalse(DataCheck.run(dir).ok());
    String escaping = IMAGES.replace("b.jpg", "../images/../../b.jpg");
    Files.writeString(
        dir.resolve("instances.json"), json("{" + escaping + ", " + ANNOTATIONS + "}"));
    assertDamage("record 1", "leads out");
  }

  @Test
  void missingAndCutFilesAlwaysFail() throws Exception {
    for (boolean skip : new boolean[] {false, true}) {
      assertFails(dir.resolve("nowhere"), "train", skip, "no such data folder");
      assertFails(Files.createDirectories(dir.resolve("empty" + skip)), "train", skip, "is empty");
      write(ref(0, 7, "train", "[1]", SENTENCE));
      assertFails(dir, "test", skip, "train (1)");
      for (String name : List.of("grefs(unc).json", "instances.json")) {
        Path file = dir.resolve(name);
        byte[] whole = Files.readAllBytes(file);
        for (int length : new int[] {0, 1, whole.length / 2, whole.length - 1}) {
          Files.write(file, Arrays.copyOf(whole, length));
          assertFails(dir, "train", skip, name);
        }
        Files.write(file, whole);
      }
      Files.delete(dir.resolve("instances.json"));
      assertFails(dir, "train", skip, "instances.json");
    }
  }

  private static void assertFails(Path dir, String split, boolean skip, String word) {
    InputException e = assertThrows(InputException.class, () -> Dataset.open(dir, split, skip));
    assertTrue(e.getMessage().contains(word), e.getMessage());
    assertEquals(1, e.getMessage().lines().count());
  }

  private static byte[] npy(String type, boolean fortran, int h, int w, byte[] data) {
    String header =
        "{'descr': '%s', 'fortran_order': %s, 'shape': (%d, %d), }"
            .formatted(type, fortran ? "True" : "False", h, w);
    header += " ".repeat(63 - (10 + header.length()) % 64) + "\n";
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    out.writeBytes(new byte[] {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0});
    out.write(header.length() & 0xff);
    out.write(header.length() >> 8);
    out.writeBytes(header.getBytes(StandardCharsets.ISO_8859_1));
    out.writeBytes(data);
    return out.toByteArray();
  }

  private void writeGuide(String second) throws Exception {
    Files.createDirectories(dir.resolve("images"));
    Files.createDirectories(dir.resolve("masks"));
    Files.write(dir.resolve("images/a.png"), Images.encodePng(ImagesTest.noise(2, 3, 1)));
    Files.write(dir.resolve("masks/a.npy"), npy("|u1", false, 2, 3, new byte[] {0, 1, 0, 0, 0, 9}));
    Files.write(dir.resolve("masks/zero.npy"), npy("|b1", false, 2, 3, new byte[6]));
    Files.write(dir.resolve("masks/t.npy"), npy("|b1", false, 3, 2, new byte[6]));
    Files.write(dir.resolve("masks/cut.npy"), npy("|b1", false, 2, 3, new byte[5]));
    ByteBuffer floats = ByteBuffer.allocate(24).order(ByteOrder.LITTLE_ENDIAN);
    for (float f : new float[] {1, 0.2f, 0, 0.7f, 0, 0}) { // column-major
      floats.putFloat(f);
    }
    Files.write(dir.resolve("masks/f.npy"), npy("<f4", true, 2, 3, floats.array()));
    Files.writeString(
        dir.resolve("annotations.json"),
        json(
            "[{'image': 'a.png', 'mask': 'a.npy', 'expression': 'x', 'is_negative': false}, "
                + second
                + "]"));
  }

  @Test
  void readsTheGuidesLayout() throws Exception {
    writeGuide(
        "{'image': 'images/a.png', 'mask': 'masks/f.npy', 'expression': 'y', 'is_negative': 0},"
            + "{'image': 'a.png', 'mask': ['a.npy', 'f.npy'], 'expression': 'z',"
            + " 'is_negative': false, 'split': 'val'},"
            + "{'image': 'a.png', 'mask': 'zero.npy', 'expression': 'n', 'is_negative': true},"
            + "{'image': 'a.png', 'mask': null, 'expression': 'm', 'is_negative': true}");
    Dataset train = Dataset.open(dir, "train", false);
    assertEquals(4, train.size());
    assertEquals(1, train.pictures().size());
    assertArrayEquals(new byte[] {0, 1, 0, 0, 0, 1}, train.samples().get(0).mask().data());
    assertArrayEquals(new byte[] {1, 0, 0, 0, 1, 0}, train.samples().get(1).mask().data());
    assertTrue(train.samples().get(2).noTarget());
    assertEquals(0, train.samples().get(3).mask().area());
    Sample both = Dataset.open(dir, "val", false).samples().get(0);
    assertEquals(Sample.Kind.MULTI, both.kind());
    assertArrayEquals(new byte[] {1, 1, 0, 0, 1, 1}, both.mask().data());
  }

  @Test
  void damageInTheGuidesLayoutIsNamed() throws Exception {
    String where = "annotations.json: record 1";
    String[][] cases = {
      {"'mask': 'a.npy', 'expression': 'y', 'is_negative': true", "no target, yet it has a mask"},
      {"'mask': 't.npy', 'expression': 'y', 'is_negative': false", "mask is 2x3, its picture 3x2"},
      {"'mask': 'gone.npy', 'expression': 'y', 'is_negative': false", "gone.npy"},
      {"'mask': 'a.npy', 'expression': ' ', 'is_negative': false", "empty phrase"},
      {"'mask': null, 'expression': 'y', 'is_negative': false", "no mask"},
      {"'mask': '../../x.npy', 'expression': 'y', 'is_negative': false", "leads out"},
      {"'mask': 'a.npy', 'expression': 'y'", "is_negative"},
    };
    for (String[] c : cases) {
      writeGuide("{'image': 'a.png', " + c[0] + "}");
      assertDamage(where, c[1]);
    }
    writeGuide("{'image': 'b.png', 'mask': 'a.npy', 'expression': 'y', 'is_negative': false}");
    assertDamage(where, "b.png");
    writeGuide("{'image': 'a.png', 'mask': 'cut.npy', 'expression': 'y', 'is_negative': false}");
    Sample cut = Dataset.open(dir, "train", false).samples().get(1);
    assertTrue(assertThrows(InputException.class, cut::mask).getMessage().contains("cut.npy"));
    assertEquals(1, Dataset.open(dir, "train", true).skipped().size());
  }
}
