package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiConsumer;
import java.util.function.BiFunction;
import org.deixis.backend.Array;
import org.deixis.backend.Scope;
import org.deixis.backend.reference.ReferenceBackend;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.testing.TestArrays;

/**
 * Runs one kernel on the reference in double precision and on a class of the CPU backend in single
 * precision, from the same floats, and compares every result; then with other numbers of threads,
 * which must give the same bits.
 */
final class Compare<K> {
  static final double TOLERANCE = 1e-5;

  private final BiFunction<WorkerPool, ReferenceBackend, K> maker;

  Compare(BiFunction<WorkerPool, ReferenceBackend, K> maker) {
    this.maker = maker;
  }

  static <K> Compare<K> of(java.util.function.Function<WorkerPool, K> maker) {
    return new Compare<>((pool, backend) -> maker.apply(pool));
  }

  /** The arrays of one run. */
  static final class Case {
    final TestArrays make;
    final Rng rng = new Rng(7);
    private final Map<String, Array> results = new LinkedHashMap<>();

    Case(TestArrays make) {
      this.make = make;
    }

    /** Standard normal floats. */
    Array input(int... dims) {
      return spread(1, dims);
    }

    Array spread(double spread, int... dims) {
      double[] values = TestArrays.gaussian(rng, dims);
      for (int i = 0; i < values.length; i++) {
        values[i] = (float) (spread * values[i]);
      }
      return make.of(values, dims);
    }

    /** Floats in [0, 1). */
    Array uniform(int... dims) {
      double[] values = TestArrays.gaussian(rng, dims);
      for (int i = 0; i < values.length; i++) {
        values[i] = rng.nextFloat();
      }
      return make.of(values, dims);
    }

    /** Whole numbers in [0, bound) of an integer type. */
    Array whole(DType type, int bound, int... dims) {
      double[] values = TestArrays.gaussian(rng, dims);
      for (int i = 0; i < values.length; i++) {
        values[i] = rng.nextInt(bound);
      }
      return make.of(type, values, dims);
    }

    /** An array for a result that is compared under this name. */
    Array result(String name, int... dims) {
      Array array = make.result(dims);
      results.put(name, array);
      return array;
    }

    /** A result that starts from what it holds. */
    Array both(String name, Array array) {
      results.put(name, array);
      return array;
    }

    Map<String, double[]> values() {
      Map<String, double[]> all = new LinkedHashMap<>();
      results.forEach((name, array) -> all.put(name, TestArrays.values(array)));
      return all;
    }
  }

  /** A kernel's call: given the arrays, on the reference or on the class under test. */
  interface Call<K> {
    /** Makes the arrays and returns the two ways to run. */
    Runs<K> prepare(Case c);
  }

  record Runs<K>(
      java.util.function.Consumer<ReferenceBackend> reference,
      java.util.function.Consumer<K> cpu) {}

  void check(Call<K> call) {
    check(TOLERANCE, call);
  }

  void check(double tolerance, Call<K> call) {
    Map<String, double[]> expected = run(0, call);
    List<Map<String, double[]>> runs = new ArrayList<>();
    for (int threads : new int[] {1, 2, 3}) {
      runs.add(run(threads, call));
    }
    BiConsumer<String, double[]> near =
        (name, values) -> {
          double distance = TestArrays.distance(values, runs.get(0).get(name));
          // What is zero in truth up to the underflow of floats has no relative distance.
          double size = TestArrays.distance(new double[values.length], values);
          assertTrue(distance <= tolerance || size < 1e-30, name + " is off by " + distance);
        };
    expected.forEach(near);
    for (Map<String, double[]> other : runs) {
      other.forEach((name, values) -> assertArrayEquals(runs.get(0).get(name), values, name));
    }
  }

  private Map<String, double[]> run(int threads, Call<K> call) {
    try (ReferenceBackend backend = new ReferenceBackend();
        WorkerPool pool = new WorkerPool(Math.max(1, threads));
        Scope scope = Scope.open()) {
      Case c = new Case(new TestArrays(backend, threads == 0 ? DType.F64 : DType.F32));
      Runs<K> runs = call.prepare(c);
      if (threads == 0) {
        runs.reference.accept(backend);
      } else {
        runs.cpu.accept(maker.apply(pool, backend));
      }
      return c.values();
    }
  }
}
