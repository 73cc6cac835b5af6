package org.deixis.cli;

import java.nio.file.Path;
import org.deixis.bench.QuickBench;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

@Command(
    name = "bench",
    description = {
      "Times operations at the models' shapes and the demo's training step, beside this machine's measured limits; with",
      "--python also PyTorch on the same, in the same run. Writes bench.json."
    },
    footer = {"", "  deixis bench --quick --out measured --python venv/bin/python"})
final class BenchCommand extends BaseCommand {
  @Option(
      names = "--out",
      paramLabel = "DIR",
      required = true,
      description = "Where bench.json goes.")
  private Path folder;

  @Option(names = "--quick", description = "Fewer rounds: under five minutes.")
  private boolean quick;

  @Option(
      names = "--python",
      paramLabel = "FILE",
      description = "A Python that has torch, timm and transformers.")
  private Path python;

  @Option(
      names = "--peer",
      paramLabel = "FILE",
      defaultValue = "bench/pytorch_peer.py",
      description = "PyTorch's half. Default: ${DEFAULT-VALUE}.")
  private Path peer;

  @Mixin private EngineOptions engine;

  @Override
  public Integer call() {
    new QuickBench(engine.backend(err), quick ? 7 : 25, out).run(folder, python, peer);
    return 0;
  }
}
