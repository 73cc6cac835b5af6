package org.deixis.train;

import org.deixis.data.Sample;
import org.deixis.data.SampleWeights;

/**
 * Draws what is hard more often: the weight of a sample is a running mean of its loss over that of
 * all losses, kept within [1/{@value #SPREAD}, {@value #SPREAD}]:
 *
 * <p>{@code mean ← 0.99·mean + 0.01·loss}, then {@code weight ← clamp(0.7·weight + 0.3·loss/mean,
 * 1/4, 4)}; the first loss of all is the first mean.
 *
 * <p>A sample that was never seen keeps weight 1. Weights take effect at the next epoch.
 */
final class HardExampleMining {
  private static final double KEEP = 0.7;
  static final double SPREAD = 4;

  private final SampleWeights weights;
  private double mean;

  HardExampleMining(SampleWeights weights) {
    this.weights = weights;
  }

  /** Takes up the losses of a batch, one for each sample. */
  void update(Sample[] samples, float[] losses) {
    for (int i = 0; i < samples.length; i++) {
      double loss = losses[i];
      if (!Double.isFinite(loss)) {
        continue;
      }
      mean = mean == 0 ? loss : 0.99 * mean + 0.01 * loss;
      double before = weights.get(samples[i]);
      double now = mean > 0 ? KEEP * before + (1 - KEEP) * loss / mean : before;
      weights.set(samples[i], Math.max(1 / SPREAD, Math.min(SPREAD, now)));
    }
  }

  double mean() {
    return mean;
  }

  void mean(double value) {
    mean = value;
  }
}
