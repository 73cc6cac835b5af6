package org.deixis.infer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.deixis.backend.Backend;
import org.deixis.backend.Memory;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.data.RgbImage;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.swin.SwinConfig;
import org.deixis.model.swin.WindowRule;
import org.deixis.nn.ParameterSource;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Answers from captured graphs against the same answers computed call by call. */
abstract class CudaSegmenter {
  private static final String GRAPHS = "deixis.graphs";

  /** Requests of three shapes: phrases, and their tokens, differ in number. */
  private static final List<List<String>> REQUESTS =
      List.of(
          List.of("the red circle"),
          List.of("all squares", "everything except the blue triangle"),
          List.of("the purple dog", "all circles", "the red square to the left of the circle"));

  private static TextTokenizer tokenizer;

  abstract Backend cuda();

  @BeforeAll
  static void open() {
    tokenizer = SceneMaker.tokenizer(SceneMaker.SIMPLE);
  }

  @AfterAll
  static void close() {
    tokenizer.close();
  }

  @AfterEach
  void defaults() {
    System.clearProperty(GRAPHS);
  }

  private GuideModel model(boolean adaptive, DType dtype) {
    GresConfig config =
        new GresConfig(
            32,
            32,
            new SwinConfig(
                8, List.of(1, 1, 1, 1), List.of(1, 1, 2, 4), 4, WindowRule.SHRINK, 0, false),
            new TextConfig(
                TextConfig.Kind.BERT,
                tokenizer.vocabSize(),
                16,
                1,
                2,
                32,
                32,
                2,
                tokenizer.padId(),
                1e-12,
                0),
            16,
            8,
            4,
            adaptive,
            2,
            2,
            List.of(0, 1, 2),
            4,
            20,
            false);
    GuideModel model = new GuideModel(ParameterSource.fresh(cuda(), 7), config);
    model.freeze(dtype);
    return model;
  }

  /** Of the model's size: a machine with a card need not have OpenCV. */
  private static RgbImage picture(int seed) {
    byte[] data = new byte[3 * 32 * 32];
    Rng rng = new Rng(seed);
    for (int i = 0; i < data.length; i++) {
      // Those of odd seeds are smooth: an adaptive model takes fewer regions for them.
      data[i] = (byte) (seed % 2 == 0 ? rng.nextInt(256) : 128 + i % 3);
    }
    return new RgbImage(32, 32, data);
  }

  private Segmenter segmenter(GuideModel model, int graphs) {
    System.setProperty(GRAPHS, Integer.toString(graphs));
    return Segmenter.of(model, tokenizer, cuda(), 1);
  }

  /** Pictures and requests in turns, so that a graph's inputs change between its launches. */
  private static List<List<Segmentation>> ask(Segmenter segmenter, List<Integer> kept) {
    return ask(segmenter, kept, 12);
  }

  private static List<List<Segmentation>> ask(Segmenter segmenter, List<Integer> kept, int calls) {
    List<List<Segmentation>> answers = new ArrayList<>();
    for (int i = 0; i < calls; i++) {
      answers.add(segmenter.segment(picture(i % 5), REQUESTS.get(i % REQUESTS.size())));
      kept.add(segmenter.graphs());
    }
    return answers;
  }

  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F32", "F16", "BF16"})
  void replayedAnswersAreTheSameBitForBit(DType dtype) {
    Backend backend = cuda();
    long before = backend.memory().stats().live();
    try (GuideModel model = model(true, dtype)) {
      long loaded = backend.memory().stats().live();
      List<List<Segmentation>> plain;
      List<Integer> none = new ArrayList<>();
      try (Segmenter segmenter = segmenter(model, 0)) {
        plain = ask(segmenter, none);
      }
      assertEquals(0, none.get(11));
      assertTrue(plain.get(0).get(0).mask().area() > 0, "the model draws nothing");
      assertTrue(plain.get(0).get(0).regions().size() > 4, "one number of regions alone");
      assertEquals(4, plain.get(1).get(0).regions().size());
      List<Integer> kept = new ArrayList<>();
      long held;
      try (Segmenter segmenter = segmenter(model, 16)) {
        assertEquals(plain, ask(segmenter, kept));
        held = backend.memory().stats().live();
        assertEquals(plain, ask(segmenter, new ArrayList<>()));
        assertTrue(segmenter.graphs() > kept.get(11), "no request was captured the second time");
        long all = backend.memory().stats().live();
        assertEquals(plain, ask(segmenter, new ArrayList<>()));
        assertEquals(all, backend.memory().stats().live(), "a launch leaves memory in use");
      }
      assertTrue(held > loaded, "graphs keep their arrays");
      assertEquals(loaded, backend.memory().stats().live(), "graphs leave memory in use");
    }
    assertEquals(before, backend.memory().stats().live());
  }

  /** The picture's graph stands beside the one that is allowed. */
  @Test
  void noMoreGraphsThanAllowed() {
    try (GuideModel model = model(false, DType.F32)) {
      List<List<Segmentation>> plain;
      try (Segmenter segmenter = segmenter(model, 0)) {
        plain = ask(segmenter, new ArrayList<>());
      }
      List<Integer> kept = new ArrayList<>();
      try (Segmenter segmenter = segmenter(model, 1)) {
        assertEquals(plain, ask(segmenter, kept));
      }
      assertTrue(kept.stream().allMatch(n -> n <= 2), "graphs kept: " + kept);
      assertTrue(kept.contains(2), "graphs kept: " + kept);
    }
  }

  /** With no byte more than calls need by themselves, graphs are given up, and nothing else. */
  @Test
  void graphsMakeRoomWhenMemoryRunsOut() {
    Memory memory = cuda().memory();
    long cap = memory.stats().cap();
    try (GuideModel model = model(false, DType.F32)) {
      List<List<Segmentation>> plain;
      memory.resetPeak();
      long before = memory.stats().live();
      try (Segmenter segmenter = segmenter(model, 0)) {
        plain = ask(segmenter, new ArrayList<>());
      }
      memory.cap(memory.stats().peak());
      try (Segmenter segmenter = segmenter(model, 16)) {
        assertEquals(plain, ask(segmenter, new ArrayList<>()));
      }
      assertEquals(before, memory.stats().live());
    } finally {
      memory.cap(cap);
    }
  }

  /**
   * Weights that another type takes the place of: what was captured reads what is no longer there.
   */
  @Test
  void anotherPrecisionIsAnotherGraph() {
    try (GuideModel model = model(false, DType.F32)) {
      List<List<Segmentation>> half;
      try (Segmenter segmenter = segmenter(model, 16)) {
        ask(segmenter, new ArrayList<>());
        ask(segmenter, new ArrayList<>());
        model.precision(DType.F16);
        half = ask(segmenter, new ArrayList<>());
        half = ask(segmenter, new ArrayList<>());
      }
      try (Segmenter segmenter = segmenter(model, 0)) {
        assertEquals(ask(segmenter, new ArrayList<>()), half);
      }
    }
  }

  /** Two segmenters share the device and its graphs' memory; each answers several threads. */
  @Test
  void threadsGetTheirOwnAnswers() throws Exception {
    Backend backend = cuda();
    try (GuideModel one = model(false, DType.F32);
        GuideModel two = model(true, DType.F16)) {
      List<List<Segmentation>> expectedOfOne;
      List<List<Segmentation>> expectedOfTwo;
      try (Segmenter plain = segmenter(one, 0)) {
        expectedOfOne = ask(plain, new ArrayList<>(), 7);
      }
      try (Segmenter plain = segmenter(two, 0)) {
        expectedOfTwo = ask(plain, new ArrayList<>(), 7);
      }
      long before = backend.memory().stats().live();
      ExecutorService threads = Executors.newFixedThreadPool(8);
      try (Segmenter first = segmenter(one, 2);
          Segmenter second = segmenter(two, 16)) {
        List<Future<?>> calls = new ArrayList<>();
        for (int t = 0; t < 8; t++) {
          Segmenter segmenter = t % 2 == 0 ? first : second;
          List<List<Segmentation>> expected = t % 2 == 0 ? expectedOfOne : expectedOfTwo;
          calls.add(
              threads.submit(() -> assertEquals(expected, ask(segmenter, new ArrayList<>(), 7))));
        }
        for (Future<?> call : calls) {
          call.get();
        }
        assertTrue(first.graphs() > 0 && second.graphs() > 0, "nothing was captured");
      } finally {
        threads.shutdownNow();
      }
      assertEquals(before, backend.memory().stats().live());
    }
  }
}
