package org.deixis.backend;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.deixis.core.Env;

/**
 * Graphs of one kind of work, one for each shape of it. The first work of a shape is done as it is,
 * which compiles and plans what it needs; the second is captured; from then on its graph is
 * launched. The graph that was not used for longest makes room for a new one. Not for several
 * threads at once.
 *
 * @param <K> what decides which calls the work makes with which arguments
 * @param <A> the arrays that work reads what changes from, and leaves its results in
 */
public final class GraphCache<K, A> implements AutoCloseable {
  /** Graphs kept unless {@code DEIXIS_GRAPHS} says another number. */
  public static final int MOST = 16;

  /** Shapes remembered as seen; inputs padded to the longest phrase give some dozens. */
  private static final int MOST_SEEN = 1_024;

  /** Work that is to be done again and again on other values. */
  public interface Work<A> {
    /** New arrays of the current scope, with the values to work on. */
    A make();

    /** Brings those values to arrays that were made before. */
    void fill(A arrays);

    /** Works from arrays to arrays, and leaves no memory in use; see {@link Graphs}. */
    void run(A arrays);

    /** All of the arrays. */
    List<Array> all(A arrays);
  }

  private record Captured<A>(Graphs.Graph graph, A arrays, List<Array> all) {
    void close() {
      graph.close();
      all.forEach(Array::release);
    }
  }

  private final Graphs graphs;
  private final int most;
  private final Map<K, Captured<A>> captured = new LinkedHashMap<>(16, 0.75f, true);
  private final Set<K> seen = new HashSet<>();

  /** How many graphs {@code DEIXIS_GRAPHS} allows, 0 for none. */
  public static int most() {
    return Env.getInt("GRAPHS", MOST, 0);
  }

  /**
   * @param most graphs kept at most, 0 for none
   */
  public GraphCache(Backend backend, int most) {
    this.most = most;
    graphs = most > 0 ? backend.graphs() : null;
  }

  /** Whether the device has graphs and they are wanted. */
  public boolean available() {
    return graphs != null;
  }

  /** Graphs kept at present. */
  public int size() {
    return captured.size();
  }

  /**
   * Does the work without waiting for it.
   *
   * @param plainFirst whether the first work of this shape also makes arrays that stay, as tables
   *     that a model keeps: it is not done in the memory of graphs then
   * @return the arrays it was done on; they belong to the current scope or to the graph, so read
   *     them, in the order of the device, before the next work
   */
  public A run(K key, boolean plainFirst, Work<A> work) {
    Captured<A> found = captured.get(key);
    if (found != null) {
      work.fill(found.arrays);
      found.graph.launch();
      return found.arrays;
    }
    if (seen.contains(key)) {
      return capture(key, work);
    }
    if (seen.size() >= MOST_SEEN) {
      seen.clear();
    }
    // A scope of its own, so that work that does not fit leaves nothing in use.
    try (Scope scope = Scope.open()) {
      A arrays = work.make();
      if (plainFirst) {
        work.run(arrays);
      } else {
        graphs.warmUp(() -> work.run(arrays));
      }
      seen.add(key);
      work.all(arrays).forEach(scope::keep);
      return arrays;
    }
  }

  private A capture(K key, Work<A> work) {
    while (captured.size() >= most) {
      Iterator<Captured<A>> oldest = captured.values().iterator();
      Captured<A> leaving = oldest.next();
      oldest.remove();
      leaving.close();
    }
    A arrays;
    List<Array> all = new ArrayList<>();
    try (Scope scope = Scope.open()) {
      arrays = work.make();
      work.all(arrays).forEach(a -> all.add(Scope.detach(a)));
    }
    Graphs.Graph graph;
    try {
      graph = graphs.capture(() -> work.run(arrays));
    } catch (RuntimeException e) {
      all.forEach(Array::release);
      throw e;
    }
    captured.put(key, new Captured<>(graph, arrays, all));
    graph.launch();
    return arrays;
  }

  /** Gives up all graphs and their memory; shapes that come again are captured again. */
  @Override
  public void close() {
    captured.values().forEach(Captured::close);
    captured.clear();
  }
}
