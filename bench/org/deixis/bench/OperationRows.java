package org.deixis.bench;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.bench.BenchCases.Cost;
import org.deixis.bench.BenchCases.Timed;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/** Single operations, forward alone and with backward, beside PyTorch and the machine's limit. */
final class OperationRows {
  /** What PyTorch is asked to be outdone by, with backward. */
  private static final Map<String, Double> WANTED =
      Map.of(
          "softmax",
          1.0,
          "layer_norm",
          1.0,
          "gelu",
          1.0,
          "bias_residual",
          1.0,
          "window_block",
          1.3);

  private static final String DEFAULT_ADAMW = "PyTorch default";

  private final Bench bench;
  private final Limits limits;

  /**
   * @param limits of the machine
   */
  OperationRows(Bench bench, Limits limits) {
    this.bench = bench;
    this.limits = limits;
  }

  void measure(Timed timed) {
    boolean forward = bench.wants(timed.name());
    boolean both = bench.wants(withBackward(timed));
    if (!forward && !both) {
      return;
    }
    try (OperationRun run = new OperationRun(bench.backend(), timed.opCase(), bench.dtype())) {
      if (forward) {
        bench.add(row(timed, timed.name(), timed.forward(), run::forward, false));
      }
      if (both) {
        Row row = row(timed, withBackward(timed), timed.both(), run::forwardBackward, true);
        if (WANTED.containsKey(timed.kind()) && hasTarget(row)) {
          row.wants(Row.PYTORCH, WANTED.get(timed.kind()));
        }
        bench.add(row);
      }
    }
  }

  /** What is wanted is said of the CPU. */
  private boolean hasTarget(Row row) {
    return row.peers().containsKey(Row.PYTORCH) && bench.backend().name().equals("cpu");
  }

  static String withBackward(Timed timed) {
    return timed.name() + ", with backward";
  }

  private Row row(Timed timed, String name, Cost cost, Runnable work, boolean backward) {
    List<Contender> contenders = new ArrayList<>();
    contenders.add(Contender.engine(bench.backend(), work));
    List<PeerProcess.Work> theirs = new ArrayList<>();
    try {
      if (bench.pytorch() != null) {
        Map<String, Object> task = new HashMap<>(timed.twin());
        task.put("backward", backward);
        task.put("dtype", bench.dtypeName());
        theirs.add(bench.pytorch().prepare(Row.PYTORCH, task));
        if (bench.compiled()) {
          task.put("compiled", true);
          theirs.add(bench.pytorch().prepare(Row.PYTORCH_COMPILED, task));
        }
      }
      contenders.addAll(theirs);
      return figures(
          Row.timed(Row.Group.OPERATIONS, name, Rounds.run(contenders, bench.effort())), cost);
    } finally {
      theirs.forEach(PeerProcess.Work::close);
    }
  }

  private Row figures(Row row, Cost cost) {
    double moved = cost.bytes(bench.dtype());
    return row.with("gflops", cost.flops() / row.engine() / 1e9)
        .with("gbs", moved / row.engine() / 1e9)
        .with("flops", cost.flops())
        .with("bytes", moved)
        .with("share_of_limit", limits.share(cost.flops(), moved, row.engine()));
  }

  /** Weights of so many blocks of Swin-B's third stage. */
  static List<int[]> blockShapes(int blocks, int c) {
    List<int[]> shapes = new ArrayList<>();
    for (int i = 0; i < blocks; i++) {
      shapes.add(new int[] {3 * c, c});
      shapes.add(new int[] {3 * c});
      shapes.add(new int[] {c, c});
      shapes.add(new int[] {c});
      shapes.add(new int[] {4 * c, c});
      shapes.add(new int[] {4 * c});
      shapes.add(new int[] {c, 4 * c});
      shapes.add(new int[] {c});
    }
    return shapes;
  }

  /** One step of AdamW over those tensors: fp32 masters, and with half precision their copies. */
  void adamW(String label, List<int[]> shapes) {
    String name = "adamw " + label;
    if (!bench.wants(name)) {
      return;
    }
    Backend backend = bench.backend();
    List<PeerProcess.Work> theirs = new ArrayList<>();
    try (Scope scope = Scope.open()) {
      Array control = zeros(backend, Shape.of(AdamW.SLOTS), DType.F32);
      backend.fill(control.slice(AdamW.LR, AdamW.LR + 1), 1e-6);
      backend.fill(control.slice(AdamW.SCALE, AdamW.SCALE + 1), 1);
      backend.fill(control.slice(AdamW.CLIP, AdamW.CLIP + 1), 1);
      List<AdamW.Slot> slots = new ArrayList<>();
      boolean half = bench.dtype().isHalf();
      long values = 0;
      for (int[] dims : shapes) {
        Shape shape = Shape.of(dims);
        Array gradient = backend.allocate(shape, bench.dtype());
        backend.fill(gradient, 1e-3);
        slots.add(
            new AdamW.Slot(
                zeros(backend, shape, DType.F32),
                gradient,
                zeros(backend, shape, DType.F32),
                zeros(backend, shape, DType.F32),
                half ? zeros(backend, shape, bench.dtype()) : null,
                1,
                0.02f));
        values += shape.size();
      }
      AdamW spec = new AdamW(0.9f, 0.999f, 1e-8f);
      List<Contender> contenders = new ArrayList<>();
      contenders.add(Contender.engine(backend, () -> backend.adamW(spec, slots, control)));
      if (bench.pytorch() != null) {
        for (boolean fused : new boolean[] {true, false}) {
          theirs.add(
              bench
                  .pytorch()
                  .prepare(
                      fused ? Row.PYTORCH : DEFAULT_ADAMW,
                      Map.of("kind", "adamw", "shapes", shapes, "fused", fused)));
        }
      }
      contenders.addAll(theirs);
      // Parameter and both moments read and written, the gradient read, the copy written.
      Cost cost = new Cost(15 * values, (half ? 2 : 1) * values, 24 * values);
      Row row =
          figures(
              Row.timed(Row.Group.OPERATIONS, name, Rounds.run(contenders, bench.effort())), cost);
      if (hasTarget(row)) {
        row.wants(Row.PYTORCH, 1.0);
      }
      bench.add(row);
    } finally {
      theirs.forEach(PeerProcess.Work::close);
    }
  }

  private static Array zeros(Backend backend, Shape shape, DType dtype) {
    Array a = backend.allocate(shape, dtype);
    backend.fill(a, 0);
    return a;
  }
}
