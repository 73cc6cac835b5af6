package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Graphs;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Shape;
import org.deixis.testing.CudaHost;
import org.deixis.testing.Host;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Attention over many keys on the stand-in driver, beyond what the table of cases asks of it. */
@Tag("cuda-host")
class LongAttentionTest {
  /** Rows of operands that share nothing: each has columns of its own before and behind. */
  private static final Attention SEPARATE =
      new Attention(2, 2, 37, 150, 40, 0.17f, 8, 96, 16, 104, 0, 88);

  /** Two chunks of queries. */
  private static final Attention CHUNKS = Attention.cross(1, 1, 1100, 70, 24);

  private static double[] values(int n, int seed, DType dtype) {
    Random random = new Random(Long.getLong("test.seed", 11) + seed);
    double[] x = new double[n];
    for (int i = 0; i < n; i++) {
      x[i] = Half.toFloat(dtype, Half.fromFloat(dtype, (float) random.nextGaussian()));
    }
    return x;
  }

  /** y, lse, dq, dk and dv on a backend; operands of an element type, the reference's in double. */
  private static final class Run {
    final Attention s;
    final Array y;
    final Array lse;
    final Array dq;
    final Array dk;
    final Array dv;
    private final Backend backend;
    private final Array q;
    private final Array k;
    private final Array v;
    private final Array mask;
    private final Array dy;

    Run(Backend backend, Attention s, DType of, DType in, double[] seen) {
      this.backend = backend;
      this.s = s;
      Shape queries = Shape.of(s.batch(), s.queries(), s.qStride());
      Shape keys = Shape.of(s.batch(), s.keys(), s.kStride());
      Shape words = Shape.of(s.batch(), s.keys(), s.vStride());
      Shape out = Shape.of(s.batch(), s.queries(), s.heads() * s.headDim());
      q = Host.upload(backend, values(size(queries), 1, of), queries, in);
      k = Host.upload(backend, values(size(keys), 2, of), keys, in);
      v = Host.upload(backend, values(size(words), 3, of), words, in);
      dy = Host.upload(backend, values(size(out), 4, of), out, in);
      mask =
          seen == null
              ? null
              : Host.upload(backend, seen, Shape.of(s.batch(), s.keys()), DType.I32);
      y = backend.allocate(out, in);
      DType sums = in == DType.F64 ? DType.F64 : DType.F32;
      lse = backend.allocate(Shape.of(s.batch(), s.heads(), s.queries()), sums);
      dq = filled(queries, in);
      dk = filled(keys, in);
      dv = filled(words, in);
    }

    private static int size(Shape shape) {
      return Math.toIntExact(shape.size());
    }

    private Array filled(Shape shape, DType dtype) {
      Array a = backend.allocate(shape, dtype);
      backend.fill(a, 0);
      return a;
    }

    void run() {
      backend.attention(s, q, k, v, mask, y, lse);
      backend.attentionBackward(s, q, k, v, mask, y, lse, dy, dq, dk, dv);
    }

    List<double[]> results() {
      List<double[]> all = new ArrayList<>();
      for (Array a : new Array[] {y, lse, dq, dk, dv}) {
        all.add(Host.download(a));
      }
      return all;
    }
  }

  private static List<double[]> results(
      Backend backend, Attention s, DType of, DType in, double[] seen) {
    try (Scope scope = Scope.open()) {
      Run run = new Run(backend, s, of, in, seen);
      run.run();
      return run.results();
    }
  }

  /** Also the columns between heads' and other rows', which stay as they are. */
  @Test
  void rowsWithStridesOfTheirOwn() {
    for (DType dtype : new DType[] {DType.F16, DType.BF16}) {
      List<double[]> expected =
          results(Backends.get("reference"), SEPARATE, dtype, DType.F64, null);
      List<double[]> actual = results(CudaHost.backend(), SEPARATE, dtype, dtype, null);
      for (int i = 0; i < expected.size(); i++) {
        double error = Host.relative(actual.get(i), expected.get(i));
        assertTrue(
            error <= (dtype == DType.F16 ? 5e-3 : 2e-2), dtype + ", result " + i + ": " + error);
      }
    }
  }

  @Test
  void twoRunsGiveTheSameBits() {
    for (Attention s : new Attention[] {SEPARATE, CHUNKS, Attention.self(1, 1, 70, 128)}) {
      List<double[]> first = results(CudaHost.backend(), s, DType.F16, DType.F16, null);
      List<double[]> second = results(CudaHost.backend(), s, DType.F16, DType.F16, null);
      for (int i = 0; i < first.size(); i++) {
        assertArrayEquals(first.get(i), second.get(i), s + ", result " + i);
      }
    }
  }

  /**
   * The contract has no sequence without a token. Should there be one, its rows are NaN as the
   * reference's and the plain kernel's are, and it does nothing to other sequences.
   */
  @Test
  void aSequenceWithoutTokensIsNotANumberAndSpoilsNoOther() {
    double[] seen = new double[SEPARATE.batch() * SEPARATE.keys()];
    Arrays.fill(seen, SEPARATE.keys(), seen.length, 1);
    List<double[]> expected =
        results(Backends.get("reference"), SEPARATE, DType.F16, DType.F64, seen);
    List<double[]> actual = results(CudaHost.backend(), SEPARATE, DType.F16, DType.F16, seen);
    double[] y = actual.get(0);
    for (int i = 0; i < y.length / 2; i++) {
      assertTrue(Double.isNaN(y[i]), "element " + i + " is " + y[i]);
      assertTrue(Double.isNaN(expected.get(0)[i]), "the reference's element " + i);
    }
    for (int i = 0; i < expected.size(); i++) {
      double error = Host.relative(secondHalf(actual.get(i)), secondHalf(expected.get(i)));
      assertTrue(error <= 5e-3, "result " + i + " of the other sequence: " + error);
    }
  }

  private static double[] secondHalf(double[] x) {
    return Arrays.copyOfRange(x, x.length / 2, x.length);
  }

  /** Captured with the memory that they work in, D of the queries and parts of keys' gradients. */
  @Test
  void replaysInAGraph() {
    CudaBackend backend = CudaHost.backend();
    long live = backend.memory().stats().live();
    try (Scope scope = Scope.open()) {
      Run run = new Run(backend, CHUNKS, DType.F16, DType.F16, null);
      backend.graphs().warmUp(run::run);
      List<double[]> expected = run.results();
      try (Graphs.Graph graph = backend.graphs().capture(run::run)) {
        for (Array a : new Array[] {run.y, run.lse, run.dq, run.dk, run.dv}) {
          backend.fill(a, 0);
        }
        graph.launch();
        List<double[]> actual = run.results();
        for (int i = 0; i < actual.size(); i++) {
          assertArrayEquals(expected.get(i), actual.get(i), "result " + i);
        }
      }
    }
    assertEquals(live, backend.memory().stats().live());
  }
}
