package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Gemm;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Products of every layout and size class against double precision. */
class CpuGemmTest {
  private static final double TOLERANCE = 2e-6;

  static double gelu(double x) {
    return x * 0.5 * (1 + Functions.erf(x / Math.sqrt(2)));
  }

  static double apply(Activation activation, double x) {
    return activation == Activation.NONE ? x : CpuElementwiseTest.value(activation.unary(), x);
  }

  /** Extent of an operand in elements, its last row not padded. */
  private static long extent(long batch, long rows, long columns, long leading, long stride) {
    return rows == 0 || columns == 0 ? 0 : (batch - 1) * stride + (rows - 1) * leading + columns;
  }

  private static void check(CpuArrays t, Gemm s, boolean withBias, boolean keep) {
    String what = s + (withBias ? " bias" : "") + (keep ? " kept" : "");
    int sizeA =
        (int)
            extent(
                s.batch(),
                s.transA() ? s.k() : s.m(),
                s.transA() ? s.m() : s.k(),
                s.lda(),
                s.strideA());
    int sizeB =
        (int)
            extent(
                s.batch(),
                s.transB() ? s.n() : s.k(),
                s.transB() ? s.k() : s.n(),
                s.ldb(),
                s.strideB());
    int sizeC = (int) extent(s.batch(), s.m(), s.n(), s.ldc(), s.strideC());
    double[] a = t.gaussian(sizeA);
    double[] b = t.gaussian(sizeB);
    double[] c = t.gaussian(sizeC);
    double[] bias = t.gaussian(s.n());
    double[] pre = c.clone();
    double[] expected = c.clone();
    for (int i = 0; i < s.batch(); i++) {
      for (int row = 0; row < s.m(); row++) {
        for (int column = 0; column < s.n(); column++) {
          double sum = 0;
          for (int k = 0; k < s.k(); k++) {
            double left =
                a[
                    (int)
                        (i * s.strideA()
                            + (s.transA() ? (long) k * s.lda() + row : (long) row * s.lda() + k))];
            double right =
                b[
                    (int)
                        (i * s.strideB()
                            + (s.transB()
                                ? (long) column * s.ldb() + k
                                : (long) k * s.ldb() + column))];
            sum += left * right;
          }
          double argument = s.alpha() * sum + (withBias ? bias[column] : 0);
          int at = (int) (i * s.strideC() + (long) row * s.ldc() + column);
          pre[at] = argument;
          expected[at] = apply(s.activation(), argument) + (s.beta() == 0 ? 0 : s.beta() * c[at]);
        }
      }
    }
    Array arrayC = t.of(c, sizeC);
    Array arrayPre = keep ? t.of(c, sizeC) : null;
    t.backend.gemm(
        s, t.of(a, sizeA), t.of(b, sizeB), withBias ? t.of(bias, s.n()) : null, arrayPre, arrayC);
    // GELU's error is measured by its argument: beside 0 it is the difference of larger numbers.
    t.check(what, expected, pre, arrayC, TOLERANCE);
    if (keep) {
      t.check(what + ", argument", pre, arrayPre, TOLERANCE);
    }
    t.clear();
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void denseProductsOfEverySize(int threads) {
    try (CpuArrays t = new CpuArrays(threads)) {
      int[][] sizes = {
        {1, 1, 1},
        {1, 7, 5},
        {7, 1, 5},
        {5, 7, 1},
        {13, 17, 19},
        {49, 49, 32},
        {144, 144, 32},
        {20, 768, 96},
        {331, 101, 67},
        {96, 96, 1031},
        {1000, 33, 48},
        {2, 3000, 64},
        {3, 2, 5000}
      };
      for (int[] q : sizes) {
        for (int flags = 0; flags < 4; flags++) {
          Gemm s = Gemm.of(q[0], q[1], q[2], (flags & 1) != 0, (flags & 2) != 0);
          check(t, s, false, false);
          check(t, s.scaled(0.3f).accumulating(-0.7f), false, false);
          check(t, s.activated(Activation.GELU), true, false);
          check(t, s.activated(Activation.GELU), true, true);
        }
        Gemm s = Gemm.of(q[0], q[1], q[2], false, true);
        check(t, s, true, false);
        check(t, s.scaled(1.7f).activated(Activation.RELU), true, true);
        check(t, s.scaled(-1.5f), true, false);
        check(t, s.accumulating(1), false, false);
        check(t, s.activated(Activation.RELU), false, false);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void stridesLeadingDimensionsAndBatches(int threads) {
    try (CpuArrays t = new CpuArrays(threads)) {
      for (int i = 0; i < 60; i++) {
        int batch = 1 + t.below(5);
        int m = 1 + t.below(i % 3 == 0 ? 200 : 12);
        int n = 1 + t.below(i % 3 == 1 ? 200 : 12);
        int k = 1 + t.below(i % 3 == 2 ? 300 : 12);
        boolean transA = t.below(2) == 1;
        boolean transB = t.below(2) == 1;
        int lda = (transA ? m : k) + t.below(5);
        int ldb = (transB ? k : n) + t.below(5);
        int ldc = n + t.below(5);
        long strideA = t.below(4) == 0 ? 0 : (long) lda * (transA ? k : m) + t.below(9);
        long strideB = t.below(4) == 0 ? 0 : (long) ldb * (transB ? n : k) + t.below(9);
        long strideC = (long) ldc * m + t.below(9);
        Activation activation = Activation.values()[t.below(Activation.values().length)];
        boolean plain = t.below(2) == 0;
        Gemm s =
            new Gemm(
                batch,
                m,
                n,
                k,
                transA,
                transB,
                t.below(2) == 0 ? 1 : 0.25f,
                plain ? 0 : 0.5f,
                lda,
                ldb,
                ldc,
                strideA,
                strideB,
                strideC,
                plain ? activation : Activation.NONE);
        check(t, s, plain && t.below(2) == 0, plain && activation != Activation.NONE);
      }
    }
  }

  @Test
  void interleavedHeads() { // heads side by side in a row: batch stride below the leading dimension
    try (CpuArrays t = new CpuArrays(3)) {
      int heads = 4;
      int tokens = 21;
      int dim = 8;
      Gemm s =
          new Gemm(
              heads,
              tokens,
              tokens,
              dim,
              false,
              true,
              0.35f,
              0,
              3 * heads * dim,
              3 * heads * dim,
              tokens,
              dim,
              dim,
              tokens * tokens,
              Activation.NONE);
      check(t, s, false, false);
      Gemm back =
          new Gemm(
              heads,
              tokens,
              dim,
              tokens,
              false,
              false,
              1,
              0,
              tokens,
              3 * heads * dim,
              heads * dim,
              tokens * tokens,
              dim,
              dim,
              Activation.NONE);
      checkScattered(t, back);
    }
  }

  /**
   * What goes back through a product and an activation: few rows and many, rows that are padded.
   */
  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void backwardThroughAnActivation(int threads) {
    int[][] sizes = {{1, 1, 1}, {3, 5, 7}, {200, 96, 24}, {1031, 33, 48}, {2, 3000, 64}, {0, 3, 4}};
    try (CpuArrays t = new CpuArrays(threads)) {
      for (int[] q : sizes) {
        for (Activation activation : Activation.values()) {
          if (activation != Activation.NONE) {
            checkBackward(t, Gemm.of(q[0], q[1], q[2], false, false).activated(activation));
          }
        }
      }
    }
  }

  private static void checkBackward(CpuArrays t, Gemm s) {
    double[] dy = t.gaussian((long) s.m() * s.k());
    double[] w = t.gaussian((long) s.k() * s.n());
    double[] argument = t.gaussian((long) s.m() * s.n());
    double[] expected = new double[s.m() * s.n()];
    double[] bound = new double[s.m() * s.n()];
    for (int i = 0; i < expected.length; i++) {
      double slope = CpuElementwiseTest.slope(s.activation().unary(), argument[i]);
      for (int k = 0; k < s.k(); k++) {
        double term = dy[i / s.n() * s.k() + k] * w[k * s.n() + i % s.n()];
        expected[i] += term * slope;
        bound[i] += Math.abs(term);
      }
    }
    Array c = t.empty(s.m(), s.n());
    t.backend.gemmBackwardActivation(
        s, t.of(dy, s.m(), s.k()), t.of(w, s.k(), s.n()), t.of(argument, s.m(), s.n()), c);
    t.check("back through " + s, expected, bound, c, TOLERANCE);
    t.clear();
  }

  /** Like {@link #check}, for results whose matrices interleave: every element is written once. */
  private static void checkScattered(CpuArrays t, Gemm s) {
    check(t, s, false, false);
  }

  @Test
  void emptyExtents() {
    try (CpuArrays t = new CpuArrays(3)) {
      for (int[] q : new int[][] {{0, 3, 4}, {3, 0, 4}, {3, 5, 0}, {300, 500, 0}}) {
        Gemm s = Gemm.of(q[0], q[1], q[2], false, true);
        check(t, s, false, false);
        check(t, s, true, false);
        check(t, s.accumulating(0.5f), false, false);
        check(t, s.activated(Activation.GELU), true, true);
      }
    }
  }

  @Test
  void rawAddressesWithinATask() {
    try (CpuArrays t = new CpuArrays(2)) {
      Gemm s = Gemm.of(49, 32, 49, false, false);
      double[] left = t.gaussian(49 * 49);
      double[] right = t.gaussian(49 * 32);
      Array a = t.of(left, 49, 49);
      Array b = t.of(right, 49, 32);
      Array c = t.empty(64, 49, 32);
      WorkerPool pool = new WorkerPool(2);
      CpuGemm gemm = new CpuGemm(pool);
      pool.parallelFor(
          64,
          i ->
              gemm.run(
                  s, Native.floats(a), Native.floats(b), 0, Native.floats(c) + 4L * i * 49 * 32));
      double[] expected = new double[64 * 49 * 32];
      for (int i = 0; i < 64; i++) {
        for (int m = 0; m < 49; m++) {
          for (int n = 0; n < 32; n++) {
            double sum = 0;
            for (int k = 0; k < 49; k++) {
              sum += left[m * 49 + k] * right[k * 32 + n];
            }
            expected[(i * 49 + m) * 32 + n] = sum;
          }
        }
      }
      t.check("tasks", expected, c, TOLERANCE);
      pool.close();
    }
  }

  @Test
  void bitsDoNotDependOnScheduling() {
    try (CpuArrays t = new CpuArrays(3)) {
      Gemm s = Gemm.of(384, 130, 3000, true, false);
      Array a = t.of(t.gaussian(384 * 3000), 3000, 384);
      Array b = t.of(t.gaussian(130 * 3000), 3000, 130);
      Array first = t.empty(384, 130);
      Array other = t.empty(384, 130);
      t.backend.gemm(s, a, b, null, null, first);
      for (int i = 0; i < 20; i++) {
        t.backend.gemm(s, a, b, null, null, other);
        assertArrayEquals(t.bytes(first), t.bytes(other));
      }
      assertEquals(384 * 130, other.size());
    }
  }
}
