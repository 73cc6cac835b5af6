package org.deixis.bench;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import org.deixis.backend.Backend;
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
      for (int regions : new int[] {4, 8, 16}) {
        guide(regions);
      }
    } else {
      memory();
    }
  }

  private Effort slow() {
    return bench.effort(5, 11, 5);
  }

  /** The guide model at full size: Swin-B 224 and BERT-base. */
  private void guide(int regions) {
    int images = bench.options().pictures();
    int share = bench.options().share();
    GresConfig full = GresConfig.of(regions == 8 ? "guide-swin-b" : "guide-swin-b-p" + regions);
    GresConfig config = full.withPictures(GuideRows.SIZE, GuideRows.SIZE, full.swin());
    Map<String, Object> task = new HashMap<>();
    task.put("kind", "guide_step");
    task.put("config", "swin-b");
    task.put("images", images);
    task.put("share", share);
    task.put("regions", regions);
    row(
        "guide training step, Swin-B 224, %d × %d, P %d".formatted(images, share, regions),
        "expressions/s",
        () -> Steps.guide(backend, bench.dtype(), config, images, share),
        task,
        null,
        slow());
  }

  private void row(
      String name,
      String unit,
      Supplier<Steps> make,
      Map<String, ?> task,
      Double wanted,
      Effort effort) {
    if (!bench.wants(name)) {
      return;
    }
    List<PeerProcess.Work> theirs = new ArrayList<>();
    try (Steps steps = make.get()) {
      List<Contender> contenders = new ArrayList<>();
      contenders.add(Contender.engine(backend, steps::run));
      if (bench.pytorch() != null) {
        Map<String, Object> whole = new HashMap<>(task);
        whole.put("dtype", bench.dtypeName());
        theirs.add(bench.pytorch().prepare(Row.PYTORCH, whole));
        if (bench.compiled()) {
          whole.put("compiled", true);
          theirs.add(bench.pytorch().prepare(Row.PYTORCH_COMPILED, whole));
        }
      }
      contenders.addAll(theirs);
      steps.run();
      backend.synchronize();
      backend.memory().resetPeak();
      Row row =
          Row.timed(Row.Group.TRAINING, name, Rounds.run(contenders, effort))
              .asRate(unit, steps.amount())
              .with("peak_buffers_mib", backend.memory().stats().peak() / 1048576.0);
      for (PeerProcess.Work work : theirs) {
        work.facts()
            .fields()
            .forEachRemaining(
                f -> row.with(f.getKey() + " of " + work.name(), f.getValue().asDouble()));
      }
      if (wanted != null && row.peers().containsKey(Row.PYTORCH)) {
        row.wants(Row.PYTORCH, wanted);
      }
      bench.add(row);
    } finally {
      theirs.forEach(PeerProcess.Work::close);
      backend.memory().trim(); // the next row's step must not find this one's blocks
    }
  }

  private void memory() {
    memory(DEMO, StepMemory.DEMO, List.of("step", "--config", "small", "--steps", "20"));
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
