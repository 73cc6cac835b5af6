package org.deixis.model.gres;

import org.deixis.backend.Scope;
import org.deixis.tensor.Tensor;

/**
 * What the model says, as F32 logits.
 *
 * @param mask (B, ⌈H/4⌉, ⌈W/4⌉): positive where the phrase points
 * @param regionLogits (B, P): how much of each region's cell the phrase points at
 * @param isNegative (B): positive where the phrase points at nothing
 * @param regionAttention (B, P, N): where each region looked in the last layer, in the type of the
 *     activations
 * @param attentionHeight rows of that map; its columns are N / rows
 */
public record Prediction(
    Tensor mask,
    Tensor regionLogits,
    Tensor isNegative,
    Tensor regionAttention,
    int attentionHeight) {
  public int regions() {
    return regionLogits.dim(1);
  }

  /** Lets the scope around {@code scope} own it too. */
  public Prediction keep(Scope scope) {
    mask.keep(scope);
    regionLogits.keep(scope);
    isNegative.keep(scope);
    regionAttention.keep(scope);
    return this;
  }
}
