package org.deixis.cli;

import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import org.deixis.backend.Backend;
import org.deixis.backend.KernelImages;
import org.deixis.bench.Bench;
import org.deixis.bench.BenchReport;
import org.deixis.bench.Effort;
import org.deixis.bench.MarkdownTable;
import org.deixis.bench.MavenPeers;
import org.deixis.bench.Row;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

@Command(
    name = "bench",
    description = {
      "Times models, training steps and operations, beside this machine's measured limits; with --python also PyTorch and",
      "ONNX Runtime on the same, in the same run, round by round in turns; with --maven-peers their Java packages, without",
      "a Python. Writes bench.json and chart.png."
    },
    footer = {
      "",
      "  deixis bench --quick --out measured --python venv/bin/python",
      "  deixis bench --rows operations --only softmax --out measured",
      "  deixis bench --quick --out measured --maven-peers",
      "  deixis bench --table measured/bench.json --into README.md"
    })
final class BenchCommand extends BaseCommand {
  @Option(names = "--out", paramLabel = "DIR", description = "Where bench.json and chart.png go.")
  private Path folder;

  @Option(names = "--quick", description = "Fewer rounds: under five minutes.")
  private boolean quick;

  @Option(
      names = "--rounds",
      paramLabel = "N",
      description = "Rounds of each contender; by default 25, with --quick 7, of slow rows fewer.")
  private Integer rounds;

  @Option(
      names = "--rows",
      paramLabel = "GROUP",
      split = ",",
      description = "Of ${COMPLETION-CANDIDATES}; by default all.")
  private List<Row.Group> groups = List.of(Row.Group.values());

  @Option(
      names = "--only",
      paramLabel = "TEXT",
      description = "Only rows whose name contains this.")
  private String only;

  @Option(
      names = "--python",
      paramLabel = "FILE",
      description = "A Python that has torch, timm, transformers and onnxruntime.")
  private Path python;

  @Option(
      names = "--peers",
      paramLabel = "DIR",
      defaultValue = "${sys:deixis.home:-.}/bench",
      description = "Where the peers' scripts are. Default: ${DEFAULT-VALUE}.")
  private Path peers;

  @Option(
      names = "--maven-peers",
      description = {
        "Time what Maven Central has beside it too: ONNX Runtime's Java package on the exported model, LibTorch",
        "(org.bytedeco:pytorch) on single operations. Fetched and built by mvn on first use; Linux on x86-64, CPU."
      })
  private boolean mavenPeers;

  @Option(
      names = "--fill-cache",
      description = {
        "Measures nothing: compiles all kernels of --device for later runs, on all cores. Those that DEIXIS_CACHE has",
        "are left as they are."
      })
  private boolean fillCache;

  @Option(names = "--compiled", description = "Time torch.compile too, which takes minutes.")
  private boolean compiled;

  @Option(
      names = "--dtype",
      paramLabel = "TYPE",
      description = "f32, f16 or bf16. Default: f32, and f16 on cuda.")
  private DType dtype;

  @Option(
      names = "--images",
      paramLabel = "N",
      defaultValue = "16",
      description = "Pictures of a batch on cuda. Default: ${DEFAULT-VALUE}.")
  private int pictures;

  @Option(
      names = "--share",
      paramLabel = "N",
      defaultValue = "4",
      description = "Expressions of each of those. Default: ${DEFAULT-VALUE}.")
  private int share;

  @Option(
      names = "--table",
      paramLabel = "FILE",
      arity = "1..*",
      description = {
        "Measures nothing; prints the tables of that bench.json as Markdown. Of several, made on one machine with one",
        "device and type, the rows are put together; --out then writes them as one bench.json."
      })
  private List<Path> tables = List.of();

  @Option(
      names = "--into",
      paramLabel = "FILE",
      arity = "1..*",
      description = "With --table: writes them between the comments of these documents instead.")
  private List<Path> documents = List.of();

  @Mixin private EngineOptions engine;

  @Override
  public Integer call() {
    if (!tables.isEmpty()) {
      BenchReport report =
          BenchReport.together(tables, tables.stream().map(BenchReport::read).toList());
      if (folder != null) {
        report.write(folder);
      }
      print(report);
      return 0;
    }
    if (fillCache) {
      fill(engine.backend(err));
      return 0;
    }
    if (folder == null) {
      throw new InputException("bench: --out is missing; say where bench.json goes");
    }
    if (!documents.isEmpty()) {
      throw new InputException("bench: --into goes with --table FILE");
    }
    if (pictures < 1 || share < 1 || pictures > 4096 / share) {
      throw new InputException(
          "bench: %d pictures of %d expressions; give 1 to 4096 expressions in all"
              .formatted(pictures, share));
    }
    if (rounds != null && rounds < 1) {
      throw new InputException("bench: --rounds " + rounds + "; give at least 1");
    }
    Backend backend = engine.backend(err);
    DType type = dtype != null ? dtype : backend.name().equals("cuda") ? DType.F16 : DType.F32;
    if (!type.isFloating() || !backend.supports(type)) {
      throw new InputException(
          "bench: device '%s' does not compute in %s"
              .formatted(backend.name(), type.name().toLowerCase(Locale.ROOT)));
    }
    if (mavenPeers && !backend.name().equals("cpu")) {
      throw new InputException(
          "bench: --maven-peers times peers on the CPU; leave it out with --device "
              + backend.name());
    }
    Bench.Options options =
        new Bench.Options(quick, rounds, groups, only, type, pictures, share, compiled);
    Bench.Peers others = python == null ? null : new Bench.Peers(python, peers);
    Effort effort = quick ? Effort.QUICK : Effort.FULL;
    Path home = Path.of(System.getProperty("deixis.home", "."));
    MavenPeers java = mavenPeers ? MavenPeers.built(home, err) : null;
    try (Bench bench = new Bench(backend, options, effort, others, java, out)) {
      bench.saveTo(folder);
      bench.run();
      bench.write(folder);
      return bench.failures() == 0 ? 0 : 1;
    }
  }

  private void fill(Backend backend) {
    long start = System.nanoTime();
    if (!(backend instanceof KernelImages images)) {
      throw new InputException(
          "bench: device '" + backend.name() + "' has no kernels to compile; give --device cuda");
    }
    int files = images.compileKernels(Runtime.getRuntime().availableProcessors());
    out.printf(
        Locale.ROOT,
        "%d kernel files for %s in %.1f s%n",
        files,
        backend.deviceName(),
        (System.nanoTime() - start) / 1e9);
  }

  private void print(BenchReport report) {
    for (Path document : documents) {
      MarkdownTable.into(document, report);
    }
    if (documents.isEmpty()) {
      for (MarkdownTable.Part part : MarkdownTable.Part.values()) {
        out.println(MarkdownTable.of(report, part));
      }
    }
  }
}
