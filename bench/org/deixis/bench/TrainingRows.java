package org.deixis.bench;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import org.deixis.backend.Backend;
import org.deixis.backend.Memory;
import org.deixis.core.DType;
import org.deixis.model.gres.GresConfig;

/**
 * Training steps beside PyTorch's with its fused AdamW; and each one's peak resident memory, of a
 * process that does nothing else.
 */
final class TrainingRows {
  private static final String DEMO = "demo's training step, 8 pictures of 96 × 4 expressions";
  private static final String SWIN_T = "Swin-T 224 training step, 4 pictures";
  private static final int SWIN_T_PICTURES = 4;
  private static final String MEMORY = ": peak resident memory";
  private static final String DEVICE_MEMORY = ": peak device memory";
  private static final String PEAK_OF_PEER = "peak_device_mib";

  private static final String APART = "apart";
  private static final double MIB = 1 << 20;

  /** A peer's memory by the engine's, at most. */
  private static final double PEER_MEMORY = 1.5;

  /** As the guide counts them. */
  private static final String STEPS = "steps/s";

  /** Side of the guide's large pictures. */
  private static final int LARGE = 480;

  private final Bench bench;
  private final Backend backend;

  TrainingRows(Bench bench) {
    this.bench = bench;
    this.backend = bench.backend();
  }

  void measure() {
    DType dtype = bench.dtype();
    boolean gpu = backend.name().equals("cuda");
    // A compiler's work first: the demo's step has many small kernels.
    row(
        DEMO,
        "expressions/s",
        () -> Steps.demo(backend, dtype),
        Map.of("kind", "guide_step", "config", "small"),
        gpu ? null : 1.5,
        bench.effort().withWarming(bench.options().quick() ? 10 : 20));
    row(
        SWIN_T,
        "pictures/s",
        () ->
            Steps.classifier(
                backend, dtype, GresConfig.of("guide-swin-t").swin(), SWIN_T_PICTURES, 224),
        Map.of("kind", "classifier_step", "config", "swin-t", "images", SWIN_T_PICTURES),
        gpu ? null : 1.2,
        slow());
    if (gpu) {
      for (int size : new int[] {GuideRows.SIZE, LARGE}) {
        for (int regions : new int[] {4, 8, 16}) {
          guide(size, regions);
        }
      }
    } else {
      bench.attempt(MEMORY, this::memory);
    }
  }

  private Effort slow() {
    return bench.effort(5, 11, 5);
  }

  /**
   * The guide model at full size, Swin-B and BERT-base, in the manner of the guide's table: steps a
   * second, and memory of the device.
   */
  private void guide(int size, int regions) {
    int images = bench.options().pictures();
    int share = bench.options().share();
    GresConfig full = GresConfig.of(regions == 8 ? "guide-swin-b" : "guide-swin-b-p" + regions);
    GresConfig config = full.withPictures(size, size, full.swin());
    Map<String, Object> task = new HashMap<>();
    task.put("kind", "guide_step");
    task.put("config", "swin-b");
    task.put("images", images);
    task.put("share", share);
    task.put("size", size);
    task.put("regions", regions);
    row(
        "guide training step, Swin-B %d, %d × %d, P %d".formatted(size, images, share, regions),
        STEPS,
        () -> Steps.guide(backend, bench.dtype(), config, images, share),
        task,
        regions == 8 ? 1.3 : null,
        slow());
  }

  private void row(
      String name,
      String unit,
      Supplier<Steps> make,
      Map<String, ?> task,
      Double wanted,
      Effort effort) {
    if (bench.wants(name)) {
      bench.attempt(name, () -> measure(name, unit, make, task, wanted, effort));
    }
  }

  /** Rows of a card in turns, or where it is too small for that, one after the other. */
  void measure(
      String name,
      String unit,
      Supplier<Steps> make,
      Map<String, ?> task,
      Double wanted,
      Effort effort) {
    Map<String, Object> whole = new HashMap<>(task);
    whole.put("dtype", bench.dtypeName());
    Map<String, Rounds.Timing> timings = new LinkedHashMap<>();
    Map<String, Double> peaks = new LinkedHashMap<>();
    List<PeerProcess.Work> theirs = new ArrayList<>();
    boolean apart = false;
    double amount;
    double peak;
    try {
      try (Steps steps = make.get()) {
        amount = steps.amount();
        if (onCard()) {
          // Of the second run graphs are made: now the step has all that it will ever hold.
          backend.memory().resetPeak();
          steps.run();
          steps.run();
          backend.synchronize();
          apart = tooSmall(backend.memory().stats(), names().size());
        }
        if (!apart) {
          for (String who : names()) {
            prepare(name, who, whole, theirs);
          }
        }
        steps.run();
        backend.synchronize();
        backend.memory().resetPeak();
        Contender engine = Contender.engine(backend, steps::run);
        timings.putAll(bench.time(name, engine, theirs, effort));
        peak = backend.memory().stats().peak() / MIB;
        theirs.forEach(work -> peak(work, peaks));
      }
      if (apart) {
        backend.memory().trim();
        for (String who : names()) {
          alone(name, who, whole, effort, timings, peaks);
        }
      }
    } finally {
      bench.drop(theirs);
      backend.memory().trim(); // the next row's step must not find this one's blocks
    }
    Row row =
        Row.timed(Row.Group.TRAINING, name, timings).asRate(unit, unit.equals(STEPS) ? 1 : amount);
    row.with("peak_buffers_mib", peak);
    if (apart) {
      row.with(APART, 1);
    }
    if (wanted != null && row.peers().containsKey(Row.PYTORCH)) {
      row.wants(Row.PYTORCH, wanted);
    }
    if (wanted != null && row.peers().containsKey(Row.PYTORCH_COMPILED)) {
      row.wants(Row.PYTORCH_COMPILED, 1);
    }
    bench.add(row);
    if (unit.equals(STEPS)) {
      Row memory = Row.of(Row.Group.TRAINING, name + DEVICE_MEMORY, "MiB", peak);
      row.peers().keySet().stream()
          .filter(peaks::containsKey)
          .forEach(who -> memory.peer(who, peaks.get(who)));
      if (memory.peers().containsKey(Row.PYTORCH)) {
        memory.wants(Row.PYTORCH, 1);
      }
      bench.add(memory);
    }
  }

  private boolean onCard() {
    return backend.name().equals("cuda");
  }

  private List<String> names() {
    if (bench.peers() == null) {
      return List.of();
    }
    return bench.compiled() ? List.of(Row.PYTORCH, Row.PYTORCH_COMPILED) : List.of(Row.PYTORCH);
  }

  /**
   * Whether the device cannot hold the engine's step and its peers' at once, theirs taken to be so
   * much larger.
   */
  static boolean tooSmall(Memory.Stats stats, int peers) {
    return stats.peak() * (1 + PEER_MEMORY * peers) > stats.cap();
  }

  private void prepare(
      String name, String who, Map<String, Object> task, List<PeerProcess.Work> to) {
    Map<String, Object> whole = new HashMap<>(task);
    if (who.equals(Row.PYTORCH_COMPILED)) {
      whole.put("compiled", true);
    }
    bench.prepare(name, who, whole, to);
  }

  /** A peer that has the device to itself. */
  private void alone(
      String name,
      String who,
      Map<String, Object> task,
      Effort effort,
      Map<String, Rounds.Timing> timings,
      Map<String, Double> peaks) {
    List<PeerProcess.Work> one = new ArrayList<>();
    try {
      prepare(name, who, task, one);
      for (PeerProcess.Work work : one) {
        timings.putAll(bench.time(name, work, effort));
        peak(work, peaks);
      }
    } finally {
      bench.drop(one);
    }
  }

  private static void peak(PeerProcess.Work work, Map<String, Double> to) {
    if (work.alive()) {
      to.put(work.name(), work.facts().path(PEAK_OF_PEER).asDouble(Double.NaN));
    }
  }

  private void memory() {
    memory(DEMO, StepMemory.DEMO, List.of("step", "--config", "small", "--steps", "10"));
    memory(
        SWIN_T,
        StepMemory.SWIN_T,
        List.of(
            "step",
            "--classifier",
            "--config",
            "swin-t",
            "--images",
            Integer.toString(SWIN_T_PICTURES),
            "--steps",
            "3"));
  }

  private void memory(String step, String which, List<String> twin) {
    String name = step + MEMORY;
    if (!bench.wants(name)) {
      return;
    }
    Row row = Row.of(Row.Group.TRAINING, name, "MiB", StepMemory.measure(which, bench.dtype()));
    if (bench.peers() != null) {
      double theirs =
          PeerProcess.once(bench.peers().python(), bench.peers().pytorch(), twin)
              .get("peak_resident_mib")
              .asDouble();
      row.peer(Row.PYTORCH, theirs).wants(Row.PYTORCH, 1.0);
    }
    bench.add(row);
  }
}
