package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Conv2d;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * 3×3 convolutions with a frozen weight by minimal filtering, F(4×4, 3×3) of Lavin and Gray (CVPR
 * 2016): 36 products for 16 outputs where the plain way takes 144. A picture's 6×6 tiles, which
 * overlap by two, are transformed; 36 products with the weight, transformed once, follow; and their
 * results are transformed back. In fp32 it is off by some 1e-6 of the result's norm.
 */
final class FrozenWinograd {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final int L = VectorMath.LANES;

  /** Outputs of a tile along an axis, and inputs. */
  private static final int OUT = 4;

  private static final int IN = 6;

  static final int POINTS = IN * IN;

  /** Below these the transforms cost more than the products save. */
  private static final int LEAST_CHANNELS = 64;

  private static final int LEAST_TILES = 16;

  /** How a filter's three taps become six points, along each axis. */
  private static final double[][] G = {
    {1 / 4.0, 0, 0},
    {-1 / 6.0, -1 / 6.0, -1 / 6.0},
    {-1 / 6.0, 1 / 6.0, -1 / 6.0},
    {1 / 24.0, 1 / 12.0, 1 / 6.0},
    {1 / 24.0, -1 / 12.0, 1 / 6.0},
    {0, 0, 1}
  };

  private final WorkerPool pool;

  FrozenWinograd(WorkerPool pool) {
    this.pool = pool;
  }

  private static int down(Conv2d s) {
    return (s.outHeight() + OUT - 1) / OUT;
  }

  private static int across(Conv2d s) {
    return (s.outWidth() + OUT - 1) / OUT;
  }

  /** Whether this is a convolution that gains. */
  static boolean takes(Conv2d s, DType products) {
    return products == DType.F32
        && s.kernel() == 3
        && s.stride() == 1
        && s.padding() == 1
        && s.inChannels() >= LEAST_CHANNELS
        && s.outChannels() >= LEAST_CHANNELS
        && s.inChannels() % L == 0
        && s.outChannels() % L == 0
        && down(s) * across(s) >= LEAST_TILES;
  }

  /** See {@link org.deixis.backend.Backend#conv2d}; the pictures one after the other. */
  void conv2d(Conv2d s, Array x, Array weight, Array bias, Array y) {
    FrozenWeights weights = FrozenWeights.of(weight);
    int in = s.inChannels();
    int out = s.outChannels();
    int rows = down(s);
    int columns = across(s);
    int tiles = rows * columns;
    float[] shift = Scratch.here().zeros(Scratch.CALL, out);
    if (bias != null) {
      HostBuffer.of(bias).floats().get(Math.toIntExact(bias.offset()), shift, 0, out);
    }
    FloatBuffer from = HostBuffer.of(x).floats();
    FloatBuffer to = HostBuffer.of(y).floats();
    try (Scope scope = Scope.open()) {
      Array points = y.backend().allocate(Shape.of(POINTS * tiles, in), DType.F32);
      Array sums = y.backend().allocate(Shape.of(POINTS * tiles, out), DType.F32);
      FloatBuffer a = HostBuffer.of(points).floats();
      FloatBuffer c = HostBuffer.of(sums).floats();
      for (int picture = 0; picture < s.batch(); picture++) {
        int first = Math.toIntExact(x.offset() + (long) picture * s.height() * s.width() * in);
        int target =
            Math.toIntExact(y.offset() + (long) picture * s.outHeight() * s.outWidth() * out);
        pool.parallelFor(
            rows,
            row -> {
              for (int column = 0; column < columns; column++) {
                spread(s, from, first, row, column, a, row * columns + column, tiles);
              }
            });
        long aStart = Native.floats(points);
        long cStart = Native.floats(sums);
        pool.parallelFor(
            POINTS,
            p -> {
              Dnnl.Kernel kernel =
                  FrozenGemm.kernel(
                      Dnnl.here(), DType.F32, tiles, out, in, out, false, Activation.NONE);
              FrozenWeights.Layout layout = kernel.layout();
              long transformed = weights.filters(weight, in, out, layout);
              kernel.run(
                  aStart + 4L * p * tiles * in,
                  transformed + p * layout.step(),
                  cStart + 4L * p * tiles * out);
            });
        pool.parallelFor(
            rows,
            row -> {
              for (int column = 0; column < columns; column++) {
                gather(s, c, row * columns + column, tiles, shift, to, target, row, column);
              }
            });
      }
    }
  }

  /** One tile's 36 points, each a row of channels, zeros beyond the picture's edge. */
  private static void spread(
      Conv2d s,
      FloatBuffer x,
      int start,
      int row,
      int column,
      FloatBuffer to,
      int tile,
      int tiles) {
    int channels = s.inChannels();
    // Neighbours a vector further apart than their channels do not fall into one set of the cache.
    int step = channels + L;
    float[] d = Scratch.here().floats(0, (long) POINTS * step);
    for (int i = 0; i < IN; i++) {
      int h = OUT * row - 1 + i;
      for (int j = 0; j < IN; j++) {
        int w = OUT * column - 1 + j;
        int at = (i * IN + j) * step;
        if (h < 0 || h >= s.height() || w < 0 || w >= s.width()) {
          java.util.Arrays.fill(d, at, at + channels, 0);
        } else {
          x.get(start + (h * s.width() + w) * channels, d, at, channels);
        }
      }
    }
    for (int c = 0; c < channels; c += L) {
      for (int j = 0; j < IN; j++) {
        points(d, j * step + c, IN * step);
      }
      for (int i = 0; i < IN; i++) {
        points(d, i * IN * step + c, step);
      }
    }
    for (int p = 0; p < POINTS; p++) {
      to.put((p * tiles + tile) * channels, d, p * step, channels);
    }
  }

  /** Six inputs along one axis become six points, in place. */
  private static void points(float[] d, int at, int step) {
    FloatVector d0 = FloatVector.fromArray(S, d, at);
    FloatVector d1 = FloatVector.fromArray(S, d, at + step);
    FloatVector d2 = FloatVector.fromArray(S, d, at + 2 * step);
    FloatVector d3 = FloatVector.fromArray(S, d, at + 3 * step);
    FloatVector d4 = FloatVector.fromArray(S, d, at + 4 * step);
    FloatVector d5 = FloatVector.fromArray(S, d, at + 5 * step);
    FloatVector four = FloatVector.broadcast(S, 4);
    FloatVector five = FloatVector.broadcast(S, -5);
    FloatVector minusFour = FloatVector.broadcast(S, -4);
    FloatVector even = d2.fma(minusFour, d4);
    FloatVector odd = d1.fma(minusFour, d3);
    FloatVector near = d4.sub(d2);
    FloatVector far = d3.sub(d1);
    far = far.add(far);
    d0.fma(four, d2.fma(five, d4)).intoArray(d, at);
    even.add(odd).intoArray(d, at + step);
    even.sub(odd).intoArray(d, at + 2 * step);
    near.add(far).intoArray(d, at + 3 * step);
    near.sub(far).intoArray(d, at + 4 * step);
    d1.fma(four, d3.fma(five, d5)).intoArray(d, at + 5 * step);
  }

  /** One tile's 36 sums become 16 outputs, those within the picture. */
  private static void gather(
      Conv2d s,
      FloatBuffer sums,
      int tile,
      int tiles,
      float[] shift,
      FloatBuffer y,
      int start,
      int row,
      int column) {
    int channels = s.outChannels();
    int step = channels + L;
    float[] m = Scratch.here().floats(0, (long) POINTS * step);
    for (int p = 0; p < POINTS; p++) {
      sums.get((p * tiles + tile) * channels, m, p * step, channels);
    }
    for (int c = 0; c < channels; c += L) {
      FloatVector bias = FloatVector.fromArray(S, shift, c);
      FloatVector zero = FloatVector.zero(S);
      for (int j = 0; j < IN; j++) {
        outputs(m, j * step + c, IN * step, zero);
      }
      for (int i = 0; i < OUT; i++) {
        outputs(m, i * IN * step + c, step, bias);
      }
    }
    for (int i = 0; i < OUT && OUT * row + i < s.outHeight(); i++) {
      for (int j = 0; j < OUT && OUT * column + j < s.outWidth(); j++) {
        int pixel = (OUT * row + i) * s.outWidth() + OUT * column + j;
        y.put(start + pixel * channels, m, (i * IN + j) * step, channels);
      }
    }
  }

  /** Six points along one axis become four outputs, in place of the first four. */
  private static void outputs(float[] m, int at, int step, FloatVector bias) {
    FloatVector m0 = FloatVector.fromArray(S, m, at).add(bias);
    FloatVector m1 = FloatVector.fromArray(S, m, at + step);
    FloatVector m2 = FloatVector.fromArray(S, m, at + 2 * step);
    FloatVector m3 = FloatVector.fromArray(S, m, at + 3 * step);
    FloatVector m4 = FloatVector.fromArray(S, m, at + 4 * step);
    FloatVector m5 = FloatVector.fromArray(S, m, at + 5 * step).add(bias);
    FloatVector sum = m1.add(m2);
    FloatVector difference = m1.sub(m2);
    FloatVector farSum = m3.add(m4);
    FloatVector farDifference = m3.sub(m4);
    m0.add(sum).add(farSum).intoArray(m, at);
    farDifference.fma(FloatVector.broadcast(S, 2), difference).add(bias).intoArray(m, at + step);
    farSum.fma(FloatVector.broadcast(S, 4), sum).add(bias).intoArray(m, at + 2 * step);
    farDifference.fma(FloatVector.broadcast(S, 8), difference).add(m5).intoArray(m, at + 3 * step);
  }

  /** A weight (out, in, 3, 3) as 36 matrices (in, out). */
  static float[] filters(float[] weight, int in, int out) {
    float[] u = new float[POINTS * in * out];
    double[] half = new double[IN * 3];
    for (int o = 0; o < out; o++) {
      for (int c = 0; c < in; c++) {
        int g = (o * in + c) * 9;
        for (int i = 0; i < IN; i++) {
          for (int j = 0; j < 3; j++) {
            half[i * 3 + j] =
                G[i][0] * weight[g + j] + G[i][1] * weight[g + 3 + j] + G[i][2] * weight[g + 6 + j];
          }
        }
        for (int i = 0; i < IN; i++) {
          for (int j = 0; j < IN; j++) {
            double sum = 0;
            for (int l = 0; l < 3; l++) {
              sum += half[i * 3 + l] * G[j][l];
            }
            u[((i * IN + j) * in + c) * out + o] = (float) sum;
          }
        }
      }
    }
    return u;
  }
}
