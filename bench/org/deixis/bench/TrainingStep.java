package org.deixis.bench;

import java.util.ArrayList;
import java.util.List;
import org.deixis.autograd.Tape;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.data.Batch;
import org.deixis.model.gres.GresLoss;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.Prediction;
import org.deixis.nn.Parameter;
import org.deixis.tensor.Tensor;

/** Scratch. */
public final class TrainingStep implements AutoCloseable {
  private final GuideModel model;
  private final Backend backend;
  private final GresLoss loss;
  private final List<Parameter> parameters;
  private final List<Array[]> moments = new ArrayList<>();
  private final Scope scope = Scope.open();
  private final Array control;

  public TrainingStep(Backend backend, GuideModel model, GresLoss loss) {
    this.backend = backend;
    this.model = model;
    this.loss = loss;
    parameters = List.copyOf(model.parameters().values());
    for (Parameter p : parameters) {
      Array m = backend.allocate(p.shape(), DType.F32);
      Array v = backend.allocate(p.shape(), DType.F32);
      backend.fill(m, 0);
      backend.fill(v, 0);
      moments.add(new Array[] {m, v});
    }
    control = Tensor.floats(backend, new float[] {0, 0, 1, 0, 0, 0, 0, 0}, AdamW.SLOTS).array();
  }

  public double run(Batch b, float rate, boolean read) {
    backend.fill(control.slice(0, 1), rate);
    try (Scope s = Scope.open();
        Tape tape = Tape.open()) {
      Tensor image = Tensor.bytes(backend, b.pixels(), b.images(), b.height(), b.width(), 3);
      Prediction p =
          model.forward(
              image,
              model.upload(
                  new org.deixis.model.bert.Tokens(
                      b.ids(), b.textMask(), b.expressions(), b.tokens())));
      GresLoss.Result parts =
          loss.of(
              p,
              Tensor.bytes(backend, b.masks(), b.expressions(), b.height(), b.width()),
              Tensor.floats(backend, b.isNegative(), b.expressions()));
      double value = read ? parts.total().item() : 0;
      tape.backward(parts.total().variable());
      List<AdamW.Slot> slots = new ArrayList<>();
      List<Array> gradients = new ArrayList<>();
      for (int i = 0; i < parameters.size(); i++) {
        Parameter q = parameters.get(i);
        if (q.gradient() != null) {
          gradients.add(q.gradient());
          float decay = q.shape().rank() > 1 ? 0.02f : 0;
          slots.add(
              new AdamW.Slot(
                  q.master(), q.gradient(), moments.get(i)[0], moments.get(i)[1], null, 1, decay));
        }
      }
      backend.gradientNorm(gradients, 1, control);
      backend.adamW(new AdamW(0.9f, 0.999f, 1e-8f), slots, control);
      backend.advance(0, control);
      model.clearGradients();
      return value;
    }
  }

  @Override
  public void close() {
    scope.close();
  }
}
