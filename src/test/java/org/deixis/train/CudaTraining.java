package org.deixis.train;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.AdamW;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
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
import org.junit.jupiter.api.Test;

/** Whole training steps on the cuda backend, whoever runs its kernels. */
abstract class CudaTraining {
  private static final int STEPS = 10;

  /** Padding, shift, dropout and drop-path included. */
  static final String MODEL =
      """
      {"imageHeight": 48, "imageWidth": 40,
       "swin": {"embedDim": 8, "depths": [2, 1, 1, 1], "heads": [1, 1, 2, 2], "window": 4,
                "windowRule": "PAD", "dropPath": 0.2},
       "text": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32, "maxPositions": 24, "dropout": 0.1},
       "dim": 16, "maskDim": 8, "regions": 4, "layers": 2, "heads": 2, "fusionLevels": [0, 1], "normGroups": 4,
       "maxTokens": 16, "maskEvidence": true}""";

  record Run(List<Double> losses, AdamWOptimizer.Status status) {}

  private static Run train(Backend backend, DType dtype, LossScaling scaling) {
    return train(backend, dtype, scaling, STEPS);
  }

  static Run train(Backend backend, DType dtype, LossScaling scaling, int steps) {
    Dataset scenes =
        SceneMaker.dataset(new SceneMaker.Spec("simple", 48, 24, 0, 4, 3), SceneMaker.TRAIN);
    long before = backend.memory().stats().live();
    List<Double> losses = new ArrayList<>();
    AdamWOptimizer.Status status;
    try (TextTokenizer tokenizer = SceneMaker.tokenizer("simple");
        GuideModel model =
            new GuideModel(
                ParameterSource.fresh(backend, 5),
                GresConfig.parse("tiny", MODEL.getBytes(StandardCharsets.UTF_8))
                    .withVocab(tokenizer.vocabSize(), tokenizer.padId()),
                1);
        AdamWOptimizer optimizer =
            new AdamWOptimizer(
                backend,
                ParameterGroup.of(model.parameters(), 1, 0.02),
                new AdamW(0.9f, 0.999f, 1e-8f),
                1,
                scaling);
        DataLoader loader =
            new DataLoader(scenes, tokenizer, LoaderConfig.training(48, 2, 2, 16, 1));
        TrainingStep step = new TrainingStep(backend, model, TrainConfig.DEMO.loss(), optimizer)) {
      model.precision(dtype);
      model.training(true);

      for (int i = 0; i < steps; i++) {
        Batch batch = loader.next();
        long held = backend.memory().stats().live();
        losses.add(step.run(i, List.of(batch), 1e-3, true, null).total());
        if (step.graphs() == 0) {
          assertEquals(held, backend.memory().stats().live(), "a step leaves memory behind");
        }
        loader.recycle(batch);
      }
      status = optimizer.status();
      model.clearGradients();
    }
    assertEquals(before, backend.memory().stats().live(), "the run leaves memory behind");
    return new Run(losses, status);
  }

  abstract Backend cuda();

  /** Whose losses are the right ones. */
  Backend exact() {
    return Backends.get("cpu");
  }

  @Test
  void lossesFollowTheCpus() {
    Run cpu = train(exact(), DType.F32, LossScaling.NONE);
    Run cuda = train(cuda(), DType.F32, LossScaling.NONE);
    for (int i = 0; i < STEPS; i++) {
      assertEquals(
          cpu.losses().get(i), cuda.losses().get(i), 1e-3 * cpu.losses().get(i), "step " + i);
    }
    assertTrue(cpu.losses().get(STEPS - 1) < cpu.losses().get(0), "nothing was learnt");
  }

  @Test
  void brainFloatFollowsToo() {
    Run exact = train(exact(), DType.BF16, LossScaling.NONE);
    Run half = train(cuda(), DType.BF16, LossScaling.NONE);
    for (int i = 0; i < STEPS; i++) {
      assertEquals(exact.losses().get(i), half.losses().get(i), 5e-2, "step " + i);
    }
  }

  /** A scale far too large overflows at first: those steps are skipped and halve it. */
  @Test
  void halfPrecisionSurvivesAnOverflow() {
    Run half = train(cuda(), DType.F16, new LossScaling(0x1p18, 2_000));
    assertTrue(half.status().skipped() > 0, "2¹⁸ does not overflow");
    assertTrue(half.status().skipped() < STEPS, "every step was skipped");
    assertEquals(0x1p18 / Math.pow(2, half.status().skipped()), half.status().scale(), "scale");
    for (double loss : half.losses()) {
      assertTrue(Double.isFinite(loss));
    }
  }
}
