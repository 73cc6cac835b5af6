package org.deixis.cli;

import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import org.deixis.train.Demo;
import org.deixis.train.TrainConfig;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

@Command(
    name = "demo",
    description = {
      "Draws scenes, trains the small model on them from nothing, measures it on scenes it never saw, and writes a report",
      "with pictures. A few minutes on two cores; nothing is downloaded."
    })
final class DemoCommand extends BaseCommand {
  @Option(
      names = "--out",
      paramLabel = "DIR",
      defaultValue = "runs/demo",
      description = "Folder of the run. Default: ${DEFAULT-VALUE}.")
  private Path folder;

  @Option(
      names = "--steps",
      paramLabel = "N",
      description = "Optimiser steps; fewer are quicker and worse.")
  private Integer steps;

  @Option(
      names = "--seed",
      paramLabel = "N",
      defaultValue = "1",
      description = "Default: ${DEFAULT-VALUE}.")
  private long seed;

  @Option(names = "--quiet", description = "No progress.")
  private boolean quiet;

  @Mixin private EngineOptions engine;

  @Override
  public Integer call() {
    String changes = "{\"seed\":" + seed + (steps == null ? "" : ",\"steps\":" + steps) + "}";
    TrainConfig config = TrainConfig.DEMO.with("demo", changes.getBytes(StandardCharsets.UTF_8));
    Demo.run(engine.backend(err), config, folder, out, quiet ? null : err);
    out.printf(
        "try: ./deixis predict --model %s --image %s --text \"the red circle\" --out found%n",
        folder.resolve("model"), folder.resolve("scenes/images/scene_val_000000.png"));
    return 0;
  }
}
