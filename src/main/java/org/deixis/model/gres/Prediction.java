package org.deixis.model.gres;

import org.deixis.tensor.Tensor;

/**
 * What the model says of B expressions.
 *
 * @param mask logits (B, H/4, W/4)
 * @param regions logits (B, P): how much of each cell the mask covers
 * @param noTarget logits (B): that the phrase names nothing
 * @param regionAttention (B, P, N), the last layer's map
 * @param grid how P regions cut the picture
 */
public record Prediction(
    Tensor mask, Tensor regions, Tensor noTarget, Tensor regionAttention, RegionGrid grid) {}
