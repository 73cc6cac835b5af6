package org.deixis.train;

import java.util.List;
import org.deixis.autograd.Tape;
import org.deixis.backend.Backend;
import org.deixis.backend.OutOfMemoryException;
import org.deixis.backend.Scope;
import org.deixis.data.Batch;
import org.deixis.model.gres.GresLoss;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.Prediction;
import org.deixis.optim.AdamWOptimizer;
import org.deixis.tensor.Tensor;

/**
 * One optimiser step: forward and backward over its micro-batches, then the update. Values are read
 * from the device only when asked for. Whatever a step allocates is given back when it returns,
 * except that on a device with graphs the steps of a shape that comes again are captured and
 * replayed ({@link StepGraphs}); those keep their inputs and their memory until {@link #close}.
 */
public final class TrainingStep implements AutoCloseable {
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
  private final StepGraphs graphs;

  public TrainingStep(Backend backend, GuideModel model, GresLoss loss, AdamWOptimizer optimizer) {
    this.backend = backend;
    this.model = model;
    this.loss = loss;
    this.optimizer = optimizer;
    graphs = new StepGraphs(backend, model, this::work);
  }

  /** Takes the losses of a batch, one for each expression. */
  public interface PerExpression {
    void accept(Batch batch, float[] losses);
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
    int n = batches.size();
    model.random().streams(step * n, n);
    optimizer.rate(rate);
    try (Scope scope = Scope.open()) {
      List<MicroBatch> done = done(batches);
      if (perExpression != null) {
        for (int i = 0; i < n; i++) {
          perExpression.accept(batches.get(i), Tensor.of(done.get(i).perExpression()).toFloats());
        }
      }
      return read ? losses(done) : null;
    }
  }

  private List<MicroBatch> done(List<Batch> batches) {
    // Gradients from elsewhere would be of this step alone: no graph knows them.
    if (graphs.available() && !optimizer.holdsGradients()) {
      try {
        return graphs.run(key(batches), batches);
      } catch (OutOfMemoryException e) {
        model.clearGradients();
        if (graphs.size() == 0) {
          throw e;
        }
        // Graphs hold memory that this step needs; shapes that come again are captured again.
        graphs.close();
        backend.memory().trim();
      }
    }
    List<MicroBatch> arrays = StepGraphs.upload(backend, model, batches);
    work(arrays);
    return arrays;
  }

  private StepGraphs.Key key(List<Batch> batches) {
    return new StepGraphs.Key(
        batches.stream()
            .map(
                b ->
                    new StepGraphs.Size(
                        b.images(),
                        b.expressions(),
                        b.tokens(),
                        b.height(),
                        b.width(),
                        MicroBatch.regions(model, b)))
            .toList(),
        optimizer.layout(),
        model.training());
  }

  private static Losses losses(List<MicroBatch> done) {
    double[] sums = new double[MicroBatch.TERMS];
    for (MicroBatch m : done) {
      float[] terms = Tensor.of(m.losses()).toFloats();
      for (int i = 0; i < sums.length; i++) {
        sums[i] += terms[i];
      }
    }
    int n = done.size();
    return new Losses(sums[0] / n, sums[1] / n, sums[2] / n, sums[3] / n);
  }

  /** The part of a step that reads and writes nothing but the device's memory. */
  private void work(List<MicroBatch> batches) {
    for (int i = 0; i < batches.size(); i++) {
      model.random().select(i);
      micro(batches.get(i), batches.size());
    }
    optimizer.update();
  }

  private void micro(MicroBatch b, int accumulate) {
    try (Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      Prediction prediction = model.forward(b.pixels(), b.text(), b.regions());
      GresLoss.Result result = loss.of(prediction, b.masks(), b.isNegative());
      tape.backward(
          List.of(result.total().variable()),
          List.of(optimizer.seed(result.total().shape(), accumulate)));
      List<Tensor> terms =
          List.of(result.total(), result.mask(), result.region(), result.negative());
      for (int i = 0; i < terms.size(); i++) {
        backend.copy(terms.get(i).array(), b.loss(i));
      }
      backend.copy(result.perExpression().array(), b.perExpression());
    }
  }

  /** Graphs kept at present. */
  int graphs() {
    return graphs.size();
  }

  /** Gives up the graphs and their memory; later steps may make new ones. */
  @Override
  public void close() {
    graphs.close();
  }
}
