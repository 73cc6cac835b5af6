package org.deixis.optim;

import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Download;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.nn.Parameter;
import org.deixis.tensor.Tensor;

/**
 * AdamW over parameter groups, with clipping by the global norm and dynamic loss scaling.
 * Everything that a step decides by (rate, scale, overflow, step count) is the control array on the
 * device, so a step waits for nothing.
 */
public final class AdamWOptimizer implements AutoCloseable {
  /**
   * Dynamic loss scaling (Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2).
   *
   * @param initial first scale; 1 without scaling
   * @param growthInterval good steps after which the scale doubles; 0 keeps it
   */
  public record LossScaling(double initial, int growthInterval) {
    public static final LossScaling NONE = new LossScaling(1, 0);

    /** PyTorch's GradScaler defaults. */
    public static final LossScaling DYNAMIC = new LossScaling(65_536, 2_000);
  }

  /**
   * What the device knows after a step.
   *
   * @param norm global gradient norm before clipping
   * @param skipped steps left out because a gradient was not finite
   */
  public record Status(long step, double scale, double norm, boolean overflow, long skipped) {}

  private record Trained(
      String name, Parameter parameter, Array m, Array v, ParameterGroup group) {}

  private final Backend backend;
  private final AdamW spec;
  private final double maxNorm;
  private final LossScaling scaling;
  private final List<Trained> trained = new ArrayList<>();
  private final Array control;

  /**
   * @param maxNorm largest global gradient norm; 0 does not clip
   */
  public AdamWOptimizer(
      Backend backend,
      List<ParameterGroup> groups,
      AdamW spec,
      double maxNorm,
      LossScaling scaling) {
    this.backend = backend;
    this.spec = spec;
    this.maxNorm = maxNorm;
    this.scaling = scaling;
    try (Scope scope = Scope.open()) {
      control = Scope.detach(backend.allocate(Shape.of(AdamW.SLOTS), DType.F32));
      backend.fill(control, 0);
      backend.fill(slot(AdamW.SCALE), scaling.initial());
      for (ParameterGroup group : groups) {
        group
            .parameters()
            .forEach((name, p) -> trained.add(new Trained(name, p, zeros(p), zeros(p), group)));
      }
    }
  }

  private Array zeros(Parameter p) {
    Array a = Scope.detach(backend.allocate(p.shape(), DType.F32));
    backend.fill(a, 0);
    return a;
  }

  private Array slot(int i) {
    return control.slice(i, i + 1);
  }

  /**
   * The gradient that backward starts with at the loss (1): the loss scale over {@code accumulate}
   * micro-batches, computed on the device. Belongs to the current scope.
   */
  public Array seed(Shape shape, int accumulate) {
    Array seed = backend.allocate(shape, DType.F32);
    backend.axpby(1.0 / accumulate, slot(AdamW.SCALE).view(shape), 0, seed);
    return seed;
  }

  /** {@link #rate} and {@link #update}. */
  public void step(double rate) {
    rate(rate);
    update();
  }

  /** Tells the device the learning rate of the coming updates. */
  public void rate(double rate) {
    backend.fill(slot(AdamW.LR), rate);
  }

  /** Whether a parameter holds a gradient. */
  public boolean holdsGradients() {
    return trained.stream().anyMatch(t -> t.parameter.gradient() != null);
  }

  /**
   * A number that differs once a parameter is read from other memory or is trained or not otherwise
   * than before: then steps that were captured are no longer valid.
   */
  public long layout() {
    return trained.stream().mapToLong(t -> t.parameter.layout()).sum();
  }

  /**
   * One update with the gradients that the parameters hold, which are then dropped. All that it
   * depends on is on the device, so that it can be captured and replayed.
   */
  public void update() {
    List<Array> gradients = new ArrayList<>();
    List<AdamW.Slot> slots = new ArrayList<>();
    for (Trained t : trained) {
      Array g = t.parameter.gradient();
      if (g != null) {
        gradients.add(g);
        slots.add(
            new AdamW.Slot(
                t.parameter.master(),
                g,
                t.m,
                t.v,
                t.parameter.half(),
                (float) t.group.rateFactor(),
                (float) t.group.weightDecay()));
      }
    }
    backend.gradientNorm(gradients, maxNorm, control);
    backend.adamW(spec, slots, control);
    backend.advance(scaling.growthInterval(), control);
    trained.forEach(t -> t.parameter.clearGradient());
  }

  /** Reads the control array; waits for the device. */
  public Status status() {
    return statusNow().get();
  }

  /** The status after what was asked of the device so far; waits for it only when taken. */
  public Supplier<Status> statusNow() {
    Download download = backend.download(control);
    return () -> {
      FloatBuffer c = download.get().asFloatBuffer();
      return new Status(
          (long) c.get(AdamW.STEP),
          c.get(AdamW.SCALE),
          c.get(AdamW.NORM),
          c.get(AdamW.OVERFLOW) != 0,
          (long) c.get(AdamW.SKIPPED));
    };
  }

  /**
   * Names of parameters whose gradient or value is not finite, for a diagnosis; waits for the
   * device.
   */
  public List<String> notFinite() {
    List<String> names = new ArrayList<>();
    for (Trained t : trained) {
      Array g = t.parameter.gradient();
      if (!finite(t.parameter.master()) || g != null && !finite(g)) {
        names.add(t.name);
      }
    }
    return names;
  }

  private static boolean finite(Array a) {
    for (float v : Tensor.of(a).toFloats()) {
      if (!Float.isFinite(v)) {
        return false;
      }
    }
    return true;
  }

  /** Moments and control by name, for a checkpoint; waits for the device. */
  public Map<String, float[]> state() {
    Map<String, float[]> state = new LinkedHashMap<>();
    state.put("control", Tensor.of(control).toFloats());
    for (Trained t : trained) {
      state.put("m." + t.name, Tensor.of(t.m).toFloats());
      state.put("v." + t.name, Tensor.of(t.v).toFloats());
    }
    return state;
  }

  /** Takes up what {@link #state} gave, bit for bit. */
  public void load(Map<String, float[]> state) {
    restore(state, "control", control);
    for (Trained t : trained) {
      restore(state, "m." + t.name, t.m);
      restore(state, "v." + t.name, t.v);
    }
  }

  private void restore(Map<String, float[]> state, String name, Array into) {
    float[] values = state.get(name);
    if (values == null || values.length != into.size()) {
      throw new InputException(
          "the checkpoint's optimiser state lacks " + name + "; it belongs to another model");
    }
    try (Scope scope = Scope.open()) {
      backend.copy(Tensor.floats(backend, values, into.shape().dims()).array(), into);
    }
  }

  @Override
  public void close() {
    control.release();
    trained.forEach(
        t -> {
          t.m.release();
          t.v.release();
        });
  }
}
