package org.deixis.backend.reference;

import org.deixis.backend.Array;
import org.deixis.backend.MaskLoss;

/** Losses with their gradients. */
final class ReferenceLoss {
  private ReferenceLoss() {}

  /** Binary cross-entropy of a logit, or its focal form, with the derivative. */
  private record Element(boolean focal, double alpha, double gamma) {
    static double crossEntropy(double x, double t) {
      return Math.max(x, 0) - x * t + Math.log1p(Math.exp(-Math.abs(x)));
    }

    double loss(double x, double t) {
      double bce = crossEntropy(x, t);
      return focal ? alpha * Math.pow(-Math.expm1(-bce), gamma) * bce : bce;
    }

    /**
     * With u = 1 − exp(−bce): d/dx alpha·u^gamma·bce = alpha·(gamma·u^(gamma−1)·(1 − u)·bce +
     * u^gamma)·(σ(x) − t). Where u is 0 so is bce ≈ u, and the first term vanishes.
     */
    double derivative(double x, double t) {
      double dBce = ReferenceElementwise.sigmoid(x) - t;
      if (!focal) {
        return dBce;
      }
      double bce = crossEntropy(x, t);
      double u = -Math.expm1(-bce);
      double inner = u == 0 ? 0 : gamma * Math.pow(u, gamma - 1) * (1 - u) * bce;
      return alpha * (inner + Math.pow(u, gamma)) * dBce;
    }
  }

  static void maskLoss(MaskLoss s, Array logits, Array mask, Array loss, Array dLogits) {
    double[] low = Values.read(logits);
    Values target = Values.of(mask);
    Values to = Values.of(loss);
    double[] gradient = new double[low.length];
    Element element = new Element(s.focal(), s.alpha(), s.gamma());
    ReferenceGeometry.Tap[] rows = ReferenceGeometry.taps(s.lowHeight(), s.height());
    ReferenceGeometry.Tap[] columns = ReferenceGeometry.taps(s.lowWidth(), s.width());
    int pixels = s.height() * s.width();
    for (int b = 0; b < s.batch(); b++) {
      int start = b * s.lowHeight() * s.lowWidth();
      double[] z = new double[pixels];
      double[] t = new double[pixels];
      double sum = 0;
      double sumP = 0;
      double sumT = 0;
      double sumPt = 0;
      for (int i = 0; i < pixels; i++) {
        ReferenceGeometry.Tap row = rows[i / s.width()];
        ReferenceGeometry.Tap column = columns[i % s.width()];
        int top = start + row.low() * s.lowWidth();
        int bottom = start + row.high() * s.lowWidth();
        double left = mix(low[top + column.low()], low[bottom + column.low()], row.share());
        double right = mix(low[top + column.high()], low[bottom + column.high()], row.share());
        z[i] = mix(left, right, column.share());
        t[i] = target.get(b * pixels + i);
        double p = ReferenceElementwise.sigmoid(z[i]);
        sum += element.loss(z[i], t[i]);
        sumP += p;
        sumT += t[i];
        sumPt += p * t[i];
      }
      double numerator = 2 * sumPt + 1;
      double denominator = sumP + sumT + 1;
      double mean = pixels == 0 ? 0 : sum / pixels;
      to.set(b, mean + s.diceWeight() * (1 - numerator / denominator));
      for (int i = 0; i < pixels; i++) {
        double p = ReferenceElementwise.sigmoid(z[i]);
        double dDice =
            -(2 * t[i] * denominator - numerator) / (denominator * denominator) * p * (1 - p);
        double g = element.derivative(z[i], t[i]) / pixels + s.diceWeight() * dDice;
        ReferenceGeometry.Tap row = rows[i / s.width()];
        ReferenceGeometry.Tap column = columns[i % s.width()];
        int top = start + row.low() * s.lowWidth();
        int bottom = start + row.high() * s.lowWidth();
        gradient[top + column.low()] += (1 - row.share()) * (1 - column.share()) * g;
        gradient[top + column.high()] += (1 - row.share()) * column.share() * g;
        gradient[bottom + column.low()] += row.share() * (1 - column.share()) * g;
        gradient[bottom + column.high()] += row.share() * column.share() * g;
      }
    }
    Values.write(gradient, dLogits);
  }

  private static double mix(double a, double b, double share) {
    return (1 - share) * a + share * b;
  }

  static void binaryLoss(
      boolean focal, float alpha, float gamma, Array x, Array target, Array loss, Array dx) {
    Element element = new Element(focal, alpha, gamma);
    double[] logits = Values.read(x);
    double[] t = Values.read(target);
    Values to = Values.of(loss);
    Values gradient = dx == null ? null : Values.of(dx);
    for (int i = 0; i < logits.length; i++) {
      to.set(i, element.loss(logits[i], t[i]));
      if (gradient != null) {
        gradient.set(i, element.derivative(logits[i], t[i]));
      }
    }
  }

  static void crossEntropy(
      int rows, int classes, Array x, Array target, Array weight, Array loss, Array dx) {
    double[] logits = Values.read(x);
    double[] t = Values.read(target);
    double[] weights = Values.read(weight);
    double[] gradient = new double[logits.length];
    double sum = 0;
    double total = 0;
    for (int row = 0; row < rows; row++) {
      int wanted = (int) t[row];
      double w = weights == null ? 1 : weights[wanted];
      double[] p = new double[classes];
      System.arraycopy(logits, row * classes, p, 0, classes);
      double logSum = ReferenceNorm.softmax(p);
      sum += w * (logSum - logits[row * classes + wanted]);
      total += w;
      for (int c = 0; c < classes; c++) {
        gradient[row * classes + c] = w * (p[c] - (c == wanted ? 1 : 0));
      }
    }
    for (int i = 0; i < gradient.length; i++) {
      gradient[i] /= total;
    }
    Values.of(loss).set(0, rows == 0 ? 0 : sum / total);
    Values.write(gradient, dx);
  }
}
