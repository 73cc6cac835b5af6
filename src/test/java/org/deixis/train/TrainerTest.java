package org.deixis.train;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.deixis.backend.AdamW;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.core.InputException;
import org.deixis.data.Batch;
import org.deixis.data.DataLoader;
import org.deixis.data.Dataset;
import org.deixis.data.LoaderConfig;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.io.Safetensors;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GresLoss;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.ParameterSource;
import org.deixis.optim.AdamWOptimizer;
import org.deixis.optim.ParameterGroup;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TrainerTest {
  private static final Backend CPU = Backends.get("cpu");
  private static final SceneMaker.Spec SCENES = new SceneMaker.Spec("simple", 32, 24, 8, 4, 3);
  private static TextTokenizer tokenizer;
  private static Dataset train;

  @TempDir Path dir;

  @BeforeAll
  static void open() {
    tokenizer = SceneMaker.tokenizer("simple");
    train = SceneMaker.dataset(SCENES, "train");
  }

  @AfterAll
  static void close() {
    tokenizer.close();
  }

  /**
   * As small as a whole model gets, with dropout, so that a resumed run must draw on as the
   * unbroken one.
   */
  private static GuideModel model(long seed) {
    String json =
        """
        {"imageHeight": 32, "imageWidth": 32,
         "swin": {"embedDim": 8, "depths": [1, 1, 2, 1], "heads": [1, 1, 2, 2], "window": 4, "dropPath": 0.2},
         "text": {"hidden": 16, "layers": 1, "heads": 2, "intermediate": 32, "maxPositions": 24, "dropout": 0.1},
         "dim": 16, "maskDim": 8, "regions": 4, "layers": 1, "heads": 2, "fusionLevels": [0], "normGroups": 4,
         "maxTokens": 16}""";
    return new GuideModel(
        ParameterSource.fresh(CPU, seed),
        GresConfig.parse("tiny", json.getBytes(StandardCharsets.UTF_8))
            .withVocab(tokenizer.vocabSize(), tokenizer.padId()),
        1); // the seed of dropout is the run's, which a resumed run has from its settings
  }

  private static TrainConfig config(String changes) {
    return TrainConfig.DEMO.with(
        "test",
        ("{"
                + (changes.contains("images") ? "" : "\"images\":2,")
                + "\"expressions\":2,\"steps\":6,\"warmup\":2,\"logEvery\":1,\"saveEvery\":3,\"keep\":9,"
                + "\"hardExamples\":true"
                + changes
                + "}")
            .getBytes(StandardCharsets.UTF_8));
  }

  private Trainer trainer(GuideModel model, TrainConfig config, Path folder) {
    return new Trainer(CPU, model, tokenizer, train, null, config, folder, null);
  }

  private static void same(Path a, Path b) {
    Map<String, org.deixis.io.HostTensor> x = Safetensors.read(a).tensors();
    Map<String, org.deixis.io.HostTensor> y = Safetensors.read(b).tensors();
    assertEquals(x.keySet(), y.keySet());
    x.forEach((name, t) -> assertEquals(t.bytes(), y.get(name).bytes(), name));
  }

  @Test
  void aResumedRunEqualsTheUnbrokenOneBitForBit() throws IOException {
    int number = 0;
    // With 16 pictures the checkpoint is where an epoch ends: the next is drawn by losses, all of
    // which must have come in by then.
    for (String kind :
        List.of("\"precision\":\"fp32\"", "\"precision\":\"fp16\"", "\"images\":16")) {
      String changes = "," + kind + ",\"augment\":{\"flip\":0.5,\"brightness\":0.2}";
      Path whole = dir.resolve("whole-" + number);
      Path broken = dir.resolve("broken-" + number++);
      try (GuideModel model = model(1)) {
        assertTrue(trainer(model, config(changes), whole).run().complete());
      }
      Files.createDirectories(broken.resolve(Trainer.CHECKPOINTS));
      Path third = TrainingCheckpoint.file(whole.resolve(Trainer.CHECKPOINTS), 3);
      Files.copy(third, TrainingCheckpoint.file(broken.resolve(Trainer.CHECKPOINTS), 3));
      try (GuideModel model = model(77)) { // its own first weights must not matter
        assertEquals(6, trainer(model, config(changes), broken).resume().step());
      }
      same(
          TrainingCheckpoint.file(whole.resolve(Trainer.CHECKPOINTS), 6),
          TrainingCheckpoint.file(broken.resolve(Trainer.CHECKPOINTS), 6));
      assertTrue(Files.isRegularFile(broken.resolve("model/model.safetensors")));
    }
  }

  @Test
  void aStoppedRunLeavesACheckpointAndGoesOn() {
    Path folder = dir.resolve("stopped");
    try (GuideModel model = model(1)) {
      Trainer trainer = trainer(model, config(""), folder);
      trainer.stop();
      Trainer.Outcome outcome = trainer.run();
      assertFalse(outcome.complete());
      assertEquals(0, outcome.step());
      assertThrows(
          InputException.class, () -> trainer(model, config(""), folder).run(), "a run is there");
      assertTrue(trainer(model, config(""), folder).resume().complete());
    }
  }

  @Test
  void aStepLeavesNoMemoryBehind() {
    try (GuideModel model = model(1);
        AdamWOptimizer optimizer = optimizer(model);
        DataLoader loader =
            new DataLoader(
                train, tokenizer, LoaderConfig.training(32, 2, 2, 16, 1).withPadToMax(true))) {
      model.training(true);
      TrainingStep step = new TrainingStep(CPU, model, new GresLoss(0.5f, 1, null), optimizer);
      long before = CPU.memory().stats().live();
      for (int i = 0; i < 50; i++) {
        Batch batch = loader.next();
        step.run(i, List.of(batch), 1e-3, i % 7 == 0, null);
        assertEquals(before, CPU.memory().stats().live(), "after step " + i);
      }
    }
  }

  private static AdamWOptimizer optimizer(GuideModel model) {
    return new AdamWOptimizer(
        CPU,
        ParameterGroup.of(model.parameters(), 1, 0.02),
        new AdamW(0.9f, 0.999f, 1e-8f),
        1,
        AdamWOptimizer.LossScaling.NONE);
  }

  @Test
  void fourMicroBatchesOfEightEqualThirtyTwo() {
    List<Batch> parts = new ArrayList<>();
    try (DataLoader loader =
        new DataLoader(
            train, tokenizer, LoaderConfig.training(32, 4, 2, 16, 1).withPadToMax(true))) {
      for (int i = 0; i < 4; i++) {
        parts.add(loader.next());
      }
    }
    // Weights, not only gradients, and without clipping's help: compare the first moments, which
    // are the gradients.
    Map<String, float[]> many = moments(parts);
    Map<String, float[]> one = moments(List.of(join(parts)));
    double difference = 0;
    double norm = 0;
    for (Map.Entry<String, float[]> e : one.entrySet()) {
      if (!e.getKey().startsWith("m.")) {
        continue;
      }
      float[] a = many.get(e.getKey());
      for (int i = 0; i < a.length; i++) {
        difference += Math.pow(a[i] - e.getValue()[i], 2);
        norm += Math.pow(e.getValue()[i], 2);
      }
    }
    assertTrue(norm > 0);
    assertTrue(Math.sqrt(difference / norm) <= 1e-5, "off by " + Math.sqrt(difference / norm));
  }

  private static Map<String, float[]> moments(List<Batch> batches) {
    try (GuideModel model = model(5);
        AdamWOptimizer optimizer = optimizer(model)) {
      model.training(false); // dropout would draw for another batch size
      new TrainingStep(CPU, model, new GresLoss(0.5f, 1, null), optimizer)
          .run(0, batches, 1e-3, false, null);
      return optimizer.state();
    }
  }

  private static Batch join(List<Batch> parts) {
    Batch first = parts.get(0);
    int images = 0;
    int expressions = 0;
    for (Batch b : parts) {
      images += b.images();
      expressions += b.expressions();
    }
    java.io.ByteArrayOutputStream pixels = new java.io.ByteArrayOutputStream();
    java.io.ByteArrayOutputStream masks = new java.io.ByteArrayOutputStream();
    int[] ids = new int[expressions * first.tokens()];
    int[] text = new int[ids.length];
    float[] negative = new float[expressions];
    int at = 0;
    for (Batch b : parts) {
      pixels.writeBytes(b.pixels());
      masks.writeBytes(b.masks());
      System.arraycopy(b.ids(), 0, ids, at * b.tokens(), b.ids().length);
      System.arraycopy(b.textMask(), 0, text, at * b.tokens(), b.textMask().length);
      System.arraycopy(b.isNegative(), 0, negative, at, b.expressions());
      at += b.expressions();
    }
    return new Batch(
        images,
        expressions,
        first.height(),
        first.width(),
        first.tokens(),
        pixels.toByteArray(),
        ids,
        text,
        masks.toByteArray(),
        negative,
        null,
        null,
        first.complexity());
  }

  @Test
  void aLossThatIsNoNumberStopsWithADiagnosis() {
    Path folder = dir.resolve("nan");
    try (GuideModel model = model(1)) {
      var p = model.parameters().get("region_head.weight");
      float[] values = p.toFloats();
      values[3] = Float.NaN;
      p.set(values);
      InputException e =
          assertThrows(TrainingFault.class, () -> trainer(model, config(""), folder).run());
      assertTrue(e.getMessage().contains("step 1"), e.getMessage());
      assertTrue(e.getMessage().contains("first region_head.weight"), e.getMessage());
      assertFalse(e.getMessage().contains("\n"));
    }
    assertTrue(TrainingCheckpoint.list(folder.resolve(Trainer.CHECKPOINTS)).isEmpty());
  }

  @Test
  void noCheckpointIsOfWeightsThatAreNoNumbers() {
    Path folder = dir.resolve("nan-unseen");
    try (GuideModel model = model(1)) {
      // Losses are first looked at long after the first checkpoint is due.
      TrainConfig seldom =
          config("")
              .with("test", "{\"logEvery\":100,\"saveEvery\":1}".getBytes(StandardCharsets.UTF_8));
      var p = model.parameters().get("region_head.weight");
      float[] values = p.toFloats();
      values[3] = Float.NaN;
      p.set(values);
      InputException e =
          assertThrows(TrainingFault.class, () -> trainer(model, seldom, folder).run());
      assertTrue(e.getMessage().contains("first region_head.weight"), e.getMessage());
      assertEquals(List.of(), TrainingCheckpoint.list(folder.resolve(Trainer.CHECKPOINTS)));
    }
  }

  @Test
  void aFullDiskLeavesTheLastGoodCheckpoint() throws IOException {
    Path full = Path.of("/dev/full");
    org.junit.jupiter.api.Assumptions.assumeTrue(Files.exists(full), "no /dev/full on this system");
    Path folder = dir.resolve("full");
    Path checkpoints = folder.resolve(Trainer.CHECKPOINTS);
    Files.createDirectories(checkpoints);
    // The sixth step's file is written under this name first; every write into it fails for want of
    // space.
    Path sixth = TrainingCheckpoint.file(checkpoints, 6);
    Files.createSymbolicLink(sixth.resolveSibling(sixth.getFileName() + ".partial"), full);
    try (GuideModel model = model(1)) {
      InputException e =
          assertThrows(InputException.class, () -> trainer(model, config(""), folder).run());
      assertTrue(e.getMessage().contains("free some space"), e.getMessage());
    }
    Path third = TrainingCheckpoint.file(checkpoints, 3);
    assertEquals(List.of(third), TrainingCheckpoint.list(checkpoints));
    assertEquals(3, TrainingCheckpoint.read(third).step());
  }

  @Test
  void anUnknownKeyNamesTheNearest() {
    InputException e = assertThrows(InputException.class, () -> config(",\"diceWieght\":1"));
    assertTrue(e.getMessage().contains("diceWeight"), e.getMessage());
  }

  @Test
  void twoRunsOfOneSeedAreTheSame() {
    float[][] weights = new float[2][];
    for (int i = 0; i < 2; i++) {
      try (GuideModel model = model(9)) {
        trainer(model, config(",\"precision\":\"bf16\""), dir.resolve("same" + i)).run();
        weights[i] = model.parameters().get("mask_embed.0.weight").toFloats();
      }
    }
    assertArrayEquals(weights[0], weights[1]);
  }
}
