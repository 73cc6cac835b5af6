package org.deixis.train;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.deixis.backend.Backend;
import org.deixis.core.AtomicWrite;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.data.Dataset;
import org.deixis.data.TextTokenizer;
import org.deixis.eval.Evaluator;
import org.deixis.eval.Metrics;
import org.deixis.eval.MetricsFile;
import org.deixis.infer.Segmenter;
import org.deixis.model.gres.GuideModel;
import org.deixis.train.log.MetricsLog;
import org.deixis.train.log.ProgressBar;
import org.deixis.train.report.ContactSheet;
import org.deixis.train.report.HtmlReport;

/**
 * What ends a run: the evaluation of its model, {@code metrics.json}, {@code report.html}, and the
 * table on the console.
 */
public final class TrainingReport {
  /** Every how many expressions one is shown, and how many at most. */
  private static final int EVERY = 11;

  private static final int MOST = 36;

  /** How many of them stand on the contact sheet, and in a row of it. */
  private static final int SHEET = 8;

  private static final int SHEET_COLUMNS = 4;

  private TrainingReport() {}

  /**
   * @param validation data to evaluate on, or null for a report of the curves alone
   * @param folder the run's, with its {@code metrics.jsonl}
   * @param progress where progress goes, or null
   * @return what was measured, or null without validation data
   */
  public static Metrics write(
      Backend backend,
      GuideModel model,
      TextTokenizer tokenizer,
      Dataset validation,
      Path folder,
      PrintStream out,
      PrintStream progress) {
    HtmlReport report = HtmlReport.titled("Deixis: " + folder.getFileName());
    Metrics metrics = null;
    List<HtmlReport.GallerySample> samples = new ArrayList<>();
    if (validation != null) {
      model.training(false);
      ProgressBar bar = new ProgressBar(progress, "eval", 0, validation.size());
      try (Segmenter segmenter = Segmenter.of(model, tokenizer, backend, Segmenter.EXPECT_NONE)) {
        metrics =
            Evaluator.run(
                segmenter,
                validation,
                (done, sample, picture, truth, found, iou) -> {
                  if (done % EVERY == 1 && samples.size() < MOST) {
                    samples.add(
                        new HtmlReport.GallerySample(
                            sample.phrase(),
                            picture,
                            sample.noTarget() ? null : truth,
                            found.mask(),
                            found.noTarget(),
                            found.saysNoTarget(),
                            iou));
                  }
                  bar.update(done, "");
                });
      }
      bar.close();
      MetricsFile.write(folder, metrics);
    }
    report.summary(summary(backend, model, folder));
    if (metrics != null) {
      report.metrics(metrics);
    }
    Path log = folder.resolve("metrics.jsonl");
    report.curve("Loss", "loss", MetricsLog.series(log, "loss"));
    report.curve("Mask loss", "loss", MetricsLog.series(log, "loss.mask"));
    report.curve("No-target loss", "loss", MetricsLog.series(log, "loss.no_target"));
    report.curve("Learning rate", "rate", MetricsLog.series(log, "learning_rate"));
    List<double[]> gIoU = MetricsLog.series(log, "val.gIoU");
    if (!gIoU.isEmpty()) {
      report.curve("gIoU on validation", "%", gIoU);
    }
    samples.forEach(report::sample);
    Path file = folder.resolve("report.html");
    report.write(file);
    if (!samples.isEmpty()) {
      AtomicWrite.bytes(
          folder.resolve("gallery.png"),
          ContactSheet.png(samples.subList(0, Math.min(SHEET, samples.size())), SHEET_COLUMNS));
    }
    if (metrics != null) {
      out.print(metrics.table());
    }
    out.println("report: " + file);
    return metrics;
  }

  private static Map<String, Object> summary(Backend backend, GuideModel model, Path folder) {
    Map<String, Object> values = new LinkedHashMap<>();
    values.put("device", backend.name());
    values.put("parameters", String.format(Locale.ROOT, "%,d", model.parameterCount()));
    values.put("regions", model.config().adaptive() ? "adaptive" : model.config().regions());
    values.put("picture", model.config().imageHeight() + "×" + model.config().imageWidth());
    values.put(
        "peak memory",
        String.format(Locale.ROOT, "%,d MiB", backend.memory().stats().peak() >> 20));
    try {
      JsonNode train =
          new ObjectMapper().readTree(Files.readAllBytes(folder.resolve("train.json")));
      for (String key :
          new String[] {
            "steps", "images", "expressions", "accumulate", "rate", "precision", "seed"
          }) {
        values.put(key, train.path(key).asText());
      }
    } catch (IOException e) {
      throw new InputException(
          "cannot read " + folder.resolve("train.json") + ": " + Reason.of(e), e);
    }
    return values;
  }
}
