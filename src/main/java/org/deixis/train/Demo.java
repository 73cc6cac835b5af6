package org.deixis.train;

import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import org.deixis.backend.Backend;
import org.deixis.core.InputException;
import org.deixis.data.Dataset;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.eval.Metrics;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.ParameterSource;

/**
 * The whole of Deixis in a few minutes: draws scenes, trains the small model on them from nothing,
 * and measures it on scenes it never saw. Training scenes are drawn as they are needed; the unseen
 * ones are written to {@code scenes/}, to try {@code predict} on.
 */
public final class Demo {
  private static final int SIZE = 96;
  private static final int EXPRESSIONS = 8;
  private static final int VALIDATION_IMAGES = 128;

  private Demo() {}

  /**
   * @param config usually {@link TrainConfig#DEMO}
   * @return what was measured on the unseen scenes
   */
  public static Metrics run(
      Backend backend, TrainConfig config, Path folder, PrintStream out, PrintStream progress) {
    if (Files.exists(folder.resolve(Trainer.CHECKPOINTS))) {
      throw new InputException(folder + " already holds a run; give another --out, or remove it");
    }
    // Every picture is seen about once, so that there is nothing to learn by heart.
    int pictures =
        Math.max(config.images(), config.steps() * config.images() * config.accumulate());
    SceneMaker.Spec seen =
        new SceneMaker.Spec(SceneMaker.SIMPLE, SIZE, pictures, 0, EXPRESSIONS, config.seed());
    SceneMaker.Spec unseen =
        new SceneMaker.Spec(
            SceneMaker.SIMPLE, SIZE, 0, VALIDATION_IMAGES, EXPRESSIONS, config.seed());
    Path scenes = folder.resolve("scenes");
    SceneMaker.write(scenes, unseen);
    Dataset train = SceneMaker.dataset(seen, SceneMaker.TRAIN);
    Dataset validation = Dataset.open(scenes, SceneMaker.VAL, false);
    out.printf(
        Locale.ROOT,
        "%d scenes to train on, %d unseen ones with %d phrases in %s%n",
        pictures,
        VALIDATION_IMAGES,
        validation.size(),
        scenes);
    try (TextTokenizer tokenizer = SceneMaker.tokenizer(SceneMaker.SIMPLE);
        GuideModel model =
            new GuideModel(
                ParameterSource.fresh(backend, config.seed()),
                GresConfig.of("small").withVocab(tokenizer.vocabSize(), tokenizer.padId()),
                config.seed())) {
      out.printf(
          Locale.ROOT,
          "training %,d parameters for %d steps of %d expressions%n",
          model.parameterCount(),
          config.steps(),
          config.images() * config.expressions() * config.accumulate());
      Trainer.Outcome outcome =
          new Trainer(backend, model, tokenizer, train, null, config, folder, progress).run();
      out.printf(
          Locale.ROOT,
          "trained in %.0f s, %.0f expressions a second%n",
          outcome.seconds(),
          outcome.step()
              * config.images()
              * config.expressions()
              * config.accumulate()
              / outcome.seconds());
      if (!outcome.complete()) {
        return null;
      }
      return TrainingReport.write(backend, model, tokenizer, validation, folder, out, progress);
    }
  }
}
