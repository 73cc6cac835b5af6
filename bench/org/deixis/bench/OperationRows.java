package org.deixis.bench;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
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
  private static final String ADAMW = "adamw";

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

  /** And on a card. */
  private static final double WANTED_OF_WINDOWS = 2.0;

  /** Shares of the measured limit that are wanted of a card. */
  private static final Map<String, Double> WANTED_SHARE =
      Map.of(
          "window_attention",
          0.6,
          "region_attention",
          0.75,
          "mask_loss",
          0.75,
          "layer_norm",
          0.6,
          ADAMW,
          0.85);

  /** Of these, with backward alone. */
  private static final Set<String> WANTED_SHARE_WITH_BACKWARD =
      Set.of("window_attention", "layer_norm");

  private static final String DEFAULT_ADAMW = "PyTorch default";
  private static final String GRADIENT_NORM = "gradient_norm";

  /** PyTorch's attention without its fused kernels, as separate calls. */
  private static final String UNFUSED = "PyTorch unfused";

  private static final Set<String> FUSED =
      Set.of("window_attention", "self_attention", "cross_attention");

  /** scaled_dot_product_attention where ours gives the map too, which that one does not. */
  private static final String WITHOUT_MAP = "PyTorch without map";

  private static final double CARD_WARMING = 0.3;

  private final Bench bench;
  private final Limits limits;
  private final long cycled;

  /**
   * @param limits of the machine
   * @param cycled bytes of operands that calls take turns with, on both sides; 0 for one set
   */
  OperationRows(Bench bench, Limits limits, long cycled) {
    this.bench = bench;
    this.limits = limits;
    this.cycled = cycled;
  }

  void measure(Timed timed) {
    boolean forward = bench.wants(timed.name());
    boolean both = timed.hasBackward() && bench.wants(withBackward(timed));
    if (!forward && !both) {
      return;
    }
    try (OperationRun run =
        new OperationRun(bench.backend(), timed.opCase(), bench.dtype(), cycled)) {
      if (forward) {
        bench.add(row(timed, timed.name(), timed.forward(), run, false));
      }
      if (both) {
        Row row = row(timed, withBackward(timed), timed.both(), run, true);
        if (WANTED.containsKey(timed.kind()) && hasTarget(row)) {
          row.wants(Row.PYTORCH, WANTED.get(timed.kind()));
        }
        if (onCard()
            && timed.kind().equals("window_attention")
            && row.peers().containsKey(Row.PYTORCH)) {
          row.wants(Row.PYTORCH, WANTED_OF_WINDOWS);
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

  private boolean onCard() {
    return bench.backend().name().equals("cuda");
  }

  /** On a card the code that launches is the same for all rows, and warm after the first ones. */
  private Effort effort() {
    Effort given = bench.effort();
    return onCard() ? given.withWarming(Math.min(given.warmSeconds(), CARD_WARMING)) : given;
  }

  private Row row(Timed timed, String name, Cost cost, OperationRun run, boolean backward) {
    Runnable work = backward ? run::forwardBackward : run::forward;
    List<PeerProcess.Work> theirs = new ArrayList<>();
    try {
      Map<String, Object> task = new HashMap<>(timed.twin());
      task.put("backward", backward);
      task.put("dtype", bench.dtypeName());
      task.put("sets", run.sets());
      bench.prepare(name, Row.PYTORCH, task, theirs);
      if (bench.compiled()) {
        variant("compiled", name, Row.PYTORCH_COMPILED, task, theirs);
      }
      if (onCard() && FUSED.contains(timed.kind())) {
        variant("unfused", name, UNFUSED, task, theirs);
      }
      if (onCard() && timed.kind().equals("region_attention")) {
        variant("without_map", name, WITHOUT_MAP, task, theirs);
      }
      bench.prepareLibTorch(name, task, theirs);
      Contender engine = Contender.engine(bench.backend(), work);
      Row row =
          figures(
              Row.timed(Row.Group.OPERATIONS, name, bench.time(name, engine, theirs, effort())),
              cost);
      if (run.sets() > 1) {
        row.with("sets", run.sets());
      }
      return backward || !WANTED_SHARE_WITH_BACKWARD.contains(timed.kind())
          ? share(row, timed.kind())
          : row;
    } finally {
      bench.drop(theirs);
    }
  }

  private void variant(
      String which, String name, String who, Map<String, Object> task, List<PeerProcess.Work> to) {
    task.put(which, true);
    bench.prepare(name, who, task, to);
    task.remove(which);
  }

  /** On a card, what is wanted is a share of its bandwidth. */
  private Row share(Row row, String kind) {
    Double wanted = WANTED_SHARE.get(kind);
    return wanted == null || !onCard() ? row : row.with("wanted_share", wanted);
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

  /** As many parameters as Swin-B, BERT-base and the guide's decoder have. */
  static List<int[]> guideShapes() {
    List<int[]> shapes = new ArrayList<>(List.of(new int[] {30_522, 768}));
    int[][] blocks = {{2, 128}, {2, 256}, {18 + 2, 512}, {2, 1024}, {12, 768}};
    for (int[] b : blocks) {
      shapes.addAll(blockShapes(b[0], b[1]));
    }
    return shapes;
  }

  /** The global norm of gradients of those shapes. */
  void gradientNorm(String label, List<int[]> shapes) {
    String name = GRADIENT_NORM + " " + label;
    if (!bench.wants(name)) {
      return;
    }
    Backend backend = bench.backend();
    List<PeerProcess.Work> theirs = new ArrayList<>();
    try (Scope scope = Scope.open()) {
      Array control = zeros(backend, Shape.of(AdamW.SLOTS), DType.F32);
      backend.fill(control.slice(AdamW.SCALE, AdamW.SCALE + 1), 1);
      List<Array> gradients = new ArrayList<>();
      long values = 0;
      for (int[] dims : shapes) {
        Array gradient = backend.allocate(Shape.of(dims), bench.dtype());
        backend.fill(gradient, 1e-3);
        gradients.add(gradient);
        values += gradient.size();
      }
      Map<String, Object> task = new HashMap<>();
      task.put("kind", GRADIENT_NORM);
      task.put("shapes", shapes);
      task.put("dtype", bench.dtypeName());
      bench.prepare(name, Row.PYTORCH, task, theirs);
      Contender engine =
          Contender.engine(backend, () -> backend.gradientNorm(gradients, 1, control));
      Cost cost = new Cost(2 * values, values, 0);
      bench.add(
          figures(
              Row.timed(Row.Group.OPERATIONS, name, bench.time(name, engine, theirs, effort())),
              cost));
    } finally {
      bench.drop(theirs);
    }
  }

  /** One step of AdamW over those tensors: fp32 masters, and with half precision their copies. */
  void adamW(String label, List<int[]> shapes) {
    String name = ADAMW + " " + label;
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
      for (boolean fused : new boolean[] {true, false}) {
        bench.prepare(
            name,
            fused ? Row.PYTORCH : DEFAULT_ADAMW,
            Map.of("kind", ADAMW, "shapes", shapes, "fused", fused),
            theirs);
      }
      Contender engine = Contender.engine(backend, () -> backend.adamW(spec, slots, control));
      // Parameter and both moments read and written, the gradient read, the copy written.
      Cost cost = new Cost(15 * values, (half ? 2 : 1) * values, 24 * values);
      Row row =
          figures(
              Row.timed(Row.Group.OPERATIONS, name, bench.time(name, engine, theirs, effort())),
              cost);
      share(row, ADAMW);
      if (hasTarget(row)) {
        row.wants(Row.PYTORCH, 1.0);
      }
      bench.add(row);
    } finally {
      bench.drop(theirs);
    }
  }

  private static Array zeros(Backend backend, Shape shape, DType dtype) {
    Array a = backend.allocate(shape, dtype);
    backend.fill(a, 0);
    return a;
  }
}
