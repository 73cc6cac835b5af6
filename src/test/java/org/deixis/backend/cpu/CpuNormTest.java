package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;

import java.util.Arrays;
import org.deixis.backend.Array;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Softmax and normalisations with their gradients against double precision. */
class CpuNormTest {
  private static final double EPS = 1e-5;

  private static final int[][] SHAPES = {
    {1, 1},
    {1, 7},
    {5, 1},
    {13, 17},
    {147, 49},
    {3000, 49},
    {1000, 144},
    {700, 97},
    {2, 14_400},
    {196, 512},
    {5, 40_000},
    {9001, 3},
    {0, 5}
  };

  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void softmax(int threads) {
    try (CpuArrays t = new CpuArrays(threads)) {
      for (int[] s : SHAPES) {
        int rows = s[0];
        int columns = s[1];
        double[] x = t.gaussian((long) rows * columns);
        double[] dy = t.gaussian((long) rows * columns);
        double[] y = new double[x.length];
        double[] dx = new double[x.length];
        for (int i = 0; i < x.length; i++) {
          x[i] = (float) (4 * x[i] + 50 * (i / columns % 3 - 1));
        }
        for (int r = 0; r < rows; r++) {
          int at = r * columns;
          double max = Double.NEGATIVE_INFINITY;
          for (int c = 0; c < columns; c++) {
            max = Math.max(max, x[at + c]);
          }
          double sum = 0;
          for (int c = 0; c < columns; c++) {
            sum += Math.exp(x[at + c] - max);
          }
          double dot = 0;
          for (int c = 0; c < columns; c++) {
            y[at + c] = (float) (Math.exp(x[at + c] - max) / sum);
            dot += y[at + c] * dy[at + c];
          }
          for (int c = 0; c < columns; c++) {
            dx[at + c] = y[at + c] * (dy[at + c] - dot);
          }
        }
        String what = Arrays.toString(s);
        Array to = t.empty(s);
        t.backend.softmax(rows, columns, t.of(x, s), to);
        t.check("softmax " + what, y, to, 1e-6);
        Array arrayY = t.of(y, s);
        Array arrayDy = t.of(dy, s);
        t.backend.softmaxBackward(rows, columns, arrayY, arrayDy, to);
        t.check("gradient " + what, dx, y, to, 1e-6);
        t.backend.softmaxBackward(rows, columns, arrayY, arrayDy, arrayDy);
        t.check("gradient in place " + what, dx, y, arrayDy, 1e-6);
        t.clear();
      }
    }
  }

  private static double[] random(CpuArrays t, long n, double scale, double shift) {
    double[] values = t.gaussian(n);
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) (values[i] * scale + shift);
    }
    return values;
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void layerNorm(int threads) {
    try (CpuArrays t = new CpuArrays(threads)) {
      for (int[] s : SHAPES) {
        for (int options = 0; options < 4; options++) {
          layerNorm(t, s[0], s[1], (options & 1) != 0, (options & 2) != 0);
        }
      }
    }
  }

  private static void layerNorm(
      CpuArrays t, int rows, int columns, boolean affine, boolean residual) {
    String what = rows + "×" + columns + (affine ? " affine" : "") + (residual ? " residual" : "");
    int n = rows * columns;
    double[] x = random(t, n, 2, 0.7);
    double[] other = t.gaussian(n);
    double[] gamma = random(t, columns, 1, 0);
    double[] beta = t.gaussian(columns);
    double[] dy = t.gaussian(n);
    double[] extra = t.gaussian(n);
    double[] sum = new double[n];
    double[] y = new double[n];
    double[] stats = new double[2 * rows];
    double[] dx = new double[n];
    double[] dGamma = new double[columns];
    double[] dBeta = new double[columns];
    for (int r = 0; r < rows; r++) {
      int at = r * columns;
      double mean = 0;
      for (int c = 0; c < columns; c++) {
        sum[at + c] = residual ? (float) (x[at + c] + other[at + c]) : x[at + c];
        mean += sum[at + c] / columns;
      }
      double variance = 0;
      for (int c = 0; c < columns; c++) {
        variance += (sum[at + c] - mean) * (sum[at + c] - mean) / columns;
      }
      double root = 1 / Math.sqrt(variance + EPS);
      stats[2 * r] = mean;
      stats[2 * r + 1] = root;
      double first = 0;
      double second = 0;
      for (int c = 0; c < columns; c++) {
        double normal = (sum[at + c] - mean) * root;
        y[at + c] = affine ? normal * gamma[c] + beta[c] : normal;
        double g = dy[at + c] * (affine ? gamma[c] : 1);
        first += g / columns;
        second += g * normal / columns;
        dGamma[c] += dy[at + c] * normal;
        dBeta[c] += dy[at + c];
      }
      for (int c = 0; c < columns; c++) {
        double normal = (sum[at + c] - mean) * root;
        double g = dy[at + c] * (affine ? gamma[c] : 1);
        dx[at + c] = root * (g - first - normal * second) + (residual ? extra[at + c] : 0);
      }
    }
    Array arrayX = t.of(x, rows, columns);
    Array arraySum = residual ? t.empty(rows, columns) : null;
    Array arrayY = t.empty(rows, columns);
    Array arrayStats = t.empty(rows, 2);
    Array arrayGamma = affine ? t.of(gamma, columns) : null;
    t.backend.layerNorm(
        rows,
        columns,
        EPS,
        arrayX,
        residual ? t.of(other, rows, columns) : null,
        arrayGamma,
        affine ? t.of(beta, columns) : null,
        arraySum,
        arrayY,
        arrayStats);
    t.check("y " + what, y, arrayY, 2e-6);
    t.check("statistics " + what, stats, arrayStats, 2e-6);
    if (residual) {
      t.check("sum " + what, sum, arraySum, 1e-7);
    }
    Array dxArray = t.empty(rows, columns);
    Array dGammaArray = affine ? t.empty(columns) : null;
    Array dBetaArray = affine ? t.empty(columns) : null;
    t.backend.layerNormBackward(
        rows,
        columns,
        residual ? arraySum : arrayX,
        arrayGamma,
        arrayStats,
        t.of(dy, rows, columns),
        residual ? t.of(extra, rows, columns) : null,
        dxArray,
        dGammaArray,
        dBetaArray);
    // One column is all mean, and two leave little: measured by what is subtracted.
    double[] measure = new double[n];
    for (int i = 0; i < n; i++) {
      measure[i] = columns < 4 ? dy[i] * stats[2 * (i / columns) + 1] : dx[i];
    }
    t.check("dx " + what, dx, measure, dxArray, 4e-6);
    if (affine) {
      double[] size = new double[columns];
      Arrays.fill(size, Math.sqrt(rows));
      t.check("dGamma " + what, dGamma, size, dGammaArray, 4e-6);
      t.check("dBeta " + what, dBeta, size, dBetaArray, 4e-6);
    }
    t.clear();
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void groupNorm(int threads) {
    int[][] shapes = {
      {1, 1, 2, 1},
      {1, 9, 6, 3},
      {2, 49, 32, 32},
      {3, 577, 64, 8},
      {1, 3136, 256, 32},
      {2, 100, 37, 1},
      {1, 3, 5000, 4},
      {0, 4, 8, 2}
    };
    try (CpuArrays t = new CpuArrays(threads)) {
      for (int[] s : shapes) {
        groupNorm(t, s[0], s[1], s[2], s[3], true, 0.5);
        groupNorm(t, s[0], s[1], s[2], s[3], false, 100);
      }
    }
  }

  private static void groupNorm(
      CpuArrays t, int batch, int pixels, int channels, int groups, boolean affine, double shift) {
    String what = batch + "×" + pixels + "×" + channels + "/" + groups + " around " + shift;
    int n = batch * pixels * channels;
    int width = channels / groups;
    double[] x = random(t, n, 2, shift);
    double[] gamma = t.gaussian(channels);
    double[] beta = t.gaussian(channels);
    double[] dy = t.gaussian(n);
    double[] y = new double[n];
    double[] stats = new double[2 * batch * groups];
    double[] dx = new double[n];
    double[] dGamma = new double[channels];
    double[] dBeta = new double[channels];
    double count = (double) pixels * width;
    for (int b = 0; b < batch; b++) {
      for (int g = 0; g < groups; g++) {
        double mean = 0;
        for (int i = 0; i < count; i++) {
          mean += x[at(b, pixels, channels, g, width, i)] / count;
        }
        double variance = 0;
        for (int i = 0; i < count; i++) {
          variance += Math.pow(x[at(b, pixels, channels, g, width, i)] - mean, 2) / count;
        }
        double root = 1 / Math.sqrt(variance + EPS);
        stats[2 * (b * groups + g)] = mean;
        stats[2 * (b * groups + g) + 1] = root;
        double first = 0;
        double second = 0;
        for (int i = 0; i < count; i++) {
          int j = at(b, pixels, channels, g, width, i);
          int c = j % channels;
          double normal = (x[j] - mean) * root;
          y[j] = affine ? normal * gamma[c] + beta[c] : normal;
          double gradient = dy[j] * (affine ? gamma[c] : 1);
          first += gradient / count;
          second += gradient * normal / count;
          dGamma[c] += dy[j] * normal;
          dBeta[c] += dy[j];
        }
        for (int i = 0; i < count; i++) {
          int j = at(b, pixels, channels, g, width, i);
          double gradient = dy[j] * (affine ? gamma[j % channels] : 1);
          dx[j] = root * (gradient - first - (x[j] - mean) * root * second);
        }
      }
    }
    Array arrayX = t.of(x, batch, pixels, channels);
    Array arrayY = t.empty(batch, pixels, channels);
    Array arrayStats = t.empty(batch, groups, 2);
    Array arrayGamma = affine ? t.of(gamma, channels) : null;
    t.backend.groupNorm(
        batch,
        pixels,
        channels,
        groups,
        EPS,
        arrayX,
        arrayGamma,
        affine ? t.of(beta, channels) : null,
        arrayY,
        arrayStats);
    // Around a large mean x itself has lost digits: 100 ± 2 keeps 1.5e-6 of its deviation.
    double tolerance = shift > 10 ? 1e-5 : 2e-6;
    t.check("y " + what, y, arrayY, tolerance);
    t.check("statistics " + what, stats, arrayStats, 2e-6);
    Array dxArray = t.empty(batch, pixels, channels);
    Array dGammaArray = affine ? t.empty(channels) : null;
    Array dBetaArray = affine ? t.empty(channels) : null;
    t.backend.groupNormBackward(
        batch,
        pixels,
        channels,
        groups,
        arrayX,
        arrayGamma,
        arrayStats,
        t.of(dy, batch, pixels, channels),
        dxArray,
        dGammaArray,
        dBetaArray);
    double[] measure = new double[n];
    for (int i = 0; i < n; i++) {
      measure[i] = count < 4 ? dy[i] : dx[i];
    }
    t.check("dx " + what, dx, measure, dxArray, tolerance);
    if (affine) {
      double[] size = new double[channels];
      Arrays.fill(size, Math.sqrt(batch * pixels));
      t.check("dGamma " + what, dGamma, size, dGammaArray, 4e-6);
      t.check("dBeta " + what, dBeta, size, dBetaArray, 4e-6);
    }
    t.clear();
  }

  private static int at(int picture, int pixels, int channels, int group, int width, int i) {
    return (picture * pixels + i / width) * channels + group * width + i % width;
  }

  @Test
  void bitsDoNotDependOnScheduling() {
    try (CpuArrays t = new CpuArrays(3)) {
      int rows = 3000;
      int columns = 96;
      Array x = t.of(t.gaussian(rows * columns), rows, columns);
      Array dy = t.of(t.gaussian(rows * columns), rows, columns);
      Array gamma = t.of(t.gaussian(columns), columns);
      Array y = t.empty(rows, columns);
      Array stats = t.empty(rows, 2);
      t.backend.layerNorm(rows, columns, EPS, x, null, gamma, gamma, null, y, stats);
      byte[] first = null;
      for (int i = 0; i < 10; i++) {
        Array dGamma = t.empty(columns);
        t.backend.layerNormBackward(
            rows, columns, x, gamma, stats, dy, null, y, dGamma, t.empty(columns));
        first = first == null ? t.bytes(dGamma) : first;
        assertArrayEquals(first, t.bytes(dGamma));
      }
    }
  }
}
