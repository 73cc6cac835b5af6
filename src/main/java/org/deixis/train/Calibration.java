package org.deixis.train;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.deixis.backend.Backend;
import org.deixis.core.InputException;
import org.deixis.data.Dataset;
import org.deixis.data.TextTokenizer;
import org.deixis.eval.Evaluator;
import org.deixis.infer.Segmenter;
import org.deixis.model.gres.GuideModel;
import org.deixis.nn.Parameter;

/**
 * Moves the bias of the no-target head after training. Phrases without a target are the fewer, so
 * that a trained head takes them for ordinary ones when in doubt; the bias that minimises the
 * cross-entropy with both kinds weighted alike makes a probability of a half the point between the
 * two kinds of error (Platt scaling, 1999, of the intercept alone). Masks do not change.
 */
final class Calibration {
  static final String BIAS = "no_target_head.2.bias";
  private static final int MOST_STEPS = 100;
  private static final double CLOSE = 1e-9;

  /** Keeps logits of probabilities of 0 and 1 finite. */
  private static final double TINY = 1e-12;

  private Calibration() {}

  /**
   * @param samples what to calibrate on; never what is measured on afterwards
   * @return what was added to the bias
   * @throws InputException when all of them have a target, or none
   */
  static double run(GuideModel model, TextTokenizer tokenizer, Backend backend, Dataset samples) {
    List<double[]> seen = new ArrayList<>();
    model.training(false);
    try (Segmenter segmenter = Segmenter.of(model, tokenizer, backend, Segmenter.EXPECT_NONE)) {
      Evaluator.run(
          segmenter,
          samples,
          (done, sample, picture, truth, found, iou) ->
              seen.add(new double[] {logit(found.noTarget()), sample.noTarget() ? 1 : 0}));
    }
    double shift =
        shift(
            seen.stream().mapToDouble(s -> s[0]).toArray(),
            seen.stream().mapToDouble(s -> s[1]).toArray());
    Parameter bias = model.parameters().get(BIAS);
    bias.set(new float[] {(float) (bias.toFloats()[0] + shift)});
    bias.refresh();
    return shift;
  }

  private static double logit(double p) {
    double kept = Math.min(1 - TINY, Math.max(TINY, p));
    return Math.log(kept / (1 - kept));
  }

  /**
   * The s that minimises the class-balanced cross-entropy of σ(logit + s), by Newton's method; the
   * function is convex in s.
   *
   * @param truth 1 for an expression without a target, else 0
   */
  static double shift(double[] logits, double[] truth) {
    double none = Arrays.stream(truth).sum();
    double some = truth.length - none;
    if (none == 0 || some == 0) {
      throw new InputException(
          "calibration needs expressions with and without a target, and got %.0f and %.0f; set calibrate to 0"
              .formatted(some, none));
    }
    double shift = 0;
    for (int step = 0; step < MOST_STEPS; step++) {
      double slope = 0;
      double curvature = 0;
      for (int i = 0; i < logits.length; i++) {
        double weight = truth[i] == 1 ? 1 / none : 1 / some;
        double p = 1 / (1 + Math.exp(-logits[i] - shift));
        slope += weight * (p - truth[i]);
        curvature += weight * p * (1 - p);
      }
      // Far out the function is nearly straight, and a full step would overshoot.
      double move = Math.max(-1, Math.min(1, slope / Math.max(curvature, CLOSE)));
      shift -= move;
      if (Math.abs(move) < CLOSE) {
        break;
      }
    }
    return shift;
  }
}
