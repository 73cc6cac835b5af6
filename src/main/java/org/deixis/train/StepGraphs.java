package org.deixis.train;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.function.Consumer;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.GraphCache;
import org.deixis.data.Batch;
import org.deixis.model.gres.GuideModel;

/** Training steps as graphs of the device, one for each shape of step; see {@link GraphCache}. */
final class StepGraphs implements AutoCloseable {
  /**
   * What decides which calls a step makes with which arguments.
   *
   * @param layout of the parameters, see {@link org.deixis.optim.AdamWOptimizer#layout}
   */
  record Key(List<Size> micro, long layout, boolean training) {}

  /** Of one micro-batch. */
  record Size(int images, int expressions, int tokens, int height, int width, int regions) {}

  private final Backend backend;
  private final GuideModel model;
  private final Consumer<List<MicroBatch>> work;
  private final GraphCache<Key, List<MicroBatch>> graphs;
  private final Set<List<Integer>> sizes = new HashSet<>();

  /**
   * @param work a step on arrays, from the forward to the update
   */
  StepGraphs(Backend backend, GuideModel model, Consumer<List<MicroBatch>> work) {
    this.backend = backend;
    this.model = model;
    this.work = work;
    graphs = new GraphCache<>(backend, GraphCache.most());
  }

  /** Whether the device has graphs and they are wanted. */
  boolean available() {
    return graphs.available();
  }

  /** Graphs kept at present. */
  int size() {
    return graphs.size();
  }

  /**
   * Does a step.
   *
   * @return the arrays it was done on; they belong to the current scope or to the graph, so read
   *     them before the next step
   */
  List<MicroBatch> run(Key key, List<Batch> batches) {
    Batch first = batches.get(0);
    // A model may keep tables for a size of picture: no part of the step's own memory.
    List<Integer> size = List.of(first.height(), first.width());
    try {
      List<MicroBatch> done = graphs.run(key, !sizes.contains(size), new Step(batches));
      sizes.add(size);
      return done;
    } catch (RuntimeException e) {
      model.clearGradients();
      throw e;
    }
  }

  private final class Step implements GraphCache.Work<List<MicroBatch>> {
    private final List<Batch> batches;

    Step(List<Batch> batches) {
      this.batches = batches;
    }

    @Override
    public List<MicroBatch> make() {
      return upload(backend, model, batches);
    }

    @Override
    public void fill(List<MicroBatch> arrays) {
      for (int i = 0; i < batches.size(); i++) {
        arrays.get(i).set(model, batches.get(i));
      }
    }

    @Override
    public void run(List<MicroBatch> arrays) {
      work.accept(arrays);
    }

    @Override
    public List<Array> all(List<MicroBatch> arrays) {
      return arrays.stream().flatMap(m -> m.arrays().stream()).toList();
    }
  }

  static List<MicroBatch> upload(Backend backend, GuideModel model, List<Batch> batches) {
    List<MicroBatch> arrays = new ArrayList<>();
    batches.forEach(b -> arrays.add(MicroBatch.of(backend, model, b)));
    return arrays;
  }

  /** Gives up all graphs and their memory. */
  @Override
  public void close() {
    graphs.close();
  }
}
