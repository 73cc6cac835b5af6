package org.deixis.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.lang.reflect.RecordComponent;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.deixis.backend.Backend;
import org.deixis.core.InputException;
import org.deixis.data.Dataset;
import org.deixis.data.TextTokenizer;
import org.deixis.infer.ModelFolder;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.ParameterSource;
import org.deixis.train.TrainConfig;
import org.deixis.train.Trainer;
import org.deixis.train.TrainingReport;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

@Command(
    name = "train",
    description =
        "Trains a model on a data set. Ctrl-C ends it in order, with a checkpoint; --resume goes on bit for bit.",
    footer = {
      "",
      "  deixis train --data scenes --config small --out runs/first --steps 1200 --lr 1e-3 --set diceWeight=1",
      "  deixis train --data scenes --config small --out runs/first --resume",
      "",
      "--set takes any key of the run's train.json."
    })
final class TrainCommand extends BaseCommand {
  private static final ObjectMapper JSON = new ObjectMapper();

  @Option(
      names = "--data",
      paramLabel = "DIR",
      required = true,
      description = "Data set, in either layout.")
  private Path data;

  @Option(names = "--out", paramLabel = "DIR", required = true, description = "Folder of the run.")
  private Path folder;

  @Option(
      names = "--config",
      paramLabel = "NAME|FILE",
      description =
          "Model: a bundled name or a JSON file. Default: with --resume the run's, with --init that model's, else small.")
  private String config;

  @Option(
      names = "--init",
      paramLabel = "DIR",
      description =
          "Model folder to start from, such as 'deixis import' makes: its weights, and unless others"
              + " are given its configuration and tokenizer.")
  private Path init;

  @Option(
      names = "--training",
      paramLabel = "FILE",
      description = "Training settings: a JSON file like a run's train.json.")
  private Path training;

  @Option(
      names = "--tokenizer",
      paramLabel = "FILE",
      description =
          "tokenizer.json or vocab.txt. Default: that of --init, else the one in the data set's folder.")
  private Path tokenizerFile;

  @Option(
      names = "--split",
      paramLabel = "NAME",
      defaultValue = "train",
      description = "Default: ${DEFAULT-VALUE}.")
  private String split;

  @Option(
      names = "--val-split",
      paramLabel = "NAME",
      defaultValue = "val",
      description = "Default: ${DEFAULT-VALUE}.")
  private String valSplit;

  @Option(
      names = "--skip-bad",
      description = "Leave damaged records out, and list them, instead of stopping.")
  private boolean skipBad;

  @Option(names = "--resume", description = "Go on from the run's latest checkpoint.")
  private boolean resume;

  @Option(names = "--steps", paramLabel = "N", description = "Optimiser steps.")
  private String steps;

  @Option(names = "--images", paramLabel = "N", description = "Pictures a micro-batch.")
  private String images;

  @Option(names = "--expressions", paramLabel = "N", description = "Expressions a picture.")
  private String expressions;

  @Option(names = "--accumulate", paramLabel = "N", description = "Micro-batches a step.")
  private String accumulate;

  @Option(names = "--lr", paramLabel = "RATE", description = "Peak learning rate.")
  private String rate;

  @Option(names = "--precision", paramLabel = "TYPE", description = "fp32, fp16 or bf16.")
  private String precision;

  @Option(names = "--seed", paramLabel = "N")
  private String seed;

  @Option(names = "--save-every", paramLabel = "N", description = "Steps between checkpoints.")
  private String saveEvery;

  @Option(
      names = "--set",
      paramLabel = "KEY=VALUE",
      description = "Any other training setting; may be repeated.")
  private Map<String, String> settings = Map.of();

  @Option(
      names = "--checkpointing",
      description = "Recompute Swin's inner values in backward to save memory.")
  private boolean checkpointing;

  @Option(
      names = "--adaptive",
      description = "Choose 4, 8 or 16 regions by the pictures' complexity.")
  private boolean adaptive;

  @Option(names = "--quiet", description = "No progress.")
  private boolean quiet;

  @Mixin private EngineOptions engine;

  @Override
  public Integer call() {
    Dataset train = Dataset.open(data, split, skipBad);
    report(train);
    if (train.size() == 0) {
      throw new InputException(data + ": split '" + split + "' has no expressions");
    }
    Dataset validation = validation();
    TrainConfig settled = settings();
    Backend backend = engine.backend(err);
    try (TextTokenizer tokenizer = TextTokenizer.load(tokenizerFile());
        GuideModel model =
            new GuideModel(
                weights(backend, settled.seed()), modelConfig(tokenizer), settled.seed())) {
      Trainer trainer =
          new Trainer(
              backend, model, tokenizer, train, validation, settled, folder, quiet ? null : err);
      Trainer.Outcome outcome = resume ? trainer.resume() : trainer.run();
      if (!outcome.complete()) {
        return 0;
      }
      out.printf("trained after %d steps (%.0f s)%n", outcome.step(), outcome.seconds());
      TrainingReport.write(backend, model, tokenizer, validation, folder, out, quiet ? null : err);
    }
    return 0;
  }

  private void report(Dataset dataset) {
    for (String line : dataset.skipped()) {
      err.println("deixis: skipped " + line);
    }
    if (!dataset.skipped().isEmpty()) {
      err.println("deixis: " + dataset.skipped().size() + " records skipped");
    }
  }

  /** A data set need not have a validation split. */
  private Dataset validation() {
    try {
      Dataset found = Dataset.open(data, valSplit, skipBad);
      return found.size() == 0 ? null : found;
    } catch (InputException e) {
      err.println("deixis: no validation: " + e.getMessage());
      return null;
    }
  }

  private Path tokenizerFile() {
    if (tokenizerFile != null) {
      return tokenizerFile;
    }
    return init == null ? data : init.resolve(ModelFolder.TOKENIZER);
  }

  private ParameterSource weights(Backend backend, long drawn) {
    return init == null
        ? ParameterSource.fresh(backend, drawn)
        : ModelFolder.source(init.resolve(ModelFolder.WEIGHTS), backend);
  }

  private GresConfig modelConfig(TextTokenizer tokenizer) {
    GresConfig c;
    Path own = folder.resolve(ModelFolder.CONFIG);
    if (config == null && resume && Files.isRegularFile(own)) {
      c = GresConfig.load(own);
    } else if (config == null && init != null) {
      c = GresConfig.load(init.resolve(ModelFolder.CONFIG));
    } else {
      c = GresConfig.of(config == null ? "small" : config);
    }
    if (init == null) {
      c = c.withVocab(Math.max(tokenizer.vocabSize(), 1), tokenizer.padId());
    } else {
      ModelFolder.checkVocabulary(init.toString(), c, tokenizer);
    }
    c = checkpointing ? c.withCheckpointing(true) : c;
    return adaptive ? c.withAdaptive(true) : c;
  }

  /** What {@code --set} takes. */
  static List<String> settingKeys() {
    return Arrays.stream(TrainConfig.class.getRecordComponents())
        .map(RecordComponent::getName)
        .toList();
  }

  private TrainConfig settings() {
    TrainConfig base = TrainConfig.DEFAULT;
    if (resume && Files.isRegularFile(folder.resolve("train.json"))) {
      base = TrainConfig.load(folder.resolve("train.json"), base);
    }
    if (training != null) {
      base = TrainConfig.load(training, base);
    }
    ObjectNode changes = JSON.createObjectNode();
    put(changes, "steps", steps);
    put(changes, "images", images);
    put(changes, "expressions", expressions);
    put(changes, "accumulate", accumulate);
    put(changes, "rate", rate);
    put(changes, "precision", precision);
    put(changes, "seed", seed);
    put(changes, "saveEvery", saveEvery);
    settings.forEach((k, v) -> put(changes, k, v));
    return base.with("settings", changes.toString().getBytes(StandardCharsets.UTF_8));
  }

  /**
   * Numbers, true and false as JSON has them; anything else is a text. {@code augment.crop} reaches
   * inside.
   */
  private static void put(ObjectNode node, String key, String value) {
    if (value == null) {
      return;
    }
    List<String> path = new ArrayList<>(List.of(key.split("\\.")));
    ObjectNode at = node;
    while (path.size() > 1) {
      at = at.withObjectProperty(path.remove(0));
    }
    try {
      var parsed = JSON.readTree(value);
      at.set(path.get(0), parsed.isNumber() || parsed.isBoolean() ? parsed : at.textNode(value));
    } catch (IOException e) {
      at.put(path.get(0), value);
    }
  }
}
