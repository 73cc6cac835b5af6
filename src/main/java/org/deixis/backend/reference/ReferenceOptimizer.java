package org.deixis.backend.reference;

import java.util.List;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;

/** Gradient norm, AdamW, and the bookkeeping of the loss scale. */
final class ReferenceOptimizer {
  /** As in torch.nn.utils.clip_grad_norm_. */
  private static final double CLIP_EPS = 1e-6;

  private ReferenceOptimizer() {}

  static void gradientNorm(List<Array> gradients, double maxNorm, Array controlArray) {
    double squares = 0;
    for (Array gradient : gradients) {
      Values values = Values.of(gradient);
      for (int i = 0, n = (int) gradient.size(); i < n; i++) {
        squares += values.get(i) * values.get(i);
      }
    }
    Values control = Values.of(controlArray);
    double scale = control.get(AdamW.SCALE);
    double norm = Math.sqrt(squares) / scale;
    double clip = maxNorm == 0 ? 1 : Math.min(1, maxNorm / (norm + CLIP_EPS));
    control.set(AdamW.NORM, norm);
    control.set(AdamW.OVERFLOW, Double.isFinite(norm) ? 0 : 1);
    control.set(AdamW.CLIP, clip / scale);
  }

  static void adamW(AdamW spec, List<AdamW.Slot> slots, Array controlArray) {
    Values control = Values.of(controlArray);
    if (control.get(AdamW.OVERFLOW) != 0) {
      return;
    }
    double step = control.get(AdamW.STEP) + 1;
    double clip = control.get(AdamW.CLIP);
    double beta1 = spec.beta1();
    double beta2 = spec.beta2();
    double correction1 = 1 - Math.pow(beta1, step);
    double correction2 = 1 - Math.pow(beta2, step);
    for (AdamW.Slot slot : slots) {
      Values parameter = Values.of(slot.parameter());
      Values gradient = Values.of(slot.gradient());
      Values m = Values.of(slot.m());
      Values v = Values.of(slot.v());
      Values half = slot.half() == null ? null : Values.of(slot.half());
      double rate = control.get(AdamW.LR) * slot.rateFactor();
      for (int i = 0, n = (int) slot.parameter().size(); i < n; i++) {
        double g = clip * gradient.get(i);
        double p = parameter.get(i);
        double m1 = beta1 * m.get(i) + (1 - beta1) * g;
        double v1 = beta2 * v.get(i) + (1 - beta2) * g * g;
        p -= rate * slot.weightDecay() * p;
        p -= rate * (m1 / correction1) / (Math.sqrt(v1 / correction2) + spec.eps());
        m.set(i, m1);
        v.set(i, v1);
        parameter.set(i, p);
        if (half != null) {
          half.set(i, parameter.get(i)); // of the stored master, as a cast of it would give
        }
      }
    }
  }

  static void advance(int growthInterval, Array controlArray) {
    Values control = Values.of(controlArray);
    if (control.get(AdamW.OVERFLOW) != 0) {
      control.set(AdamW.SCALE, Math.max(1, control.get(AdamW.SCALE) / 2));
      control.set(AdamW.GOOD, 0);
      control.set(AdamW.SKIPPED, control.get(AdamW.SKIPPED) + 1);
      return;
    }
    control.set(AdamW.STEP, control.get(AdamW.STEP) + 1);
    control.set(AdamW.GOOD, control.get(AdamW.GOOD) + 1);
    if (growthInterval > 0 && control.get(AdamW.GOOD) >= growthInterval) {
      control.set(AdamW.SCALE, control.get(AdamW.SCALE) * 2);
      control.set(AdamW.GOOD, 0);
    }
  }
}
