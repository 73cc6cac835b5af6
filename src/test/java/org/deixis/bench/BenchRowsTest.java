package org.deixis.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.bench.OpCase.Kind;
import org.deixis.core.DType;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.swin.SwinConfig;
import org.deixis.model.swin.WindowRule;
import org.deixis.ops.Scale;
import org.deixis.testing.CudaHost;
import org.deixis.testing.Host;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.results.ScalarResult;
import org.openjdk.jmh.runner.options.CommandLineOptionException;
import org.openjdk.jmh.runner.options.CommandLineOptions;
import org.openjdk.jmh.runner.options.Options;

/** Rows that the bench makes, at shapes that take no time. */
class BenchRowsTest {
  private static final Effort ONCE = new Effort(1, 0, 0);

  private static BenchReport operations(Backend backend, DType dtype, String printed) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try (Bench bench =
        new Bench(
            backend,
            Bench.Options.of(true, dtype),
            ONCE,
            null,
            null,
            new PrintStream(out, true, StandardCharsets.UTF_8))) {
      Limits limits = Limits.measure(backend, dtype, 32, 1 << 12, ONCE);
      bench.limits(limits);
      if (backend.name().equals("cuda")) {
        bench.operations(
            limits, BenchCases.tiny(), 2000, "a block", OperationRows.blockShapes(1, 16));
      } else {
        bench.operations(limits, BenchCases.tiny());
      }
      String text = out.toString(StandardCharsets.UTF_8);
      assertTrue(text.contains(printed), text);
      assertTrue(text.contains("of the limit"), text);
      return bench.report();
    }
  }

  /** Every family forward and, where it has one, with backward, and so many of the optimiser. */
  private static void complete(BenchReport report, DType dtype, int more) {
    assertEquals(List.of(), report.failed());
    long both = BenchCases.tiny().stream().filter(BenchCases.Timed::hasBackward).count();
    assertEquals(BenchCases.tiny().size() + both + more, report.rows().size());
    for (Row row : report.rows()) {
      assertTrue(row.engine() > 0, row.name());
      double flops = row.more().get("flops");
      double bytes = row.more().get("bytes");
      assertTrue(flops >= 0 && bytes > 0, row.name()); // copies have no operations
      double limit =
          Math.max(
              flops / (report.limits().get("gflops") * 1e9),
              bytes / (report.limits().get("gbs") * 1e9));
      assertEquals(limit / row.engine(), row.more().get("share_of_limit"), 1e-9, row.name());
    }
    Row softmax =
        report.rows().stream().filter(r -> r.name().equals("softmax 12×49")).findFirst().get();
    assertEquals(2.0 * 12 * 49 * dtype.bytes(), softmax.more().get("bytes"));
  }

  @Test
  void operationsOnTheCpu() {
    complete(operations(Backends.get("cpu"), DType.F32, "f32; limits"), DType.F32, 1);
  }

  @Test
  @Tag("cuda-host")
  void operationsInHalfPrecisionOnTheStandInDriver() {
    CudaHost.require();
    BenchReport report = operations(CudaHost.backend(), DType.F16, "f16; limits");
    assertEquals("cuda", report.about().get("device"));
    complete(report, DType.F16, 2);
    assertEquals(
        List.of("gradient_norm a block", "adamw a block"),
        report.rows().stream().limit(2).map(Row::name).toList());
    for (Row row : report.rows()) {
      if (row.name().equals("layer_norm 8×16")) {
        // 8·16 + 2·16 operands and 8·16 of the gradient, 2 bytes each: the fourth passes 2,000.
        assertEquals(4, row.more().get("sets"));
      }
    }
  }

  /** Calls read and write other memory each, until the first set's turn comes again. */
  @Test
  void operandsTakeTurns() {
    Backend cpu = Backends.get("cpu");
    long before = cpu.memory().stats().live();
    List<Object> read = new ArrayList<>();
    OpCase twice =
        OpCase.op("twice", "4")
            .in(4)
            .run(
                v -> {
                  read.add(v[0].array().buffer());
                  return Scale.apply(v[0], 2);
                });
    try (OperationRun run = new OperationRun(cpu, twice, DType.F32, 65)) {
      assertEquals(3, run.sets(), "each has 16 bytes of operands and 16 of its gradient");
      read.clear();
      for (int i = 0; i < 7; i++) {
        if (i % 2 == 0) {
          run.forward();
        } else {
          run.forwardBackward();
        }
      }
      assertEquals(3, new HashSet<>(read).size());
      for (int i = 3; i < 7; i++) {
        assertSame(read.get(i - 3), read.get(i));
      }
    }
    assertEquals(before, cpu.memory().stats().live());
    try (OperationRun run = new OperationRun(cpu, twice, DType.F32)) {
      assertEquals(1, run.sets());
    }
  }

  /** A padded batch has phrases of four lengths, without gaps. */
  @Test
  void phrasesArePadded() {
    List<Integer> seen = new ArrayList<>();
    OpCase mask =
        OpCase.op("mask", "5×8")
            .in(1)
            .in(Kind.MASK, 0.25, 5, 8)
            .run(
                v -> {
                  for (double one : Host.download(v[1].array())) {
                    seen.add((int) one);
                  }
                  return Scale.apply(v[0], 1);
                });
    new OperationRun(Backends.get("cpu"), mask, DType.F32).close();
    int[] lengths = {8, 6, 4, 2, 8};
    for (int row = 0; row < 5; row++) {
      for (int i = 0; i < 8; i++) {
        assertEquals(i < lengths[row] ? 1 : 0, seen.get(8 * row + i), row + ", " + i);
      }
    }
  }

  private static final SwinConfig TINY =
      new SwinConfig(8, List.of(1, 1, 1, 1), List.of(1, 1, 2, 2), 4, WindowRule.SHRINK, 0, false);

  /** What a GPU's training rows run, and what the memory rows run in their own process. */
  private static void steps(Backend backend, DType dtype) {
    GresConfig small = GresConfig.of("small").withPictures(32, 32, TINY);
    long before = backend.memory().stats().live();
    try (Steps classifier = Steps.classifier(backend, dtype, TINY, 2, 32);
        Steps guide = Steps.guide(backend, dtype, small, 1, 2)) {
      assertEquals(2, classifier.amount());
      assertEquals(2, guide.amount());
      long held = 0;
      // Where steps become graphs, the second one is captured, and its inputs stay on the device.
      for (int i = 0; i < 4; i++) {
        classifier.run();
        guide.run();
        if (i == 1) {
          held = backend.memory().stats().live();
        }
      }
      assertEquals(held, backend.memory().stats().live(), "a step leaves memory behind");
    }
    assertEquals(before, backend.memory().stats().live(), "something was not closed");
  }

  @Test
  void trainingStepsOnTheCpu() {
    steps(Backends.get("cpu"), DType.F32);
  }

  @Test
  @Tag("cuda-host")
  void trainingStepsInHalfPrecisionOnTheStandInDriver() {
    CudaHost.require();
    steps(CudaHost.backend(), DType.F16);
  }

  @Test
  @Tag("cuda-host")
  void inferenceOnTheStandInDriver() {
    CudaHost.require();
    Backend backend = CudaHost.backend();
    long before = backend.memory().stats().live();
    GresConfig small = GresConfig.of("small").withPictures(32, 32, TINY);
    try (Bench bench = bench(backend, DType.F16)) {
      DeviceRows rows = new DeviceRows(bench);
      rows.measure("tiny, ", small, 1, false);
      rows.measure("tiny, ", small, 2, false);
      List<Row> made = bench.report().rows();
      assertEquals(List.of(), bench.report().failed());
      assertEquals(
          List.of(
              "tiny, one phrase, f16",
              "tiny, one phrase, f16: mask against fp32's",
              "tiny, 2 phrases, f16"),
          made.stream().map(Row::name).toList());
      for (int i : new int[] {0, 2}) {
        assertEquals(2, made.get(i).more().get("graphs"), "the graphs of a picture and of phrases");
        assertEquals(Set.of("Deixis, call by call"), made.get(i).peers().keySet());
      }
      assertTrue(made.get(1).engine() > 0.9, "IoU " + made.get(1).engine());
    }
    assertEquals(before, backend.memory().stats().live());
  }

  private static Bench bench(Backend backend, DType dtype) {
    PrintStream nowhere =
        new PrintStream(new ByteArrayOutputStream(), true, StandardCharsets.UTF_8);
    Effort some = new Effort(3, 0.05, 0);
    return new Bench(backend, Bench.Options.of(true, dtype), some, null, null, nowhere);
  }

  @Test
  @Tag("cuda-host")
  void theLaunchPathOnTheStandInDriver() {
    CudaHost.require();
    Backend backend = CudaHost.backend();
    long before = backend.memory().stats().live();
    LaunchBenchmark benchmark = new LaunchBenchmark();
    benchmark.prepare(backend);
    benchmark.launch();
    benchmark.packing();
    benchmark.allocation();
    benchmark.replay();
    benchmark.free();
    assertEquals(before, backend.memory().stats().live());
  }

  /** A row that fails is noted; those after it are measured, and what there is lies on the disk. */
  @Test
  void aRowThatFailsStopsNoOther(@TempDir Path dir) {
    try (Bench bench = bench(Backends.get("cpu"), DType.F32)) {
      bench.saveTo(dir);
      bench.attempt(
          "one",
          () -> {
            throw new IllegalStateException("the device\nis gone");
          });
      bench.attempt("two", () -> bench.add(Row.of(Row.Group.OPERATIONS, "two", "s", 1)));
      BenchReport left = BenchReport.read(dir.resolve(BenchReport.FILE));
      assertEquals(List.of("one: IllegalStateException: the device | is gone"), left.failed());
      assertEquals(List.of("two"), left.rows().stream().map(Row::name).toList());
      assertEquals(1, bench.failures());
    }
  }

  /** PyTorch's half knows every kind of case that we ask of it. */
  @Test
  void thePeerHasATwinOfEveryFamily() throws IOException {
    String script = Files.readString(Path.of("bench/peer_operations.py"));
    Set<String> kinds = new HashSet<>();
    for (List<BenchCases.Timed> cases :
        List.of(BenchCases.cpu(), BenchCases.batch(2, 2), BenchCases.tiny())) {
      cases.forEach(c -> kinds.add(c.kind()));
    }
    for (String kind : kinds) {
      assertTrue(script.contains("\"" + kind + "\": _" + kind), kind);
    }
  }

  @Test
  void namesAreNotTakenTwice() {
    for (List<BenchCases.Timed> cases : List.of(BenchCases.cpu(), BenchCases.batch(16, 4))) {
      Set<String> names = new HashSet<>();
      cases.forEach(c -> assertTrue(names.add(c.name()), c.name()));
    }
  }

  @Test
  void theKernelBenchmarkNamesCasesThatExist() throws NoSuchFieldException {
    for (String name : KernelBenchmark.class.getField("name").getAnnotation(Param.class).value()) {
      assertEquals(name, BenchCases.byName(name).name());
    }
    for (String name : KernelBenchmark.OF_A_CARD) {
      assertTrue(BenchCases.byName(name).hasBackward(), name);
    }
    assertThrows(IllegalArgumentException.class, () -> BenchCases.byName("softmax 1×1"));
  }

  @Test
  void theKernelBenchmarkTakesTheDevicesShapes() throws CommandLineOptionException {
    Options cpu = KernelBenchmark.options(new CommandLineOptions("-p", "device=cpu"));
    assertFalse(cpu.getParameter("name").hasValue());
    Options card = KernelBenchmark.options(new CommandLineOptions("-p", "device=cuda"));
    assertEquals(KernelBenchmark.OF_A_CARD, List.copyOf(card.getParameter("name").get()));
    assertEquals(List.of("f16"), List.copyOf(card.getParameter("dtype").get()));
    Options one =
        KernelBenchmark.options(
            new CommandLineOptions("-p", "device=cuda", "-p", "name=x", "-p", "dtype=bf16"));
    assertEquals(List.of("x"), List.copyOf(one.getParameter("name").get()));
    assertEquals(List.of("bf16"), List.copyOf(one.getParameter("dtype").get()));
  }

  /** 12,544 rows of 49 in half precision, read and written, in a millisecond. */
  @Test
  void ratesAreOfBytesAndOperations() {
    BenchCases.Timed softmax = BenchCases.byName("softmax 12544×49");
    List<ScalarResult> rates = RateProfiler.rates(softmax, true, DType.F16, 1e-3);
    assertEquals(
        List.of("GB/s", "GFLOP/s"), rates.stream().map(ScalarResult::getScoreUnit).toList());
    assertEquals(2 * 2 * 12544 * 49 / 1e6, rates.get(0).getScore(), 1e-9);
    assertEquals(5 * 12544 * 49 / 1e6, rates.get(1).getScore(), 1e-9);
    BenchCases.Timed copy = BenchCases.byName("merge_gather 16×56²×128");
    assertEquals(1, RateProfiler.rates(copy, true, DType.F16, 1e-3).size());
  }

  @Test
  void aKernelBenchmarkRuns() {
    KernelBenchmark benchmark = new KernelBenchmark();
    benchmark.name = "self_attention 1×20×768";
    benchmark.device = "cpu";
    benchmark.dtype = "f32";
    benchmark.prepare();
    long before = Backends.get("cpu").memory().stats().live();
    benchmark.forward();
    benchmark.forwardBackward();
    assertEquals(before, Backends.get("cpu").memory().stats().live(), "a run leaves memory behind");
    benchmark.free();
  }
}
