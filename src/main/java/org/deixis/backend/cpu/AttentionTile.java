package org.deixis.backend.cpu;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;

/**
 * The steps of attention on one tile of scores, which is kept transposed: a row for each key, a
 * lane for each query. Maxima and sums over keys are then sums of vectors, without a step across
 * lanes, and each product finds its operands as {@link TileProduct} wants them.
 *
 * <p>{@code lanes} is the distance between rows, the queries rounded up to whole vectors; what
 * stands in the lanes behind the last query stays finite.
 */
final class AttentionTile {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final int L = VectorMath.LANES;

  /** A loop over the tile. */
  private interface Pass {
    void run(int keys, int lanes, float[] s, float[] inverse, float[] lse);
  }

  /**
   * Called from one place that has seen all three, so that the compiler does not inline them into
   * one method: that would pass the size from which on it calls methods with vectors as objects.
   */
  private static final Pass[] SOFTMAX = {
    (keys, lanes, s, inverse, lse) -> maxima(keys, lanes, s, lse),
    (keys, lanes, s, inverse, lse) -> exponentials(keys, lanes, s, lse, inverse),
    (keys, lanes, s, inverse, lse) -> logarithms(lanes, inverse, lse)
  };

  private AttentionTile() {}

  /** t[e][i] = scale · x[i][e] for i in [0, rows), 0 for the lanes behind. */
  static void transpose(
      int rows, int columns, float scale, float[] x, int offset, int ld, float[] t, int lanes) {
    int i = 0;
    for (; i + 8 <= rows; i += 8) {
      transposeEight(columns, scale, x, offset + i * ld, ld, t, i, lanes);
    }
    for (; i < rows; i++) {
      int from = offset + i * ld;
      for (int e = 0; e < columns; e++) {
        t[e * lanes + i] = scale * x[from + e];
      }
    }
    for (int e = 0; e < columns; e++) {
      for (int j = rows; j < lanes; j++) {
        t[e * lanes + j] = 0;
      }
    }
  }

  /** Eight rows at once: neighbours are written together, after one check of their bounds. */
  private static void transposeEight(
      int columns, float scale, float[] x, int offset, int ld, float[] t, int to, int lanes) {
    int x1 = offset + ld;
    int x2 = x1 + ld;
    int x3 = x2 + ld;
    int x4 = x3 + ld;
    int x5 = x4 + ld;
    int x6 = x5 + ld;
    int x7 = x6 + ld;
    for (int e = 0; e < columns; e++) {
      t[to] = scale * x[offset + e];
      t[to + 1] = scale * x[x1 + e];
      t[to + 2] = scale * x[x2 + e];
      t[to + 3] = scale * x[x3 + e];
      t[to + 4] = scale * x[x4 + e];
      t[to + 5] = scale * x[x5 + e];
      t[to + 6] = scale * x[x6 + e];
      t[to + 7] = scale * x[x7 + e];
      to += lanes;
    }
  }

  /**
   * Turns scores into exp(score − the query's maximum), not yet divided by their sum.
   *
   * @param inverse receives 1 / sum by query
   * @param lse receives the log-sum-exp by query
   */
  static void softmax(int keys, int lanes, float[] s, float[] inverse, float[] lse) {
    for (Pass pass : SOFTMAX) {
      pass.run(keys, lanes, s, inverse, lse);
    }
  }

  private static void logarithms(int lanes, float[] sums, float[] maxima) {
    for (int lane = 0; lane < lanes; lane += L) {
      FloatVector sum = FloatVector.fromArray(S, sums, lane);
      FloatVector.broadcast(S, 1f).div(sum).intoArray(sums, lane);
      VectorMath.logAbove(sum).add(FloatVector.fromArray(S, maxima, lane)).intoArray(maxima, lane);
    }
  }

  /** The largest score of each query. */
  private static void maxima(int keys, int lanes, float[] s, float[] maxima) {
    for (int lane = 0; lane < lanes; lane += L) {
      FloatVector max = FloatVector.fromArray(S, s, lane);
      FloatVector odd = max;
      int end = lane + keys * lanes;
      int at = lane + lanes;
      // two chains, as each waits for its last comparison
      for (; at + lanes < end; at += 2 * lanes) {
        FloatVector x = FloatVector.fromArray(S, s, at);
        FloatVector y = FloatVector.fromArray(S, s, at + lanes);
        max = max.blend(x, x.compare(VectorOperators.GT, max));
        odd = odd.blend(y, y.compare(VectorOperators.GT, odd));
      }
      if (at < end) {
        FloatVector x = FloatVector.fromArray(S, s, at);
        max = max.blend(x, x.compare(VectorOperators.GT, max));
      }
      max.blend(odd, odd.compare(VectorOperators.GT, max)).intoArray(maxima, lane);
    }
  }

  /** Turns scores into exp(score − maximum), and sums them by query. */
  private static void exponentials(int keys, int lanes, float[] s, float[] maxima, float[] sums) {
    for (int lane = 0; lane < lanes; lane += L) {
      FloatVector max = FloatVector.fromArray(S, maxima, lane);
      FloatVector sum = FloatVector.zero(S);
      int end = lane + keys * lanes;
      for (int at = lane; at < end; at += lanes) {
        FloatVector e = VectorMath.expBelow(FloatVector.fromArray(S, s, at).sub(max));
        e.intoArray(s, at);
        sum = sum.add(e);
      }
      sum.intoArray(sums, lane);
    }
  }

  /** Turns scores into probabilities exp(score − lse). */
  static void probabilities(int keys, int lanes, float[] s, float[] lse) {
    for (int lane = 0; lane < lanes; lane += L) {
      FloatVector shift = FloatVector.fromArray(S, lse, lane);
      int end = lane + keys * lanes;
      for (int at = lane; at < end; at += lanes) {
        VectorMath.expBelow(FloatVector.fromArray(S, s, at).sub(shift)).intoArray(s, at);
      }
    }
  }

  /**
   * Softmax backward: ds = p · (dp − Σ p·dp), written over dp times {@code scale}.
   *
   * @param gradient receives ds, unscaled, added to what is there; null where nobody asks
   */
  static void backward(
      int keys, int lanes, float scale, float[] p, float[] dp, float[] gradient, int offset) {
    for (int lane = 0; lane < lanes; lane += L) {
      int end = lane + keys * lanes;
      FloatVector dot = FloatVector.zero(S);
      for (int at = lane; at < end; at += lanes) {
        dot = FloatVector.fromArray(S, p, at).fma(FloatVector.fromArray(S, dp, at), dot);
      }
      if (gradient == null) {
        for (int at = lane; at < end; at += lanes) {
          FloatVector ds =
              FloatVector.fromArray(S, dp, at).sub(dot).mul(FloatVector.fromArray(S, p, at));
          ds.mul(scale).intoArray(dp, at);
        }
      } else {
        for (int at = lane; at < end; at += lanes) {
          FloatVector ds =
              FloatVector.fromArray(S, dp, at).sub(dot).mul(FloatVector.fromArray(S, p, at));
          ds.mul(scale).intoArray(dp, at);
          ds.add(FloatVector.fromArray(S, gradient, offset + at)).intoArray(gradient, offset + at);
        }
      }
    }
  }

  /** Multiplies each of {@code rows} rows of whole vectors by its own factor. */
  static void scaleRows(int rows, int columns, float[] factor, float[] y, int offset, int ld) {
    for (int i = 0; i < rows; i++) {
      FloatVector f = FloatVector.broadcast(S, factor[i]);
      int from = offset + i * ld;
      for (int e = 0; e < columns; e += L) {
        FloatVector.fromArray(S, y, from + e).mul(f).intoArray(y, from + e);
      }
    }
  }

  /** to[i] += from[i] over n adjacent elements, in any number. */
  static void add(int n, float[] from, int fromOffset, float[] to, int toOffset) {
    int i = 0;
    for (; i + L <= n; i += L) {
      FloatVector.fromArray(S, to, toOffset + i)
          .add(FloatVector.fromArray(S, from, fromOffset + i))
          .intoArray(to, toOffset + i);
    }
    for (; i < n; i++) {
      to[toOffset + i] += from[fromOffset + i];
    }
  }
}
