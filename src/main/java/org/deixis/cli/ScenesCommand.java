package org.deixis.cli;

import java.nio.file.Path;
import org.deixis.core.InputException;
import org.deixis.data.SceneMaker;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

@Command(
    name = "scenes",
    description =
        "Draws a data set of coloured shapes with phrases and masks, in gRefCOCO's layout.",
    footer = {"", "  deixis scenes --out scenes --difficulty full --train 2000 --val 200"})
final class ScenesCommand extends BaseCommand {
  @Option(names = "--out", paramLabel = "DIR", required = true, description = "Folder to make.")
  private Path folder;

  @Option(
      names = "--difficulty",
      paramLabel = "NAME",
      defaultValue = SceneMaker.SIMPLE,
      description = "simple or full. Default: ${DEFAULT-VALUE}.")
  private String difficulty;

  @Option(
      names = "--train",
      paramLabel = "N",
      defaultValue = "1000",
      description = "Training pictures. Default: ${DEFAULT-VALUE}.")
  private int train;

  @Option(
      names = "--val",
      paramLabel = "N",
      defaultValue = "128",
      description = "Validation pictures. Default: ${DEFAULT-VALUE}.")
  private int val;

  @Option(
      names = "--size",
      paramLabel = "PIXELS",
      defaultValue = "96",
      description = "Side of a picture. Default: ${DEFAULT-VALUE}.")
  private int size;

  @Option(
      names = "--expressions",
      paramLabel = "N",
      defaultValue = "8",
      description = "Phrases a picture. Default: ${DEFAULT-VALUE}.")
  private int expressions;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Default: ${DEFAULT-VALUE}.")
  private long seed;

  @Override
  public Integer call() {
    if (train == 0 && val == 0) {
      throw new InputException("--train and --val are both 0: there is nothing to draw");
    }
    SceneMaker.write(folder, new SceneMaker.Spec(difficulty, size, train, val, expressions, seed));
    out.printf(
        "%s: %d training and %d validation pictures, %d phrases each%n",
        folder, train, val, expressions);
    return 0;
  }
}
