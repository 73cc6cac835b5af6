package org.deixis.train;

import java.util.ArrayList;
import java.util.List;
import org.deixis.autograd.Tape;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.data.Batch;
import org.deixis.model.bert.Tokens;
import org.deixis.model.gres.GresLoss;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.Prediction;
import org.deixis.model.gres.RegionGrid;
import org.deixis.optim.AdamWOptimizer;
import org.deixis.tensor.Tensor;

/**
 * One optimiser step: forward and backward over its micro-batches, then the update. Whatever it
 * allocates is given back when it returns; values are read from the device only when asked for.
 */
public final class TrainingStep {
  /**
   * Loss terms, means over the step's micro-batches.
   *
   * @param total what is minimised
   * @param region before its weight
   */
  public record Losses(double total, double mask, double region, double negative) {}

  private final Backend backend;
  private final GuideModel model;
  private final GresLoss loss;
  private final AdamWOptimizer optimizer;

  public TrainingStep(Backend backend, GuideModel model, GresLoss loss, AdamWOptimizer optimizer) {
    this.backend = backend;
    this.model = model;
    this.loss = loss;
    this.optimizer = optimizer;
  }

  /**
   * @param step number of this step, which its dropout draws depend on
   * @param batches its micro-batches, of one size, so that the mean of their means is the mean of
   *     all
   * @param read whether to read the losses back, which waits for the device
   * @param perExpression called with each batch's losses by expression, which waits too; or null
   * @return the losses, or null unless {@code read}
   */
  public Losses run(
      long step, List<Batch> batches, double rate, boolean read, PerExpression perExpression) {
    List<Losses> seen = new ArrayList<>();
    for (int i = 0; i < batches.size(); i++) {
      model.random().stream(step * batches.size() + i);
      micro(batches.get(i), batches.size(), read, perExpression, seen);
    }
    optimizer.step(rate);
    if (!read) {
      return null;
    }
    int n = seen.size();
    return new Losses(
        seen.stream().mapToDouble(Losses::total).sum() / n,
        seen.stream().mapToDouble(Losses::mask).sum() / n,
        seen.stream().mapToDouble(Losses::region).sum() / n,
        seen.stream().mapToDouble(Losses::negative).sum() / n);
  }

  /** Takes the losses of a batch, one for each expression. */
  public interface PerExpression {
    void accept(Batch batch, float[] losses);
  }

  private void micro(
      Batch b, int accumulate, boolean read, PerExpression perExpression, List<Losses> seen) {
    try (Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      int regions =
          model.config().adaptive()
              ? RegionGrid.regionsFor(b.complexity())
              : model.config().regions();
      Prediction prediction =
          model.forward(
              Tensor.bytes(backend, b.pixels(), b.images(), b.height(), b.width(), 3),
              model.upload(new Tokens(b.ids(), b.textMask(), b.expressions(), b.tokens())),
              regions);
      GresLoss.Result result =
          loss.of(
              prediction,
              Tensor.bytes(backend, b.masks(), b.expressions(), b.height(), b.width()),
              Tensor.floats(backend, b.isNegative(), b.expressions()));
      tape.backward(
          List.of(result.total().variable()),
          List.of(optimizer.seed(result.total().shape(), accumulate)));
      if (read) {
        seen.add(
            new Losses(
                result.total().item(),
                result.mask().item(),
                result.region().item(),
                result.negative().item()));
      }
      if (perExpression != null) {
        perExpression.accept(b, result.perExpression().toFloats());
      }
    }
  }
}
