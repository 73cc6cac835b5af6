package org.deixis.train;

import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;
import org.deixis.autograd.Tape;
import org.deixis.backend.Backend;
import org.deixis.backend.Download;
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
 * from the device only when asked for, and then without waiting. Whatever a step allocates is given
 * back when it returns, except that on a device with graphs the steps of a shape that comes again
 * are captured and replayed ({@link StepGraphs}); those keep their inputs and their memory until
 * {@link #close}.
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

  /**
   * What a step is asked to tell, on its way from the device: taking it waits for that step, not
   * for those after it.
   */
  public static final class Report {
    private final List<Download> terms = new ArrayList<>();
    private final List<Download> each = new ArrayList<>();
    private Supplier<AdamWOptimizer.Status> status;

    public Losses losses() {
      double[] sums = new double[MicroBatch.TERMS];
      for (Download d : terms) {
        for (int i = 0; i < sums.length; i++) {
          sums[i] += d.get().asFloatBuffer().get(i);
        }
      }
      int n = terms.size();
      return new Losses(sums[0] / n, sums[1] / n, sums[2] / n, sums[3] / n);
    }

    /** The optimiser's, after this step. */
    public AdamWOptimizer.Status status() {
      return status.get();
    }

    /** Losses of each expression of micro-batch {@code i}. */
    public float[] perExpression(int i) {
      FloatBuffer floats = each.get(i).get().asFloatBuffer();
      float[] values = new float[floats.remaining()];
      floats.get(values);
      return values;
    }
  }

  /**
   * Does a step without waiting for it.
   *
   * @param step number of this step, which its dropout draws depend on
   * @param batches its micro-batches, of one size, so that the mean of their means is the mean of
   *     all; they are no longer needed when this returns
   * @param losses whether the report is to hold losses and status
   * @param perExpression whether it is to hold the losses of each expression
   */
  public Report start(
      long step, List<Batch> batches, double rate, boolean losses, boolean perExpression) {
    int n = batches.size();
    model.random().streams(step * n, n);
    optimizer.rate(rate);
    Report report = new Report();
    try (Scope scope = Scope.open()) {
      for (MicroBatch m : done(batches)) {
        if (losses) {
          report.terms.add(backend.download(m.losses()));
        }
        if (perExpression) {
          report.each.add(backend.download(m.perExpression()));
        }
      }
      if (losses) {
        report.status = optimizer.statusNow();
      }
    }
    return report;
  }

  /** Takes the losses of a batch, one for each expression. */
  public interface PerExpression {
    void accept(Batch batch, float[] losses);
  }

  /**
   * {@link #start}, and waits for what is asked for.
   *
   * @param read whether to read the losses
   * @param perExpression called with each batch's losses by expression; or null
   * @return the losses, or null unless {@code read}
   */
  public Losses run(
      long step, List<Batch> batches, double rate, boolean read, PerExpression perExpression) {
    Report report = start(step, batches, rate, read, perExpression != null);
    if (perExpression != null) {
      for (int i = 0; i < batches.size(); i++) {
        perExpression.accept(batches.get(i), report.perExpression(i));
      }
    }
    // Asked for together with the losses, and held until it is taken.
    if (read) {
      report.status();
    }
    return read ? report.losses() : null;
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
