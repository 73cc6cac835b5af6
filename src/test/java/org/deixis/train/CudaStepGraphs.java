package org.deixis.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.deixis.backend.AdamW;
import org.deixis.backend.Backend;
import org.deixis.backend.GraphCache;
import org.deixis.backend.Memory;
import org.deixis.core.DType;
import org.deixis.data.Batch;
import org.deixis.data.DataLoader;
import org.deixis.data.Dataset;
import org.deixis.data.LoaderConfig;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.ParameterSource;
import org.deixis.optim.AdamWOptimizer;
import org.deixis.optim.AdamWOptimizer.LossScaling;
import org.deixis.optim.ParameterGroup;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** Training steps that are captured and replayed, against the same steps launched call by call. */
abstract class CudaStepGraphs {
  private static final int STEPS = 10;
  private static final String GRAPHS = "deixis.graphs";

  abstract Backend cuda();

  @AfterEach
  void defaults() {
    System.clearProperty(GRAPHS);
  }

  /**
   * @param graphs kept after each step
   */
  record Run(
      List<TrainingStep.Losses> losses,
      List<float[]> perExpression,
      Map<String, float[]> parameters,
      AdamWOptimizer.Status status,
      List<Integer> graphs,
      Memory.Stats memory) {}

  /** What differs between runs. */
  record Setting(
      DType dtype,
      LossScaling scaling,
      int steps,
      int accumulate,
      boolean padToMax,
      boolean repeat) {}

  private Run train(Setting setting, int mostGraphs) {
    return train(cuda(), setting, mostGraphs);
  }

  static Run train(Backend backend, Setting setting, int mostGraphs) {
    System.setProperty(GRAPHS, String.valueOf(mostGraphs));
    Dataset scenes =
        SceneMaker.dataset(new SceneMaker.Spec("simple", 48, 24, 0, 4, 3), SceneMaker.TRAIN);
    long before = backend.memory().stats().live();
    Run run =
        new Run(
            new ArrayList<>(), new ArrayList<>(), new TreeMap<>(), null, new ArrayList<>(), null);
    AdamWOptimizer.Status status;
    Memory.Stats stats;
    try (TextTokenizer tokenizer = SceneMaker.tokenizer("simple");
        GuideModel model =
            new GuideModel(
                ParameterSource.fresh(backend, 5),
                GresConfig.parse("tiny", CudaTraining.MODEL.getBytes(StandardCharsets.UTF_8))
                    .withVocab(tokenizer.vocabSize(), tokenizer.padId()),
                1);
        AdamWOptimizer optimizer =
            new AdamWOptimizer(
                backend,
                ParameterGroup.of(model.parameters(), 1, 0.02),
                new AdamW(0.9f, 0.999f, 1e-8f),
                1,
                setting.scaling());
        DataLoader loader =
            new DataLoader(
                scenes,
                tokenizer,
                LoaderConfig.training(48, setting.accumulate() > 1 ? 1 : 2, 2, 16, 1)
                    .withPadToMax(setting.padToMax()));
        TrainingStep step = new TrainingStep(backend, model, TrainConfig.DEMO.loss(), optimizer)) {
      model.precision(setting.dtype());
      model.training(true);
      backend.memory().resetPeak();
      List<Batch> batches = new ArrayList<>();
      for (int i = 0; i < setting.steps(); i++) {
        if (!setting.repeat() || i == 0) {
          batches.clear();
          for (int k = 0; k < setting.accumulate(); k++) {
            batches.add(loader.next());
          }
        }
        run.losses()
            .add(
                step.run(
                    i, batches, 1e-3 * (i + 1), true, (b, each) -> run.perExpression().add(each)));
        run.graphs().add(step.graphs());
      }
      status = optimizer.status();
      stats = backend.memory().stats();
      model.parameters().forEach((name, p) -> run.parameters().put(name, p.toFloats()));
    }
    assertEquals(before, backend.memory().stats().live(), "the run leaves memory behind");
    return new Run(
        run.losses(), run.perExpression(), run.parameters(), status, run.graphs(), stats);
  }

  private Run same(Setting setting) {
    Run plain = train(setting, 0);
    Run graphs = train(setting, GraphCache.MOST);
    same(plain, graphs);
    return graphs;
  }

  static void same(Run plain, Run graphs) {
    int last = graphs.graphs().size() - 1;
    assertEquals(0, plain.graphs().get(last));
    assertTrue(graphs.graphs().get(last) > 0, "nothing was captured");
    assertEquals(plain.losses(), graphs.losses());
    for (int i = 0; i < plain.perExpression().size(); i++) {
      assertArrayEquals(plain.perExpression().get(i), graphs.perExpression().get(i));
    }
    assertEquals(plain.status(), graphs.status());
    assertTrue(
        graphs.memory().peak() <= plain.memory().peak() * 1.1,
        graphs.memory() + " with graphs, " + plain.memory() + " without");
    plain
        .parameters()
        .forEach((name, values) -> assertArrayEquals(values, graphs.parameters().get(name), name));
  }

  /** Bit for bit, several micro-batches with dropout of their own included. */
  @Test
  void replayedStepsAreTheSameSteps() {
    Run run = same(new Setting(DType.F32, LossScaling.NONE, STEPS, 2, true, false));
    assertEquals(List.of(0, 1, 1, 1, 1, 1, 1, 1, 1, 1), run.graphs(), "graphs kept");
  }

  /** The scale falls on the device during replays, and with it what backward starts from. */
  @Test
  void replayedStepsSkipOverflows() {
    Run run = same(new Setting(DType.F16, new LossScaling(0x1p18, 2), STEPS, 1, true, false));
    assertTrue(run.status().skipped() >= 3, "skipped " + run.status().skipped());
    assertTrue(run.status().skipped() < STEPS, "every step was skipped");
  }

  /** Phrases are padded to the longest of their batch, so that steps have several shapes. */
  @Test
  void eachShapeHasItsGraph() {
    Run run = same(new Setting(DType.F32, LossScaling.NONE, STEPS, 1, false, false));
    assertTrue(run.graphs().get(STEPS - 1) > 1, "graphs kept: " + run.graphs());
    // One at most: shapes push each other out, and are captured again.
    Run one = train(new Setting(DType.F32, LossScaling.NONE, STEPS, 1, false, false), 1);
    assertTrue(one.graphs().stream().allMatch(n -> n <= 1), "graphs kept: " + one.graphs());
    assertEquals(run.losses(), one.losses());
  }

  /** The same batch again and again at rate 0 would give one loss, were it not for dropout. */
  @Test
  void everyReplayDrawsAnew() {
    Run run = train(new Setting(DType.F32, LossScaling.NONE, 5, 1, true, true), GraphCache.MOST);
    assertEquals(1, run.graphs().get(4));
    List<float[]> each = run.perExpression();
    for (int i = 2; i < 5; i++) {
      assertNotEquals(Arrays.toString(each.get(i - 1)), Arrays.toString(each.get(i)), "step " + i);
    }
  }

  /** With no byte more than steps need by themselves, graphs are given up, and nothing else. */
  @Test
  void graphsMakeRoomWhenMemoryRunsOut() {
    Setting setting = new Setting(DType.F32, LossScaling.NONE, STEPS, 1, false, false);
    Run plain = train(setting, 0);
    Memory memory = cuda().memory();
    long cap = memory.stats().cap();
    memory.cap(plain.memory().peak());
    try {
      Run tight = train(setting, GraphCache.MOST);
      assertEquals(plain.losses(), tight.losses());
      boolean fewer = false;
      for (int i = 1; i < STEPS; i++) {
        fewer |= tight.graphs().get(i) < tight.graphs().get(i - 1);
      }
      assertTrue(fewer, "no graph was given up: " + tight.graphs());
    } finally {
      memory.cap(cap);
    }
  }
}
