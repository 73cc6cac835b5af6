package org.deixis.model.gres;

import org.deixis.core.DType;
import org.deixis.ops.Losses;
import org.deixis.tensor.Tensor;

/**
 * The training loss: mask loss + regionWeight · region cross-entropy + no-target cross-entropy,
 * each a mean over the batch.
 *
 * @param regionWeight 0.5 in the guide
 * @param diceWeight weight of the Dice loss beside the mask's cross-entropy; 0 leaves it out
 * @param focal focal loss instead of the mask's cross-entropy, or null
 */
public record GresLoss(float regionWeight, float diceWeight, Losses.Focal focal) {
  public static final GresLoss GUIDE = new GresLoss(0.5f, 0, null);

  /**
   * @param total scalar
   * @param mask each expression's mask loss (B)
   * @param region scalar, not yet weighted
   * @param noTarget each expression's no-target loss (B)
   */
  public record Parts(Tensor total, Tensor mask, Tensor region, Tensor noTarget) {}

  /**
   * @param mask bitmaps (B, H, W), U8 or floats
   * @param isNegative (B) floats, 1 = the phrase names nothing
   */
  public Parts of(Prediction prediction, Tensor mask, Tensor isNegative) {
    Tensor perMask = prediction.mask().maskLoss(mask, focal, diceWeight);
    RegionGrid grid = prediction.grid();
    DType statistics = perMask.dtype();
    Tensor share = mask.regionPool(grid.rows(), grid.columns(), statistics);
    Tensor region = prediction.regions().cast(statistics).binaryLoss(share, null).mean();
    Tensor perNone = prediction.noTarget().cast(statistics).binaryLoss(isNegative, null);
    Tensor total = perMask.mean().add(region.scale(regionWeight)).add(perNone.mean());
    return new Parts(total, perMask, region, perNone);
  }
}
