package org.deixis.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.Set;
import java.util.stream.Collectors;
import org.deixis.core.InputException;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DataLoaderTest {
  private static final AugmentConfig ALL = new AugmentConfig(0.5, 0.2, 0.2, 0.2, 0.01, 0.7, 0.5);
  private static TextTokenizer tokenizer;
  private static Dataset scenes;

  @TempDir Path dir;

  @BeforeAll
  static void open() {
    tokenizer = SceneMaker.tokenizer(SceneMaker.FULL);
    scenes = SceneMaker.dataset(new SceneMaker.Spec("full", 48, 11, 0, 7, 9), "train");
  }

  @AfterAll
  static void close() {
    tokenizer.close();
  }

  private static LoaderConfig config() {
    return LoaderConfig.training(32, 3, 4, 24, 5).withThreads(1, 1);
  }

  private static List<Batch> take(DataLoader loader, int n) {
    List<Batch> batches = new ArrayList<>();
    for (int i = 0; i < n; i++) {
      batches.add(loader.next());
    }
    return batches;
  }

  private static void assertSameBatch(Batch a, Batch b) {
    assertEquals(a.images(), b.images());
    assertEquals(a.tokens(), b.tokens());
    assertArrayEquals(a.pixels(), b.pixels());
    assertArrayEquals(a.ids(), b.ids());
    assertArrayEquals(a.textMask(), b.textMask());
    assertArrayEquals(a.masks(), b.masks());
    assertArrayEquals(a.isNegative(), b.isNegative());
    assertArrayEquals(a.samples(), b.samples());
    assertEquals(a.complexity(), b.complexity());
  }

  @Test
  void theOrderDoesNotDependOnTheThreads() {
    LoaderConfig config = config().withAugment(ALL);
    try (DataLoader one = new DataLoader(scenes, tokenizer, config.withThreads(1, 1));
        DataLoader four = new DataLoader(scenes, tokenizer, config.withThreads(4, 9));
        DataLoader uncached =
            new DataLoader(scenes, tokenizer, config.withThreads(4, 3).withCacheBytes(7000))) {
      for (int i = 0; i < 3 * one.batchesPerEpoch(); i++) {
        Batch expected = one.next();
        Batch other = four.next();
        assertSameBatch(expected, other);
        assertSameBatch(expected, uncached.next());
        assertEquals(one.state().epoch(), four.state().epoch());
        assertEquals(one.state().batch(), four.state().batch());
        four.recycle(other);
      }
    }
  }

  @Test
  void aRestoredLoaderGoesOnWhereTheFirstStood() {
    for (AugmentConfig augment : List.of(AugmentConfig.none(), ALL)) {
      LoaderConfig config = config().withAugment(augment);
      try (DataLoader first = new DataLoader(scenes, tokenizer, config)) {
        for (int done = 0; done < 2 * first.batchesPerEpoch() + 1; done++) {
          DataLoader.State state = first.state();
          try (DataLoader second = new DataLoader(scenes, tokenizer, config.withThreads(2, 4))) {
            second.next();
            second.restore(state);
            Batch expected = first.next();
            assertSameBatch(expected, second.next());
            assertEquals(first.epoch(), second.epoch());
            assertEquals(first.batchInEpoch(), second.batchInEpoch());
          }
        }
      }
    }
  }

  @Test
  void anEpochHoldsEveryExpression() {
    LoaderConfig config = LoaderConfig.training(16, 1, 4, 24, 5).withThreads(2, 4);
    try (DataLoader loader = new DataLoader(scenes, tokenizer, config)) {
      assertEquals(11 * 2, loader.batchesPerEpoch());
      List<List<Sample>> orders = new ArrayList<>();
      for (int epoch = 0; epoch < 2; epoch++) {
        List<Sample> order = new ArrayList<>();
        for (Batch batch : take(loader, loader.batchesPerEpoch())) {
          assertEquals(4, batch.expressions());
          assertEquals(4, new HashSet<>(List.of(batch.samples())).size(), "repetition");
          for (Sample sample : batch.samples()) {
            assertSame(batch.samples()[0].picture(), sample.picture());
          }
          order.addAll(List.of(batch.samples()));
        }
        assertEquals(new HashSet<>(scenes.samples()), new HashSet<>(order));
        orders.add(order);
        assertEquals(epoch, loader.epoch());
      }
      assertFalse(orders.get(0).equals(orders.get(1)), "not shuffled anew");
    }
  }

  @Test
  void evaluationGoesThroughEveryExpressionOnce() {
    LoaderConfig config = LoaderConfig.evaluation(16, 4, 3, 24);
    try (DataLoader loader = new DataLoader(scenes, tokenizer, config)) {
      Map<Sample, Integer> seen = new IdentityHashMap<>();
      int batches = 0;
      while (loader.hasNext()) {
        Batch batch = loader.next();
        assertEquals(0, batch.expressions() % batch.images());
        for (int b = 0; b < batch.expressions(); b++) {
          assertEquals(b / batch.expressionsPerImage(), batch.imageIndex()[b]);
          seen.merge(batch.samples()[b], 1, Integer::sum);
        }
        batches++;
      }
      assertEquals(loader.batchesPerEpoch(), batches);
      assertEquals(scenes.size(), seen.size());
      assertTrue(seen.values().stream().allMatch(n -> n == 1));
      assertThrows(NoSuchElementException.class, loader::next);
    }
  }

  @Test
  void aBatchHoldsWhatItsSamplesSay() {
    LoaderConfig config = config().withThreads(2, 2);
    try (DataLoader loader = new DataLoader(scenes, tokenizer, config)) {
      for (Batch batch : take(loader, 4)) {
        assertEquals(3, batch.images());
        assertEquals(12, batch.expressions());
        int longest = 0;
        double complexity = 0;
        for (int b = 0; b < 12; b++) {
          Sample sample = batch.samples()[b];
          assertEquals(sample.mask().resize(32, 32), batch.mask(b));
          assertEquals(sample.noTarget() ? 1f : 0f, batch.isNegative()[b]);
          assertEquals(
              Images.resize(sample.picture().read(), 32, 32), batch.image(batch.imageIndex()[b]));
          int[] ids = tokenizer.encode(sample.phrase(), 24);
          longest = Math.max(longest, ids.length);
          for (int t = 0; t < batch.tokens(); t++) {
            int at = b * batch.tokens() + t;
            assertEquals(t < ids.length ? ids[t] : tokenizer.padId(), batch.ids()[at]);
            assertEquals(t < ids.length ? 1 : 0, batch.textMask()[at]);
          }
          complexity += Complexity.of(batch.image(batch.imageIndex()[b])) / 12;
        }
        assertEquals(longest, batch.tokens());
        assertEquals(complexity, batch.complexity(), 1e-6);
      }
    }
    try (DataLoader loader = new DataLoader(scenes, tokenizer, config.withPadToMax(true))) {
      assertEquals(24, loader.next().tokens());
    }
  }

  @Test
  void aFlipMirrorsPictureMasksAndPhrases() {
    LoaderConfig config = config().withAugment(new AugmentConfig(1, 0, 0, 0, 0, 0, 1));
    boolean swapped = false;
    try (DataLoader loader = new DataLoader(scenes, tokenizer, config)) {
      for (Batch batch : take(loader, 6)) {
        for (int b = 0; b < batch.expressions(); b++) {
          Sample s = batch.samples()[b];
          assertEquals(s.mask().resize(32, 32).flipHorizontally(), batch.mask(b));
          assertEquals(
              Images.resize(s.picture().read(), 32, 32).flipHorizontally(),
              batch.image(batch.imageIndex()[b]));
          int[] ids = tokenizer.encode(PhraseFlip.flip(s.phrase()), 24);
          int from = b * batch.tokens();
          assertArrayEquals(ids, Arrays.copyOfRange(batch.ids(), from, from + ids.length));
          swapped |= !PhraseFlip.flip(s.phrase()).equals(s.phrase());
        }
      }
    }
    assertTrue(swapped, "no phrase with a side among the samples");
  }

  @Test
  void croppedTargetsStayInside() {
    LoaderConfig config =
        LoaderConfig.training(96, 3, 4, 24, 5)
            .withAugment(new AugmentConfig(0, 0, 0, 0, 0, 1, 0.4));
    try (DataLoader loader = new DataLoader(scenes, tokenizer, config)) {
      for (Batch batch : take(loader, 10)) {
        for (int b = 0; b < batch.expressions(); b++) {
          // Enlarged or as large, never cut: the share of the picture can only grow.
          double before = batch.samples()[b].mask().area() / (48.0 * 48);
          double after = batch.mask(b).area() / (96.0 * 96);
          assertTrue(after >= 0.97 * before, before + " to " + after);
        }
      }
    }
  }

  @Test
  void weightsDrawHardSamplesMoreOftenAndSurviveAResumption() {
    LoaderConfig config = LoaderConfig.training(16, 2, 2, 24, 5).withThreads(2, 4);
    SampleWeights weights = new SampleWeights(scenes);
    Sample hard = scenes.samples().get(10);
    try (DataLoader loader = new DataLoader(scenes, tokenizer, config, weights)) {
      assertNull(loader.state().weights());
      weights.set(hard, 20);
      Map<Sample, Integer> counts = new HashMap<>();
      int epochs = 20;
      for (Batch batch : take(loader, epochs * loader.batchesPerEpoch())) {
        Arrays.stream(batch.samples()).forEach(s -> counts.merge(s, 1, Integer::sum));
      }
      double others =
          counts.entrySet().stream()
              .filter(e -> e.getKey() != hard)
              .collect(Collectors.averagingDouble(Map.Entry::getValue));
      assertTrue(counts.get(hard) > 5 * others, counts.get(hard) + " against " + others);
      take(loader, 1);
      DataLoader.State state = loader.state();
      assertNotNull(state.weights());
      weights.set(scenes.samples().get(3), 7); // counts from the next epoch on
      SampleWeights saved = new SampleWeights(scenes);
      saved.restore(weights.values());
      try (DataLoader resumed = new DataLoader(scenes, tokenizer, config, saved)) {
        resumed.restore(state);
        for (int i = 0; i < loader.batchesPerEpoch() + 2; i++) {
          assertSameBatch(loader.next(), resumed.next());
        }
      }
    }
    assertThrows(InputException.class, () -> weights.restore(new double[3]));
    assertThrows(IllegalArgumentException.class, () -> weights.set(hard, Double.NaN));
  }

  @Test
  void weightsChangedUnderWayDoNotDependOnReadingAhead() {
    LoaderConfig config = LoaderConfig.training(16, 2, 2, 24, 5);
    SampleWeights[] weights = {new SampleWeights(scenes), new SampleWeights(scenes)};
    try (DataLoader one = new DataLoader(scenes, tokenizer, config.withThreads(1, 1), weights[0]);
        DataLoader ahead =
            new DataLoader(scenes, tokenizer, config.withThreads(3, 9), weights[1])) {
      for (int i = 0; i < 3 * one.batchesPerEpoch() + 1; i++) {
        Batch batch = one.next();
        assertSameBatch(batch, ahead.next());
        assertArrayEquals(one.state().weights(), ahead.state().weights());
        for (SampleWeights w : weights) {
          w.set(batch.samples()[0], 1 + i);
        }
      }
    }
  }

  @Test
  void fewPicturesStillFillABatch() {
    Dataset two = SceneMaker.dataset(new SceneMaker.Spec("full", 32, 2, 0, 1, 9), "train");
    try (DataLoader loader = new DataLoader(two, tokenizer, config())) {
      assertEquals(1, loader.batchesPerEpoch());
      Batch batch = loader.next();
      assertEquals(3, batch.images());
      assertEquals(12, batch.expressions());
      Set<Sample> seen = new HashSet<>(List.of(batch.samples()));
      assertEquals(2, seen.size());
    }
  }

  @Test
  void onePixelAndLargePicturesLoad() throws Exception {
    Files.createDirectories(dir.resolve("images"));
    Files.write(dir.resolve("images/one.png"), Images.encodePng(ImagesTest.noise(1, 1, 1)));
    Files.write(
        dir.resolve("images/large.jpg"),
        Images.encodeJpeg(new RgbImage(3000, 4000, new byte[36_000_000])));
    Files.writeString(
        dir.resolve("annotations.json"),
        """
        [{"image": "one.png", "expression": "the red circle", "is_negative": true},
         {"image": "large.jpg", "expression": "all squares", "is_negative": true}]
        """);
    Dataset dataset = Dataset.open(dir, "train", false);
    try (DataLoader loader =
        new DataLoader(dataset, tokenizer, LoaderConfig.evaluation(32, 2, 1, 24))) {
      Batch batch = loader.next();
      assertEquals(2, batch.images());
      assertEquals(ImagesTest.noise(1, 1, 1).data()[0], batch.image(0).data()[3 * 500]);
    }
  }

  @Test
  void damageInAWorkerReachesTheCaller() throws Exception {
    SceneMaker.Spec spec = new SceneMaker.Spec("full", 48, 4, 0, 2, 1);
    Path folder = dir.resolve("scenes");
    SceneMaker.write(folder, spec);
    Path victim = folder.resolve("images/scene_train_000002.png");
    byte[] whole = Files.readAllBytes(victim);
    Files.write(victim, Arrays.copyOf(whole, whole.length / 2));
    Dataset dataset = Dataset.open(folder, "train", false);
    DataLoader loader =
        new DataLoader(dataset, tokenizer, LoaderConfig.evaluation(48, 1, 2, 24).withThreads(3, 4));
    loader.next();
    loader.next();
    InputException e = assertThrows(InputException.class, loader::next);
    assertTrue(e.getMessage().contains("scene_train_000002.png"), e.getMessage());
    assertFalse(loader.hasNext());
    assertThrows(IllegalStateException.class, loader::next);
    Dataset rest = Dataset.open(folder, "train", true);
    assertEquals(6, rest.size());
    assertEquals(2, rest.skipped().size());
  }

  @Test
  void impossibleConfigurationsAreRefused() {
    InputException e =
        assertThrows(InputException.class, () -> LoaderConfig.training(1024, 512, 64, 20, 0));
    assertTrue(e.getMessage().contains("MB"), e.getMessage());
    assertThrows(InputException.class, () -> LoaderConfig.training(0, 1, 1, 20, 0));
    try (DataLoader loader = new DataLoader(scenes, tokenizer, config())) {
      assertThrows(
          InputException.class, () -> loader.restore(new DataLoader.State(0, 10_000, null)));
      assertThrows(
          InputException.class, () -> loader.restore(new DataLoader.State(0, 0, new double[2])));
    }
  }
}
