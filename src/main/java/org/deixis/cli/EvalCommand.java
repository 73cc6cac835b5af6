package org.deixis.cli;

import java.nio.file.Path;
import org.deixis.data.Dataset;
import org.deixis.eval.Evaluator;
import org.deixis.eval.Metrics;
import org.deixis.eval.MetricsFile;
import org.deixis.infer.Segmenter;
import org.deixis.train.log.ProgressBar;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

@Command(
    name = "eval",
    description =
        "Measures a model on a data set: gIoU, cIoU, N-acc, T-acc, Pr@0.5 to Pr@0.9, in all and by kind.",
    footer = {
      "",
      "  deixis eval --model runs/first/model --data scenes --split val --out measured"
    })
final class EvalCommand extends BaseCommand {
  @Option(names = "--model", paramLabel = "DIR", required = true, description = "Model folder.")
  private Path model;

  @Option(
      names = "--data",
      paramLabel = "DIR",
      required = true,
      description = "Data set, in either layout.")
  private Path data;

  @Option(
      names = "--split",
      paramLabel = "NAME",
      defaultValue = "val",
      description = "Default: ${DEFAULT-VALUE}.")
  private String split;

  @Option(
      names = "--out",
      paramLabel = "DIR",
      required = true,
      description = "Where metrics.json goes.")
  private Path folder;

  @Option(
      names = "--expect-none",
      paramLabel = "P",
      defaultValue = "0.5",
      description =
          "Probability from which a phrase is said to name nothing. Default: ${DEFAULT-VALUE}.")
  private double expectNone;

  @Option(
      names = "--skip-bad",
      description = "Leave damaged records out, and list them, instead of stopping.")
  private boolean skipBad;

  @Option(names = "--quiet", description = "No progress.")
  private boolean quiet;

  @Option(
      names = "--precision",
      paramLabel = "TYPE",
      defaultValue = "fp32",
      description =
          "Type that products multiply in: fp32, bf16 or fp16, where the device gains from it."
              + " Default: ${DEFAULT-VALUE}.")
  private String precision;

  @Mixin private EngineOptions engine;

  @Override
  public Integer call() {
    Dataset dataset = Dataset.open(data, split, skipBad);
    dataset.skipped().forEach(line -> err.println("deixis: skipped " + line));
    try (Segmenter segmenter =
        Segmenter.open(model, engine.device(err), expectNone, EngineOptions.precision(precision))) {
      ProgressBar bar = new ProgressBar(quiet ? null : err, "eval", 0, dataset.size());
      Metrics metrics =
          Evaluator.run(
              segmenter,
              dataset,
              (done, sample, picture, truth, found, iou) -> bar.update(done, ""));
      bar.close();
      out.print(metrics.table());
      out.println(MetricsFile.write(folder, metrics));
    }
    return 0;
  }
}
