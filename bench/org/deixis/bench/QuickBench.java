package org.deixis.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Gemm;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Env;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.data.Batch;
import org.deixis.data.DataLoader;
import org.deixis.data.LoaderConfig;
import org.deixis.data.SceneMaker;
import org.deixis.data.TextTokenizer;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GresLoss;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.ParameterSource;
import org.deixis.optim.AdamWOptimizer;
import org.deixis.optim.ParameterGroup;
import org.deixis.train.TrainingStep;

/**
 * A table in a few minutes: this machine's limits, operations against them, and the demo's training
 * step, medians over rounds. For single kernels with forks and errors, run {@link KernelBenchmark}
 * under JMH.
 */
public final class QuickBench {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final int LIMIT_SIDE = 1024;
  private static final int COPY_ELEMENTS = 16 << 20;
  private static final long WARM_NANOS = 700_000_000L;

  private final Backend backend;
  private final int rounds;
  private final PrintStream out;
  private final ObjectNode root = JSON.createObjectNode();

  public QuickBench(Backend backend, int rounds, PrintStream out) {
    this.backend = backend;
    this.rounds = rounds;
    this.out = out;
  }

  /**
   * Measures, prints, and writes {@code folder/bench.json}.
   *
   * @param python that has PyTorch, or null to leave the peer out
   * @param peer PyTorch's script
   */
  public void run(Path folder, Path python, Path peer) {
    root.put("device", backend.name());
    root.put("threads", Env.threads());
    root.put("java", System.getProperty("java.vm.version"));
    double flops = gemmLimit();
    double bytes = copyLimit();
    root.put("gemm_limit_gflops", flops / 1e9);
    root.put("copy_limit_gbs", bytes / 1e9);
    out.printf(
        Locale.ROOT,
        "limits: %.0f GFLOP/s (a product of %d³), %.1f GB/s (a copy of %d MiB)%n",
        flops / 1e9,
        LIMIT_SIDE,
        bytes / 1e9,
        COPY_ELEMENTS >> 18);
    out.printf(
        "%-52s %10s %10s %9s %7s %6s%n",
        "operation", "forward", "+backward", "GFLOP/s", "GB/s", "limit");
    ArrayNode rows = root.putArray("operations");
    for (BenchCases.Timed t : BenchCases.all()) {
      operation(t, flops, bytes, rows.addObject());
    }
    ObjectNode step = root.putObject("training_step");
    trainingStep(step);
    if (python != null) {
      peer(python, peer, step);
    }
    write(folder);
  }

  private double gemmLimit() {
    try (Scope scope = Scope.open()) {
      Array a = filled(Shape.of(LIMIT_SIDE, LIMIT_SIDE));
      Array b = filled(Shape.of(LIMIT_SIDE, LIMIT_SIDE));
      Array c = filled(Shape.of(LIMIT_SIDE, LIMIT_SIDE));
      Gemm spec = Gemm.of(LIMIT_SIDE, LIMIT_SIDE, LIMIT_SIDE, false, false);
      return spec.flops() / seconds(() -> backend.gemm(spec, a, b, null, null, c));
    }
  }

  private double copyLimit() {
    try (Scope scope = Scope.open()) {
      Array a = filled(Shape.of(COPY_ELEMENTS));
      Array b = filled(Shape.of(COPY_ELEMENTS));
      return 8.0 * COPY_ELEMENTS / seconds(() -> backend.copy(a, b));
    }
  }

  private Array filled(Shape shape) {
    Array a = backend.allocate(shape, DType.F32);
    backend.fill(a, 0.5);
    return a;
  }

  private double seconds(Runnable work) {
    // By time, not by count: a short kernel needs thousands of calls before it is compiled for
    // good.
    long until = System.nanoTime() + WARM_NANOS;
    do {
      work.run();
      backend.synchronize();
    } while (System.nanoTime() < until);
    double[] times = new double[rounds];
    for (int i = 0; i < rounds; i++) {
      long t = System.nanoTime();
      work.run();
      backend.synchronize();
      times[i] = (System.nanoTime() - t) / 1e9;
    }
    Arrays.sort(times);
    return times[rounds / 2];
  }

  private void operation(BenchCases.Timed t, double flopLimit, double byteLimit, ObjectNode row) {
    OpCase c = t.opCase();
    try (Scope scope = Scope.open()) {
      List<Array> arrays = new ArrayList<>();
      for (int i = 0; i < c.inputs().size(); i++) {
        arrays.add(KernelBenchmark.operand(backend, c.inputs().get(i), i));
      }
      double forward =
          seconds(
              () -> {
                try (Scope s = Scope.open()) {
                  c.run().apply(variables(c, arrays, false));
                }
              });
      double both =
          seconds(
              () -> {
                Variable[] inputs = variables(c, arrays, true);
                try (Scope s = Scope.open();
                    Tape tape = Tape.open()) {
                  Variable[] y = c.run().apply(inputs);
                  List<Array> up = new ArrayList<>();
                  for (Variable v : y) {
                    up.add(filled(v.shape()));
                  }
                  tape.backward(List.of(y), up);
                } finally {
                  for (Variable v : inputs) {
                    v.clearGradient();
                  }
                }
              });
      // The roofline: a kernel can be no faster than its operations and its bytes allow.
      double limit = Math.max(t.flops() / flopLimit, t.bytes() / byteLimit);
      row.put("name", t.name());
      row.put("forward_s", forward);
      row.put("forward_backward_s", both);
      row.put("gflops", t.flops() / forward / 1e9);
      row.put("gbs", t.bytes() / forward / 1e9);
      row.put("share_of_limit", limit / forward);
      out.printf(
          Locale.ROOT,
          "%-52s %7.0f µs %7.0f µs %9.1f %7.1f %5.0f%%%n",
          t.name(),
          forward * 1e6,
          both * 1e6,
          t.flops() / forward / 1e9,
          t.bytes() / forward / 1e9,
          100 * limit / forward);
    }
  }

  private static Variable[] variables(OpCase c, List<Array> arrays, boolean gradients) {
    Variable[] v = new Variable[arrays.size()];
    for (int i = 0; i < v.length; i++) {
      v[i] =
          gradients && c.inputs().get(i).gradient()
              ? Variable.leaf(arrays.get(i))
              : Variable.constant(arrays.get(i));
    }
    return v;
  }

  /**
   * The demo's step: 8 pictures of 96×96, 4 expressions each, the small model, AdamW and clipping.
   */
  private void trainingStep(ObjectNode row) {
    SceneMaker.Spec spec = new SceneMaker.Spec(SceneMaker.SIMPLE, 96, 64, 0, 4, 1);
    try (TextTokenizer tokenizer = SceneMaker.tokenizer(SceneMaker.SIMPLE);
        GuideModel model =
            new GuideModel(
                ParameterSource.fresh(backend, 1),
                GresConfig.of("small").withVocab(tokenizer.vocabSize(), tokenizer.padId()),
                1);
        DataLoader loader =
            new DataLoader(
                SceneMaker.dataset(spec, SceneMaker.TRAIN),
                tokenizer,
                LoaderConfig.training(96, 8, 4, 10, 1).withPadToMax(true));
        AdamWOptimizer optimizer =
            new AdamWOptimizer(
                backend,
                ParameterGroup.of(model.parameters(), 1, 0.02),
                new AdamW(0.9f, 0.999f, 1e-8f),
                1,
                AdamWOptimizer.LossScaling.NONE)) {
      model.training(true);
      TrainingStep step = new TrainingStep(backend, model, new GresLoss(0.5f, 1, null), optimizer);
      Batch batch = loader.next();
      for (int i = 0; i < 250; i++) { // compile before measuring
        step.run(i, List.of(batch), 1e-3, false, null);
      }
      backend.memory().resetPeak();
      double t = seconds(() -> step.run(0, List.of(batch), 1e-3, false, null));
      row.put("seconds_per_step", t);
      row.put("expressions_per_second", batch.expressions() / t);
      row.put("peak_buffers_mib", backend.memory().stats().peak() >> 20);
      row.put("peak_resident_mib", residentMib());
      out.printf(
          Locale.ROOT,
          "training step of the demo: %.0f ms, %.0f expressions/s, %d MiB of buffers, %d MiB resident%n",
          t * 1e3,
          batch.expressions() / t,
          backend.memory().stats().peak() >> 20,
          residentMib());
    }
  }

  /** Highest resident set of this process, from the kernel; −1 where there is no /proc. */
  private static long residentMib() {
    try {
      for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
        if (line.startsWith("VmHWM:")) {
          return Long.parseLong(line.replaceAll("\\D", "")) >> 10;
        }
      }
    } catch (IOException e) {
      return -1; // not Linux
    }
    return -1;
  }

  /** PyTorch's step in the same run, on the same number of threads. */
  private void peer(Path python, Path script, ObjectNode step) {
    try {
      Process process =
          new ProcessBuilder(
                  python.toString(),
                  script.toString(),
                  "step",
                  "--threads",
                  Integer.toString(Env.threads()),
                  "--steps",
                  Integer.toString(rounds))
              .redirectError(ProcessBuilder.Redirect.DISCARD)
              .start();
      // All of it first: a parser would close the pipe at the last brace, under the writer's last
      // newline.
      JsonNode answer = JSON.readTree(process.getInputStream().readAllBytes());
      if (process.waitFor() != 0) {
        throw new InputException(python + " " + script + " failed; run it by hand to see why");
      }
      JsonNode theirs = answer.get("step");
      double ratio =
          step.get("expressions_per_second").asDouble()
              / theirs.get("expressions_per_second").asDouble();
      step.set("pytorch", theirs);
      step.put("pytorch_version", answer.get("torch").asText());
      step.put("ratio_to_pytorch", ratio);
      out.printf(
          Locale.ROOT,
          "PyTorch %s: %.0f expressions/s, %.0f MiB resident; ours is %.2f times as fast%n",
          answer.get("torch").asText(),
          theirs.get("expressions_per_second").asDouble(),
          theirs.get("peak_resident_mib").asDouble(),
          ratio);
    } catch (IOException e) {
      throw new InputException("cannot run " + python + ": " + e.getMessage(), e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new InputException("interrupted while PyTorch ran");
    }
  }

  private void write(Path folder) {
    Path file = folder.resolve("bench.json");
    try {
      Files.createDirectories(folder);
      Path temporary = folder.resolve("bench.json.partial");
      Files.write(temporary, JSON.writerWithDefaultPrettyPrinter().writeValueAsBytes(root));
      Files.move(
          temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
      out.println(file);
    } catch (IOException e) {
      throw new InputException("cannot write " + file + ": " + e.getMessage(), e);
    }
  }
}
