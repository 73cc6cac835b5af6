package org.deixis.bench;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDate;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.core.DType;
import org.deixis.core.Env;
import org.deixis.core.InputException;

/**
 * One run of the bench: this machine's limits, models, training steps, operations and footprint,
 * beside PyTorch and ONNX Runtime in the same run, round by round in turns. For single kernels with
 * forks and errors, run {@link KernelBenchmark} under JMH.
 */
public final class Bench implements AutoCloseable {
  /**
   * What to measure.
   *
   * @param quick fewer rounds, and no rows of encoders alone
   * @param rounds of each contender, or null for what suits the row
   * @param groups parts of the table, in its order
   * @param only part of the names of rows to be measured, or null for all
   * @param dtype of models and operands
   * @param pictures of a batch on a GPU
   * @param share expressions of each of those
   * @param compiled whether PyTorch is also timed compiled
   */
  public record Options(
      boolean quick,
      Integer rounds,
      List<Row.Group> groups,
      String only,
      DType dtype,
      int pictures,
      int share,
      boolean compiled) {
    public static Options of(boolean quick, DType dtype) {
      return new Options(quick, null, List.of(Row.Group.values()), null, dtype, 16, 4, false);
    }
  }

  /**
   * Peers in a Python.
   *
   * @param python the interpreter; it has torch, timm, transformers, onnxruntime
   * @param scripts the folder of the peers' scripts
   */
  public record Peers(Path python, Path scripts) {
    Path pytorch() {
      return scripts.resolve("pytorch_peer.py");
    }

    Path onnxRuntime() {
      return scripts.resolve("onnxruntime_peer.py");
    }
  }

  private static final int CACHES = 4;

  /** Where a device does not say what its cache holds. */
  private static final long UNKNOWN_CACHE = 256L << 20;

  private final Backend backend;
  private final Options options;
  private final Effort effort;
  private final Peers peers;
  private final MavenPeers mavenPeers;
  private final PrintStream out;
  private final Standing pytorch;
  private final Standing libTorch;
  private final Standing libTorchProducts;
  private Path folder;
  private final BenchReport report = new BenchReport(Map.of(), Map.of(), List.of());
  private Row.Group printed;

  /**
   * @param peers in a Python; null to leave them out
   * @param mavenPeers null to leave them out
   * @param out where rows are printed as they come
   */
  public Bench(
      Backend backend,
      Options options,
      Effort effort,
      Peers peers,
      MavenPeers mavenPeers,
      PrintStream out) {
    this.backend = backend;
    this.options = options;
    this.effort = options.rounds() == null ? effort : effort.withRounds(options.rounds());
    this.peers = peers;
    this.mavenPeers = mavenPeers;
    this.out = out;
    about();
    pytorch =
        peers == null
            ? null
            : new Standing(() -> new PeerProcess(peers.python(), peers.pytorch(), peerDevice()));
    boolean maven = mavenPeers != null;
    libTorch = maven ? new Standing(() -> mavenPeers.libTorch(false)) : null;
    libTorchProducts = maven ? new Standing(() -> mavenPeers.libTorch(true)) : null;
    try {
      for (Standing peer : standing()) {
        versions(peer.process());
      }
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  /** A peer for the whole run: started when it is first asked, and again when it has ended. */
  private static final class Standing implements AutoCloseable {
    private final Supplier<PeerProcess> start;
    private PeerProcess process;

    Standing(Supplier<PeerProcess> start) {
      this.start = start;
    }

    PeerProcess process() {
      if (process != null && !process.alive()) {
        close();
      }
      if (process == null) {
        process = start.get();
      }
      return process;
    }

    @Override
    public void close() {
      if (process != null) {
        process.close();
        process = null;
      }
    }
  }

  private List<Standing> standing() {
    return Stream.of(pytorch, libTorch, libTorchProducts).filter(Objects::nonNull).toList();
  }

  /**
   * Measures a row. One that fails is noted, and the others go on: hours of a rented machine are
   * not lost by one of them.
   */
  void attempt(String name, Runnable row) {
    try {
      row.run();
    } catch (RuntimeException e) {
      failed(name, e);
    }
  }

  private void failed(String name, RuntimeException e) {
    String text = String.valueOf(e.getMessage()).strip().replaceAll("\\s*\\R\\s*", " | ");
    String line =
        name
            + ": "
            + (e instanceof InputException ? text : e.getClass().getSimpleName() + ": " + text);
    report.failed().add(line);
    out.println("FAILED " + line);
    out.flush();
    save();
  }

  /**
   * Has PyTorch build work for a row, if it is part of the run; what it cannot build is noted, and
   * the row goes without.
   */
  void prepare(String row, String who, Map<String, ?> task, List<PeerProcess.Work> to) {
    prepare(pytorch, row, who, task, to);
  }

  /** Likewise LibTorch from Maven Central, which has twins of a few operations only. */
  void prepareLibTorch(String row, Map<String, ?> task, List<PeerProcess.Work> to) {
    Standing peer = task.get("kind").equals("linear") ? libTorchProducts : libTorch;
    prepare(peer, row, Row.LIBTORCH_JAVA, task, to);
  }

  private void prepare(
      Standing peer, String row, String who, Map<String, ?> task, List<PeerProcess.Work> to) {
    if (peer == null) {
      return;
    }
    try {
      peer.process().prepare(who, task).ifPresent(to::add);
    } catch (InputException e) {
      failed(row + ", " + who, e);
    }
  }

  /** As {@link Rounds#run}, without the peers that fail at their first call, which is noted. */
  Map<String, Rounds.Timing> time(
      String row, Contender engine, List<? extends Contender> others, Effort given) {
    List<Contender> contenders = new ArrayList<>(List.of(engine));
    for (Contender other : others) {
      if (works(row, other)) {
        contenders.add(other);
      }
    }
    return Rounds.run(contenders, given);
  }

  /** A peer alone; nothing where it fails at its first call, which is noted. */
  Map<String, Rounds.Timing> time(String row, PeerProcess.Work peer, Effort given) {
    return works(row, peer) ? Rounds.run(List.of(peer), given) : Map.of();
  }

  private boolean works(String row, Contender other) {
    try {
      other.seconds(1, false);
      return true;
    } catch (InputException e) {
      failed(row + ", " + other.name(), e);
      return false;
    }
  }

  /** Lets the peer forget work; one that has ended has forgotten it. */
  void drop(List<PeerProcess.Work> works) {
    for (PeerProcess.Work work : works) {
      if (work.alive()) {
        work.close();
      }
    }
  }

  /** Writes the report after each row, so that a run that is broken off leaves what it has. */
  public void saveTo(Path target) {
    folder = target;
  }

  private void save() {
    if (folder != null) {
      report.write(folder);
    }
  }

  private String peerDevice() {
    return backend.name().equals("cuda") ? "cuda" : "cpu";
  }

  private void about() {
    report.about().put("date", LocalDate.now(ZoneOffset.UTC).toString());
    report.about().put("device", backend.name());
    if (backend.name().equals("cuda")) {
      report.about().put("card", backend.deviceName());
    }
    report.about().put("dtype", dtypeName());
    report.about().put("threads", Integer.toString(Env.threads()));
    report.about().put("machine", Machine.describe());
    report.about().put("java", System.getProperty("java.vm.version"));
    report.about().put("rounds", Integer.toString(this.effort.rounds()));
  }

  private void say(String fact, String value) {
    report.about().put(fact, value);
  }

  /** Measures what was asked for. */
  public BenchReport run() {
    Limits limits = Limits.measure(backend, options.dtype(), effort);
    limits(limits);
    for (Row.Group group : Row.Group.values()) {
      if (!options.groups().contains(group)) {
        continue;
      }
      attempt(group.name().toLowerCase(Locale.ROOT), () -> measure(group, limits));
    }
    return report;
  }

  private void measure(Row.Group group, Limits limits) {
    boolean gpu = backend.name().equals("cuda");
    switch (group) {
      case INFERENCE -> {
        if (gpu) {
          new DeviceRows(this).measure();
        } else {
          new GuideRows(this).measure();
        }
      }
      case TRAINING -> new TrainingRows(this).measure();
      case ENCODERS -> {
        if (!options.quick()) {
          new EncoderRows(this).measure();
        }
      }
      case OPERATIONS -> {
        if (gpu) {
          operations(
              limits,
              BenchCases.batch(options.pictures(), options.share()),
              cycledBytes(backend),
              "Swin-B, BERT-base and decoder",
              OperationRows.guideShapes());
        } else {
          operations(limits, BenchCases.cpu());
        }
      }
      case FOOTPRINT -> {
        if (!gpu) {
          new FootprintRows(this).measure();
        }
      }
    }
  }

  /**
   * Bytes of operands that a device's operations take turns with, so that each call reads memory
   * and not what the one before left in the cache: several times as much as that holds.
   */
  static long cycledBytes(Backend backend) {
    long cache = backend.memory().cacheBytes();
    return cache > 0 ? CACHES * cache : UNKNOWN_CACHE;
  }

  /** The limits' line of the table, and their place in the report. */
  void limits(Limits limits) {
    report.limits().put("gflops", limits.flops() / 1e9);
    report.limits().put("gbs", limits.bytes() / 1e9);
    out.printf(
        Locale.ROOT,
        "%s, %s threads, %s; limits: %.0f GFLOP/s (a large product), %.1f GB/s (a large copy)%n",
        report.about().get("machine"),
        report.about().get("threads"),
        dtypeName(),
        limits.flops() / 1e9,
        limits.bytes() / 1e9);
  }

  /** Of the optimiser, a few blocks: what a CPU takes milliseconds for. */
  void operations(Limits limits, List<BenchCases.Timed> cases) {
    OperationRows rows = new OperationRows(this, limits, 0);
    cases.forEach(c -> attempt(c.name(), () -> rows.measure(c)));
    String label = "3 blocks of Swin-B's third stage";
    attempt("adamw", () -> rows.adamW(label, OperationRows.blockShapes(3, 512)));
  }

  /**
   * The same on a card.
   *
   * @param cycled bytes of operands that calls take turns with
   * @param label of the optimiser's tensors
   * @param shapes of those
   */
  void operations(
      Limits limits, List<BenchCases.Timed> cases, long cycled, String label, List<int[]> shapes) {
    report.about().put("cycled_mib", Long.toString(cycled >> 20));
    OperationRows rows = new OperationRows(this, limits, cycled);
    attempt("gradient_norm", () -> rows.gradientNorm(label, shapes));
    attempt("adamw", () -> rows.adamW(label, shapes));
    cases.forEach(c -> attempt(c.name(), () -> rows.measure(c)));
  }

  Backend backend() {
    return backend;
  }

  Effort effort() {
    return effort;
  }

  /** For work of seconds: fewer rounds after so much warming, unless the caller chose them. */
  Effort effort(int quickRounds, int fullRounds, double warmSeconds) {
    int rounds = options.quick() ? quickRounds : fullRounds;
    return effort
        .withRounds(options.rounds() == null ? rounds : options.rounds())
        .withWarming(warmSeconds);
  }

  Options options() {
    return options;
  }

  DType dtype() {
    return options.dtype();
  }

  String dtypeName() {
    return options.dtype().name().toLowerCase(Locale.ROOT);
  }

  /** Null when those in a Python are not part of the run. */
  Peers peers() {
    return peers;
  }

  /** Null when those from Maven Central are not part of the run. */
  MavenPeers mavenPeers() {
    return mavenPeers;
  }

  boolean compiled() {
    return options.compiled();
  }

  /** Notes what a peer is made of. */
  void versions(PeerProcess peer) {
    peer.versions().fields().forEachRemaining(e -> say(e.getKey(), e.getValue().asText()));
  }

  boolean wants(String name) {
    return options.only() == null || name.contains(options.only());
  }

  void add(Row row) {
    if (row.group() != printed) {
      printed = row.group();
      out.println();
      out.println(TextTable.header(printed));
    }
    report.rows().add(row);
    out.println(TextTable.line(row));
    out.flush();
    save();
  }

  BenchReport report() {
    return report;
  }

  /** Rows and peers that could not be measured. */
  public int failures() {
    return report.failed().size();
  }

  /** Writes {@code bench.json} and {@code chart.png} into a folder. */
  public void write(Path folder) {
    out.println();
    out.println(report.write(folder));
    if (report.rows().stream().anyMatch(r -> !r.peers().isEmpty())) {
      Path chart = folder.resolve(RatioChart.FILE);
      RatioChart.write(report, chart);
      out.println(chart);
    }
  }

  @Override
  public void close() {
    standing().forEach(Standing::close);
  }

  /** A folder for files that rows need while they are measured. */
  static Path temporaryFolder() throws IOException {
    return Files.createTempDirectory("deixis-bench");
  }
}
