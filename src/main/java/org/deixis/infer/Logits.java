package org.deixis.infer;

import org.deixis.model.gres.Prediction;

/**
 * What the model said of some phrases, on the host.
 *
 * @param mask (B, rows, columns)
 * @param regions (B, P)
 * @param negatives (B)
 */
public record Logits(float[] mask, float[] regions, float[] negatives, int rows, int columns) {
  /** Waits for the device. */
  public static Logits of(Prediction p) {
    return new Logits(
        p.mask().toFloats(),
        p.regionLogits().toFloats(),
        p.isNegative().toFloats(),
        p.mask().dim(1),
        p.mask().dim(2));
  }

  /** Regions of each phrase. */
  public int count() {
    return regions.length / negatives.length;
  }
}
