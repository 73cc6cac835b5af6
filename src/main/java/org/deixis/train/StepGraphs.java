package org.deixis.train;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Consumer;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Graphs;
import org.deixis.backend.Scope;
import org.deixis.core.Env;
import org.deixis.data.Batch;
import org.deixis.model.gres.GuideModel;

/**
 * Training steps as graphs of the device, one for each shape of step. The first step of a shape
 * runs as it is, which compiles and plans what it needs; the second is captured; from then on its
 * graph is launched. At most {@code DEIXIS_GRAPHS} (default {@value #MOST}, 0 for none) are kept,
 * and the one that was not used for longest makes room.
 */
final class StepGraphs implements AutoCloseable {
  static final int MOST = 16;

  /** Shapes remembered as seen; loaders that pad to the longest phrase give some dozens. */
  private static final int MOST_SEEN = 1_024;

  /**
   * What decides which calls a step makes with which arguments.
   *
   * @param layout of the parameters, see {@link org.deixis.optim.AdamWOptimizer#layout}
   */
  record Key(List<Size> micro, long layout, boolean training) {}

  /** Of one micro-batch. */
  record Size(int images, int expressions, int tokens, int height, int width, int regions) {}

  private record Captured(Graphs.Graph graph, List<MicroBatch> arrays) {
    void close() {
      graph.close();
      release(arrays);
    }
  }

  private final Backend backend;
  private final GuideModel model;
  private final Graphs graphs;
  private final int most;
  private final Consumer<List<MicroBatch>> work;
  private final Map<Key, Captured> captured = new LinkedHashMap<>(16, 0.75f, true);
  private final Set<Key> seen = new HashSet<>();
  private final Set<List<Integer>> sizes = new HashSet<>();

  /**
   * @param work a step on arrays, from the forward to the update
   */
  StepGraphs(Backend backend, GuideModel model, Consumer<List<MicroBatch>> work) {
    this.backend = backend;
    this.model = model;
    this.work = work;
    most = Env.getInt("GRAPHS", MOST, 0);
    graphs = most > 0 ? backend.graphs() : null;
  }

  /** Whether the device has graphs and they are wanted. */
  boolean available() {
    return graphs != null;
  }

  /** Graphs kept at present. */
  int size() {
    return captured.size();
  }

  /**
   * Does a step.
   *
   * @return the arrays it was done on; they belong to the current scope or to the graph, so read
   *     them before the next step
   */
  List<MicroBatch> run(Key key, List<Batch> batches) {
    Captured found = captured.get(key);
    if (found != null) {
      for (int i = 0; i < batches.size(); i++) {
        found.arrays.get(i).set(model, batches.get(i));
      }
      found.graph.launch();
      return found.arrays;
    }
    if (seen.contains(key)) {
      return capture(key, batches);
    }
    if (seen.size() >= MOST_SEEN) {
      seen.clear();
    }
    // A scope of its own, so that a step that does not fit leaves nothing in use.
    try (Scope scope = Scope.open()) {
      List<MicroBatch> arrays = upload(backend, model, batches);
      Batch first = batches.get(0);
      if (sizes.add(List.of(first.height(), first.width()))) {
        // A model may keep tables for a size of picture: no part of the step's own memory.
        work.accept(arrays);
      } else {
        graphs.warmUp(() -> work.accept(arrays));
      }
      seen.add(key);
      arrays.forEach(m -> m.arrays().forEach(scope::keep));
      return arrays;
    }
  }

  static List<MicroBatch> upload(Backend backend, GuideModel model, List<Batch> batches) {
    List<MicroBatch> arrays = new ArrayList<>();
    batches.forEach(b -> arrays.add(MicroBatch.of(backend, model, b)));
    return arrays;
  }

  private List<MicroBatch> capture(Key key, List<Batch> batches) {
    while (captured.size() >= most) {
      Iterator<Captured> oldest = captured.values().iterator();
      Captured leaving = oldest.next();
      oldest.remove();
      leaving.close();
    }
    List<MicroBatch> arrays;
    try (Scope scope = Scope.open()) {
      arrays = upload(backend, model, batches);
      arrays.forEach(m -> m.arrays().forEach(Scope::detach));
    }
    Graphs.Graph graph;
    try {
      graph = graphs.capture(() -> work.accept(arrays));
    } catch (RuntimeException e) {
      release(arrays);
      model.clearGradients();
      throw e;
    }
    captured.put(key, new Captured(graph, arrays));
    graph.launch();
    return arrays;
  }

  private static void release(List<MicroBatch> arrays) {
    arrays.forEach(m -> m.arrays().forEach(Array::release));
  }

  /** Gives up all graphs and their memory. */
  @Override
  public void close() {
    captured.values().forEach(Captured::close);
    captured.clear();
  }
}
