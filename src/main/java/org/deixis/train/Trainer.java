package org.deixis.train;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.deixis.backend.Backend;
import org.deixis.core.AtomicWrite;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.data.Batch;
import org.deixis.data.DataLoader;
import org.deixis.data.Dataset;
import org.deixis.data.LoaderConfig;
import org.deixis.data.SampleWeights;
import org.deixis.data.TextTokenizer;
import org.deixis.eval.Evaluator;
import org.deixis.eval.Metrics;
import org.deixis.infer.ModelFolder;
import org.deixis.infer.Segmenter;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.optim.AdamWOptimizer;
import org.deixis.optim.ParameterGroup;
import org.deixis.optim.Schedule;
import org.deixis.train.log.MetricsLog;
import org.deixis.train.log.ProgressBar;
import org.deixis.train.log.TensorBoardWriter;

/**
 * Trains a model into a run folder: {@code config.json}, {@code metrics.jsonl}, an event file,
 * {@code checkpoints/}, and at the end the model folder {@code model/}. A run that was stopped goes
 * on bit for bit from its last checkpoint.
 */
public final class Trainer {
  static final String CHECKPOINTS = "checkpoints";
  private static final String MODEL_CONFIG = "model";
  private static final long STOP_SECONDS = 600;

  private final Backend backend;
  private final GuideModel model;
  private final TextTokenizer tokenizer;
  private final Dataset train;
  private final Dataset validation;
  private final TrainConfig config;
  private final Path folder;
  private final PrintStream console;
  private volatile boolean stop;

  /**
   * @param model made for {@code config.seed()}; stays the caller's to close
   * @param validation split to evaluate on, or null
   * @param folder of the run; made if it is not there
   * @param console where progress goes, or null
   */
  public Trainer(
      Backend backend,
      GuideModel model,
      TextTokenizer tokenizer,
      Dataset train,
      Dataset validation,
      TrainConfig config,
      Path folder,
      PrintStream console) {
    this.backend = backend;
    this.model = model;
    this.tokenizer = tokenizer;
    this.train = train;
    this.validation = validation;
    this.config = config;
    this.folder = folder;
    this.console = console;
  }

  /** Asks the run to end after the step in progress, with a checkpoint. */
  public void stop() {
    stop = true;
  }

  /**
   * @param step optimiser steps done in all
   * @param complete false when the run was asked to stop before its end
   * @param seconds of training in this process
   */
  public record Outcome(long step, boolean complete, double seconds) {}

  /** Where one run's state lives while it goes on. */
  private static final class Session {
    AdamWOptimizer optimizer;
    DataLoader loader;
    SampleWeights weights;
    HardExampleMining mining;
    MetricsLog log;
    TensorBoardWriter events;
    long step;
    Path lastCheckpoint;

    /** Not yet settled; or null. */
    Started started;

    long expressions;
    String note = "";

    /** When values were last told, and how many expressions there had been then. */
    long marked;

    long told;
  }

  /** Ends an evaluation when the run is to stop. */
  private static final class Stopped extends RuntimeException {}

  /**
   * A step that the device was given.
   *
   * @param step its number, from 1
   * @param read whether losses and status are to be told
   * @param expressions trained on in this process, it included
   * @param at when the device had been given it, in nanoseconds: the last step of a run is settled
   *     sooner after its own start than others are, and would seem the fastest
   */
  private record Started(
      long step,
      List<Batch> batches,
      TrainingStep.Report report,
      boolean read,
      double rate,
      long expressions,
      long at) {}

  /** From the first step; the folder must hold no checkpoint. */
  public Outcome run() {
    if (!TrainingCheckpoint.list(folder.resolve(CHECKPOINTS)).isEmpty()) {
      throw new InputException(
          folder + " already holds a run; give --resume to go on with it, or another --out");
    }
    return run(null);
  }

  /** From the latest whole checkpoint of the folder. */
  public Outcome resume() {
    List<Path> all = TrainingCheckpoint.list(folder.resolve(CHECKPOINTS));
    if (all.isEmpty()) {
      throw new InputException(
          folder + " holds no checkpoint to resume from; train without --resume");
    }
    return run(all.get(all.size() - 1));
  }

  private Outcome run(Path checkpoint) {
    CountDownLatch finished = new CountDownLatch(1);
    Thread hook =
        new Thread(
            () -> {
              stop = true;
              if (console != null) {
                console.printf("%nstopping after the step in progress%n");
              }
              try {
                // The virtual machine waits for this thread: the step in progress and its
                // checkpoint get their time.
                finished.await(STOP_SECONDS, TimeUnit.SECONDS);
              } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
              }
            },
            "deixis-stop");
    Runtime.getRuntime().addShutdownHook(hook);
    Session s = new Session();
    try {
      begin(s, checkpoint);
      return loop(s);
    } finally {
      end(s);
      finished.countDown();
      try {
        Runtime.getRuntime().removeShutdownHook(hook);
      } catch (IllegalStateException e) {
        // The machine is on its way down, and the hook is what let this run end in order.
        stop = true;
      }
    }
  }

  private void begin(Session s, Path checkpoint) {
    s.weights = new SampleWeights(train);
    s.optimizer =
        new AdamWOptimizer(
            backend,
            ParameterGroup.of(model.parameters(), config.encoderRateFactor(), config.weightDecay()),
            config.adamW(),
            config.clip(),
            config.scaling());
    s.mining = config.hardExamples() ? new HardExampleMining(s.weights) : null;
    model.precision(config.type());
    model.training(true);
    GresConfig m = model.config();
    s.loader =
        new DataLoader(
            train,
            tokenizer,
            LoaderConfig.training(
                    m.imageHeight(),
                    config.images(),
                    config.expressions(),
                    m.maxTokens(),
                    config.seed())
                .withAugment(config.augment()),
            s.weights);
    if (checkpoint != null) {
      TrainingCheckpoint.State state = TrainingCheckpoint.read(checkpoint);
      TrainingCheckpoint.load(state, model.parameters(), checkpoint);
      s.optimizer.load(state.optimizer());
      s.weights.restore(state.sampleWeights());
      s.loader.restore(state.loader());
      if (s.mining != null) {
        s.mining.mean(state.meanLoss());
      }
      s.step = state.step();
      s.lastCheckpoint = checkpoint;
    }
    writeConfig();
    s.log = MetricsLog.open(folder.resolve("metrics.jsonl"), s.step);
    s.events = new TensorBoardWriter(folder.resolve("events"));
  }

  private void end(Session s) {
    model.clearGradients();
    model.training(false);
    if (s.loader != null) {
      s.loader.close();
    }
    if (s.optimizer != null) {
      s.optimizer.close();
    }
    if (s.events != null) {
      s.events.close();
    }
  }

  private void writeConfig() {
    Map<Path, byte[]> files = new LinkedHashMap<>();
    files.put(folder.resolve("train.json"), config.toJson());
    files.put(folder.resolve("config.json"), model.config().toJson());
    AtomicWrite.files(files);
    try {
      Files.createDirectories(folder.resolve(CHECKPOINTS));
    } catch (IOException e) {
      throw new InputException("cannot write into " + folder + ": " + Reason.of(e), e);
    }
  }

  private Outcome loop(Session s) {
    Schedule rates = config.rates();
    ProgressBar bar = new ProgressBar(console, "train", s.step, config.steps());
    long begun = System.nanoTime();
    s.marked = begun;
    backend.memory().resetPeak();
    try (TrainingStep step = new TrainingStep(backend, model, config.loss(), s.optimizer)) {
      while (s.step < config.steps() && !stop) {
        List<Batch> batches = batches(s);
        boolean more = s.step + 1 < config.steps();
        boolean save = more && (s.step + 1) % config.saveEvery() == 0;
        // A checkpoint takes the place of an older one: never with a loss that nobody looked at.
        boolean read = (s.step + 1) % config.logEvery() == 0 || !more || save;
        double rate = config.rate() * rates.factor(s.step);
        TrainingStep.Report report = step.start(s.step, batches, rate, read, s.mining != null);
        long at = System.nanoTime();
        s.step++;
        batches.forEach(s.loader::recycle);
        // The device is at work on this step while the one before is looked at.
        settle(s);
        s.started = new Started(s.step, batches, report, read, rate, s.expressions, at);
        boolean evaluate = more && config.evalEvery() > 0 && s.step % config.evalEvery() == 0;
        if (save || evaluate) {
          settle(s);
        }
        if (save) {
          save(s);
        }
        if (evaluate) {
          step.close(); // the memory that graphs hold serves the evaluation meanwhile
          evaluate(s);
        }
        if (more) {
          bar.update(s.step, s.note);
        }
      }
      settle(s);
    }
    bar.update(s.step, s.note);
    bar.close();
    double seconds = (System.nanoTime() - begun) / 1e9;
    save(s);
    boolean complete = s.step >= config.steps();
    if (!complete && console != null) {
      // Here rather than by the caller: the process ends as soon as this run has.
      console.printf(
          "stopped after %d steps: %s; go on with --resume and the same --data and --out%n",
          s.step, s.lastCheckpoint);
    }
    if (complete) {
      if (config.calibrate() > 0) {
        double shift = Calibration.run(model, tokenizer, backend, first(train, config.calibrate()));
        s.log.write(s.step, Map.of("no_target_bias_shift", shift));
      }
      ModelFolder.save(folder.resolve("model"), model, tokenizer);
    }
    return new Outcome(s.step, complete, seconds);
  }

  private List<Batch> batches(Session s) {
    List<Batch> batches = new ArrayList<>();
    for (int i = 0; i < config.accumulate(); i++) {
      if (s.mining != null && s.loader.atEpochEnd()) {
        settle(s); // the next epoch is drawn by the losses of all steps so far
      }
      batches.add(s.loader.next());
      s.expressions += batches.get(i).expressions();
    }
    return batches;
  }

  /** Takes up what the step that was started last tells; waits for that step. */
  private void settle(Session s) {
    Started done = s.started;
    if (done == null) {
      return;
    }
    s.started = null;
    if (s.mining != null) {
      for (int i = 0; i < done.batches.size(); i++) {
        s.mining.update(done.batches.get(i).samples(), done.report.perExpression(i));
      }
    }
    if (done.read) {
      check(s, done);
      s.note = log(s, done, (done.expressions - s.told) / ((done.at - s.marked) / 1e9));
      s.marked = done.at;
      s.told = done.expressions;
    }
  }

  /**
   * A loss that is no number, or gradients that are not although nothing scales them, end the run.
   */
  private void check(Session s, Started done) {
    TrainingStep.Losses losses = done.report.losses();
    AdamWOptimizer.Status status = done.report.status();
    boolean scaled = config.scaling().growthInterval() > 0;
    if (Double.isFinite(losses.total()) && (scaled || !status.overflow())) {
      return;
    }
    List<String> broken = s.optimizer.notFinite();
    throw new TrainingFault(
        String.format(
            Locale.ROOT,
            "training stopped at step %d: loss %s (mask %s, region %s, no-target %s), gradient norm %s, %s; the batch"
                + " begins with '%s' of %s; %s; lower --lr or raise the warm-up, then --resume",
            done.step,
            losses.total(),
            losses.mask(),
            losses.region(),
            losses.negative(),
            status.norm(),
            broken.isEmpty()
                ? "all parameters finite"
                : broken.size() + " parameters not finite, first " + broken.get(0),
            done.batches.get(0).samples()[0].phrase(),
            done.batches.get(0).samples()[0].imagePath(),
            lastCheckpoint(s)));
  }

  private static String lastCheckpoint(Session s) {
    return s.lastCheckpoint == null
        ? "no checkpoint yet"
        : "last good checkpoint " + s.lastCheckpoint;
  }

  private String log(Session s, Started done, double perSecond) {
    TrainingStep.Losses losses = done.report.losses();
    AdamWOptimizer.Status status = done.report.status();
    Map<String, Object> values = new LinkedHashMap<>();
    values.put("loss", losses.total());
    values.put("loss.mask", losses.mask());
    values.put("loss.region", losses.region());
    values.put("loss.no_target", losses.negative());
    values.put("learning_rate", done.rate);
    values.put("gradient_norm", status.norm());
    values.put("loss_scale", status.scale());
    values.put("skipped_steps", status.skipped());
    values.put("expressions_per_second", perSecond);
    values.put("memory_peak_mib", backend.memory().stats().peak() >> 20);
    s.log.write(done.step, values);
    values.forEach((name, v) -> s.events.scalar(name, done.step, ((Number) v).doubleValue()));
    return String.format(
        Locale.ROOT,
        "loss %.3f  %.0f expressions/s  %d MiB",
        losses.total(),
        perSecond,
        backend.memory().stats().peak() >> 20);
  }

  /** Never of weights that are no numbers, before which the last good checkpoint would give way. */
  private void save(Session s) {
    List<String> broken = s.optimizer.notFinite();
    if (!broken.isEmpty()) {
      throw new TrainingFault(
          "training stopped at step %d: %d parameters not finite, first %s; %s; lower --lr or raise the warm-up, then --resume"
              .formatted(s.step, broken.size(), broken.get(0), lastCheckpoint(s)));
    }
    Path checkpoints = folder.resolve(CHECKPOINTS);
    Path file = TrainingCheckpoint.file(checkpoints, s.step);
    Map<String, String> metadata = new LinkedHashMap<>();
    metadata.put("train", new String(config.toJson(), StandardCharsets.UTF_8));
    metadata.put(MODEL_CONFIG, new String(model.config().toJson(), StandardCharsets.UTF_8));
    TrainingCheckpoint.write(
        file,
        new TrainingCheckpoint.State(
            s.step,
            Map.of(),
            s.optimizer.state(),
            s.loader.state(),
            s.weights.values(),
            s.mining == null ? 0 : s.mining.mean(),
            metadata),
        model.parameters());
    s.lastCheckpoint = file;
    TrainingCheckpoint.prune(checkpoints, config.keep());
  }

  private void evaluate(Session s) {
    if (validation == null) {
      return;
    }
    model.training(false);
    Dataset part =
        config.evalExpressions() > 0 ? first(validation, config.evalExpressions()) : validation;
    Metrics metrics;
    try (Segmenter segmenter = Segmenter.of(model, tokenizer, backend, Segmenter.EXPECT_NONE)) {
      metrics =
          Evaluator.run(
              segmenter,
              part,
              (done, sample, picture, truth, found, iou) -> {
                if (stop) {
                  throw new Stopped();
                }
              });
    } catch (Stopped e) {
      return; // the checkpoint that ends the run cannot wait for thousands of pictures
    } finally {
      model.training(true);
    }
    Map<String, Object> values = new LinkedHashMap<>();
    metrics
        .values()
        .forEach(
            (name, v) -> {
              values.put("val." + name, v);
              s.events.scalar("val/" + name, s.step, v);
            });
    s.log.write(s.step, values);
  }

  private static Dataset first(Dataset all, int n) {
    return new Dataset(
        all.name(), all.samples().subList(0, Math.min(n, all.samples().size())), all.skipped());
  }
}
