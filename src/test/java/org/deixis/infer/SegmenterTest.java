package org.deixis.infer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.core.InputException;
import org.deixis.core.Rng;
import org.deixis.data.Images;
import org.deixis.data.RgbImage;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.model.GoldenModels;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.swin.SwinConfig;
import org.deixis.model.swin.WindowRule;
import org.deixis.nn.ParameterSource;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class SegmenterTest {
  private static final List<String> PHRASES =
      List.of("the red circle", "all squares", "everything except the blue triangle");

  @TempDir Path temp;

  static Stream<String> backends() {
    return GoldenModels.backends();
  }

  private static GresConfig config(int vocab, int padId) {
    return new GresConfig(
        32,
        32,
        new SwinConfig(8, List.of(1, 1, 1, 1), List.of(1, 1, 2, 4), 4, WindowRule.SHRINK, 0, false),
        new TextConfig(TextConfig.Kind.BERT, vocab, 16, 1, 2, 32, 32, 2, padId, 1e-12, 0),
        16,
        8,
        4,
        false,
        2,
        2,
        List.of(0, 1, 2),
        4,
        20,
        false);
  }

  private Path folder(Backend backend, long seed) {
    Path folder = temp.resolve("model");
    try (TextTokenizer tokenizer = SceneMaker.tokenizer(SceneMaker.SIMPLE);
        GuideModel model =
            new GuideModel(
                ParameterSource.fresh(backend, seed),
                config(tokenizer.vocabSize(), tokenizer.padId()))) {
      ModelFolder.save(folder, model, tokenizer);
    }
    return folder;
  }

  private static RgbImage picture(int height, int width) {
    byte[] data = new byte[3 * height * width];
    Rng rng = new Rng(9);
    for (int i = 0; i < data.length; i++) {
      data[i] = (byte) rng.nextInt(256);
    }
    return new RgbImage(height, width, data);
  }

  @ParameterizedTest
  @MethodSource("backends")
  void answersForEveryPhraseAtThePicturesSize(String device) throws IOException {
    Backend backend = TestBackends.get(device);
    long before = backend.memory().stats().live();
    Path folder = folder(backend, 1);
    Path file = temp.resolve("picture.png");
    Files.write(file, Images.encodePng(picture(50, 70)));
    try (Segmenter segmenter = Segmenter.open(folder, device)) {
      List<Segmentation> found = segmenter.segment(file, PHRASES);
      assertEquals(3, found.size());
      for (int i = 0; i < 3; i++) {
        Segmentation s = found.get(i);
        assertEquals(PHRASES.get(i), s.phrase());
        assertEquals(50, s.mask().height());
        assertEquals(70, s.mask().width());
        assertEquals(4, s.regions().size());
        assertEquals(2, s.regionRows());
        assertEquals(s.noTarget() >= 0.5, s.saysNoTarget());
        assertEquals(s.mask().boundingBox(), s.box());
        Segmentation alone = segmenter.segment(Files.readAllBytes(file), PHRASES.get(i));
        assertEquals(s.noTarget(), alone.noTarget(), 1e-5, "alone or among others");
      }
    }
    assertEquals(before, backend.memory().stats().live());
  }

  @Test
  void theThresholdDecidesWhetherThereIsATarget() {
    Backend backend = Backends.get("reference");
    Path folder = folder(backend, 1);
    try (Segmenter never = Segmenter.open(folder, "reference", 1);
        Segmenter always = Segmenter.open(folder, "reference", 0)) {
      RgbImage picture = picture(32, 32);
      Segmentation there = never.segment(picture, PHRASES).get(0);
      Segmentation none = always.segment(picture, PHRASES).get(0);
      assertFalse(there.saysNoTarget());
      assertSame(there.evidence(), there.mask());
      assertTrue(none.saysNoTarget());
      assertEquals(0, none.mask().area());
      assertNull(none.box());
      assertEquals(there.mask(), none.evidence());
      assertTrue(there.mask().area() > 0, "the test needs a model that draws something");
    }
    assertThrows(InputException.class, () -> Segmenter.open(folder, "reference", 1.5));
  }

  @ParameterizedTest
  @MethodSource("backends")
  void threadsGetTheSameMasks(String device) throws Exception {
    Backend backend = TestBackends.get(device);
    Path folder = folder(backend, 2);
    ExecutorService threads = Executors.newFixedThreadPool(8);
    try (Segmenter segmenter = Segmenter.open(folder, device, 1)) {
      RgbImage picture = picture(40, 40);
      List<Segmentation> expected = segmenter.segment(picture, PHRASES);
      long before = backend.memory().stats().live();
      List<Future<List<Segmentation>>> calls = new ArrayList<>();
      int count = device.equals("cpu") ? 500 : 40; // the oracle is slow
      for (int i = 0; i < count; i++) {
        calls.add(threads.submit(() -> segmenter.segment(picture, PHRASES)));
      }
      for (Future<List<Segmentation>> call : calls) {
        assertEquals(expected, call.get());
      }
      assertEquals(before, backend.memory().stats().live());
    } finally {
      threads.shutdownNow();
    }
  }

  @Test
  void aClosedSegmenterSaysSo() {
    Segmenter segmenter = Segmenter.open(folder(Backends.get("reference"), 1), "reference");
    segmenter.close();
    segmenter.close();
    assertThrows(IllegalStateException.class, () -> segmenter.segment(picture(32, 32), PHRASES));
  }

  @Test
  void badInputIsOneLine() {
    Backend backend = Backends.get("reference");
    Path folder = folder(backend, 1);
    try (Segmenter segmenter = Segmenter.open(folder, "reference")) {
      refused("empty phrase", () -> segmenter.segment(picture(8, 8), List.of(" ")));
      refused("picture", () -> segmenter.segment(new byte[] {1, 2, 3}, "the circle"));
      assertTrue(segmenter.segment(picture(1, 1), List.of()).isEmpty());
      assertEquals(1, segmenter.segment(picture(1, 1), List.of("circle")).get(0).mask().height());
      String longest = "red ".repeat(10_000);
      assertEquals(1, segmenter.segment(picture(8, 8), List.of(longest)).size());
    }
    refused("unknown device 'gpu'", () -> Segmenter.open(folder, "gpu"));
    refused("no config.json", () -> Segmenter.open(temp, "reference"));
  }

  @Test
  void foldersAppearWholeOrNotAtAll() throws IOException {
    Backend backend = Backends.get("reference");
    long before = backend.memory().stats().live();
    Path folder = folder(backend, 1);
    byte[] first = Files.readAllBytes(folder.resolve(ModelFolder.WEIGHTS));
    folder(backend, 2);
    assertFalse(
        java.util.Arrays.equals(first, Files.readAllBytes(folder.resolve(ModelFolder.WEIGHTS))));
    try (Stream<Path> files = Files.list(temp)) {
      assertEquals(List.of(folder), files.toList(), "nothing temporary is left");
    }
    try (ModelFolder loaded = ModelFolder.load(folder, backend);
        GuideModel same =
            new GuideModel(ParameterSource.fresh(backend, 2), loaded.model().config())) {
      same.parameters()
          .forEach(
              (name, p) ->
                  org.junit.jupiter.api.Assertions.assertArrayEquals(
                      p.toFloats(), loaded.model().parameters().get(name).toFloats(), name));
      Path occupied = Files.createDirectory(temp.resolve("photos"));
      Files.writeString(occupied.resolve("cat.txt"), "not a model");
      refused(
          "something other than a model",
          () -> ModelFolder.save(occupied, loaded.model(), loaded.tokenizer()));
      assertTrue(Files.exists(occupied.resolve("cat.txt")));
    }
    byte[] weights = Files.readAllBytes(folder.resolve(ModelFolder.WEIGHTS));
    Files.write(
        folder.resolve(ModelFolder.WEIGHTS),
        java.util.Arrays.copyOf(weights, weights.length - 100));
    refused(ModelFolder.WEIGHTS, () -> ModelFolder.load(folder, backend));
    Files.write(folder.resolve(ModelFolder.WEIGHTS), weights);
    String json = Files.readString(folder.resolve(ModelFolder.CONFIG));
    Files.writeString(
        folder.resolve(ModelFolder.CONFIG),
        json.replace("\"layers\" : 2,\n  \"heads\"", "\"layers\" : 3,\n  \"heads\""));
    refused(
        "has no parameter ria.2.region_queries (1, 4, 16)",
        () -> ModelFolder.load(folder, backend));
    Files.writeString(
        folder.resolve(ModelFolder.CONFIG), json.replace("\"maskDim\" : 8", "\"maskDim\" : 12"));
    refused(
        "mask_conv.weight has the shape (8, 16, 3, 3), but the config asks for (12, 16, 3, 3)",
        () -> ModelFolder.load(folder, backend));
    Files.writeString(
        folder.resolve(ModelFolder.CONFIG), json.replaceAll("\"vocab\" : \\d+", "\"vocab\" : 7"));
    refused("the tokenizer has", () -> ModelFolder.load(folder, backend));
    assertEquals(before, backend.memory().stats().live(), "failed loads give their memory back");
  }

  private static void refused(String part, Runnable body) {
    InputException e = assertThrows(InputException.class, body::run);
    assertTrue(e.getMessage().contains(part), e.getMessage());
    assertEquals(1, e.getMessage().lines().count(), e.getMessage());
  }
}
