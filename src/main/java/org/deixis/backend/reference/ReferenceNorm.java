package org.deixis.backend.reference;

import org.deixis.backend.Array;

/** Softmax, layer and group normalisation. */
final class ReferenceNorm {
  private ReferenceNorm() {}

  /** Replaces {@code scores} by their softmax; returns the logarithm of the sum of exponentials. */
  static double softmax(double[] scores) {
    double max = Double.NEGATIVE_INFINITY;
    for (double score : scores) {
      max = Math.max(max, score);
    }
    double sum = 0;
    for (int i = 0; i < scores.length; i++) {
      scores[i] = Math.exp(scores[i] - max);
      sum += scores[i];
    }
    for (int i = 0; i < scores.length; i++) {
      scores[i] /= sum;
    }
    return max + Math.log(sum);
  }

  /** Gradient of the scores, given softmax's result p and the gradient that reaches it. */
  static double[] softmaxBackward(double[] p, double[] dp) {
    double dot = 0;
    for (int i = 0; i < p.length; i++) {
      dot += p[i] * dp[i];
    }
    double[] ds = new double[p.length];
    for (int i = 0; i < p.length; i++) {
      ds[i] = p[i] * (dp[i] - dot);
    }
    return ds;
  }

  private static double[] row(Values from, int row, int columns) {
    double[] values = new double[columns];
    for (int i = 0; i < columns; i++) {
      values[i] = from.get(row * columns + i);
    }
    return values;
  }

  private static void setRow(Values to, int row, double[] values) {
    for (int i = 0; i < values.length; i++) {
      to.set(row * values.length + i, values[i]);
    }
  }

  static void softmax(int rows, int columns, Array x, Array y) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    for (int row = 0; row < rows; row++) {
      double[] values = row(from, row, columns);
      softmax(values);
      setRow(to, row, values);
    }
  }

  static void softmaxBackward(int rows, int columns, Array y, Array dy, Array dx) {
    Values p = Values.of(y);
    Values up = Values.of(dy);
    Values to = Values.of(dx);
    for (int row = 0; row < rows; row++) {
      setRow(to, row, softmaxBackward(row(p, row, columns), row(up, row, columns)));
    }
  }

  /** Mean, and 1/√(variance + eps), of what a group holds; the variance in a second pass. */
  private static double[] statistics(double[] values, double eps) {
    double mean = 0;
    for (double value : values) {
      mean += value;
    }
    mean /= values.length;
    double variance = 0;
    for (double value : values) {
      variance += (value - mean) * (value - mean);
    }
    variance /= values.length;
    return new double[] {mean, 1 / Math.sqrt(variance + eps)};
  }

  /**
   * With x̂ = (x − mean)·rstd and g the gradient that reaches x̂: dx = rstd·(g − mean(g) −
   * x̂·mean(g·x̂)).
   */
  private static double[] normBackward(double[] normalised, double[] g, double rstd) {
    double meanG = 0;
    double meanGx = 0;
    for (int i = 0; i < g.length; i++) {
      meanG += g[i] / g.length;
      meanGx += g[i] * normalised[i] / g.length;
    }
    double[] dx = new double[g.length];
    for (int i = 0; i < g.length; i++) {
      dx[i] = rstd * (g[i] - meanG - normalised[i] * meanGx);
    }
    return dx;
  }

  static void layerNorm(
      int rows,
      int columns,
      double eps,
      Array x,
      Array residual,
      Array gamma,
      Array beta,
      Array sum,
      Array y,
      Array stats) {
    double[] scale = Values.read(gamma);
    double[] shift = Values.read(beta);
    Values from = Values.of(x);
    Values added = residual == null ? null : Values.of(residual);
    Values total = sum == null ? null : Values.of(sum);
    Values to = Values.of(y);
    Values kept = Values.of(stats);
    for (int row = 0; row < rows && columns > 0; row++) {
      double[] values = row(from, row, columns);
      if (added != null) {
        for (int i = 0; i < columns; i++) {
          values[i] += added.get(row * columns + i);
          total.set(row * columns + i, values[i]);
        }
      }
      double[] meanRstd = statistics(values, eps);
      kept.set(2 * row, meanRstd[0]);
      kept.set(2 * row + 1, meanRstd[1]);
      for (int i = 0; i < columns; i++) {
        double normalised = (values[i] - meanRstd[0]) * meanRstd[1];
        to.set(row * columns + i, scale == null ? normalised : normalised * scale[i] + shift[i]);
      }
    }
  }

  static void layerNormBackward(
      int rows,
      int columns,
      Array x,
      Array gamma,
      Array stats,
      Array dy,
      Array extra,
      Array dx,
      Array dGamma,
      Array dBeta) {
    double[] scale = Values.read(gamma);
    double[] kept = Values.read(stats);
    Values from = Values.of(x);
    Values up = Values.of(dy);
    Values added = extra == null ? null : Values.of(extra);
    Values to = Values.of(dx);
    double[] dScale = new double[columns];
    double[] dShift = new double[columns];
    for (int row = 0; row < rows; row++) {
      double mean = kept[2 * row];
      double rstd = kept[2 * row + 1];
      double[] normalised = row(from, row, columns);
      double[] g = row(up, row, columns);
      for (int i = 0; i < columns; i++) {
        normalised[i] = (normalised[i] - mean) * rstd;
        dScale[i] += g[i] * normalised[i];
        dShift[i] += g[i];
        g[i] *= scale == null ? 1 : scale[i];
      }
      double[] result = normBackward(normalised, g, rstd);
      if (added != null) {
        for (int i = 0; i < columns; i++) {
          result[i] += added.get(row * columns + i);
        }
      }
      setRow(to, row, result);
    }
    Values.write(dScale, dGamma);
    Values.write(dShift, dBeta);
  }

  /** Where element i of group {@code group} of picture {@code b} lies; i counts pixels first. */
  private static int groupIndex(int b, int group, int i, int pixels, int channels, int width) {
    return (b * pixels + i / width) * channels + group * width + i % width;
  }

  static void groupNorm(
      int batch,
      int pixels,
      int channels,
      int groups,
      double eps,
      Array x,
      Array gamma,
      Array beta,
      Array y,
      Array stats) {
    double[] in = Values.read(x);
    double[] scale = Values.read(gamma);
    double[] shift = Values.read(beta);
    Values to = Values.of(y);
    Values kept = Values.of(stats);
    int width = channels / groups;
    double[] values = new double[pixels * width];
    for (int b = 0; b < batch && values.length > 0; b++) {
      for (int group = 0; group < groups; group++) {
        for (int i = 0; i < values.length; i++) {
          values[i] = in[groupIndex(b, group, i, pixels, channels, width)];
        }
        double[] meanRstd = statistics(values, eps);
        kept.set(2 * (b * groups + group), meanRstd[0]);
        kept.set(2 * (b * groups + group) + 1, meanRstd[1]);
        for (int i = 0; i < values.length; i++) {
          int index = groupIndex(b, group, i, pixels, channels, width);
          int channel = index % channels;
          double normalised = (values[i] - meanRstd[0]) * meanRstd[1];
          to.set(index, scale == null ? normalised : normalised * scale[channel] + shift[channel]);
        }
      }
    }
  }

  static void groupNormBackward(
      int batch,
      int pixels,
      int channels,
      int groups,
      Array x,
      Array gamma,
      Array stats,
      Array dy,
      Array dx,
      Array dGamma,
      Array dBeta) {
    double[] in = Values.read(x);
    double[] scale = Values.read(gamma);
    double[] kept = Values.read(stats);
    double[] up = Values.read(dy);
    Values to = Values.of(dx);
    double[] dScale = new double[channels];
    double[] dShift = new double[channels];
    int width = channels / groups;
    double[] normalised = new double[pixels * width];
    double[] g = new double[pixels * width];
    for (int b = 0; b < batch; b++) {
      for (int group = 0; group < groups; group++) {
        double mean = kept[2 * (b * groups + group)];
        double rstd = kept[2 * (b * groups + group) + 1];
        for (int i = 0; i < g.length; i++) {
          int index = groupIndex(b, group, i, pixels, channels, width);
          int channel = index % channels;
          normalised[i] = (in[index] - mean) * rstd;
          dScale[channel] += up[index] * normalised[i];
          dShift[channel] += up[index];
          g[i] = up[index] * (scale == null ? 1 : scale[channel]);
        }
        double[] result = normBackward(normalised, g, rstd);
        for (int i = 0; i < g.length; i++) {
          to.set(groupIndex(b, group, i, pixels, channels, width), result[i]);
        }
      }
    }
    Values.write(dScale, dGamma);
    Values.write(dShift, dBeta);
  }
}
