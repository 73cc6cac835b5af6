package org.deixis.model.gres;

import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.ops.Losses;
import org.deixis.tensor.Tensor;

/**
 * The guide's loss, a mean over expressions of mask BCE (or focal) + diceWeight · Dice +
 * regionWeight · region BCE + no-target BCE. A region's target is the share of its cell that the
 * mask covers.
 *
 * @param regionWeight 0.5 in the guide
 * @param diceWeight 0 for none
 * @param focal of the mask term, or null for plain cross-entropy
 */
public record GresLoss(float regionWeight, float diceWeight, Losses.Focal focal) {
  /** The guide's weights: no Dice, no focal loss. */
  public static final GresLoss DEFAULT = new GresLoss(0.5f, 0, null);

  /**
   * The loss and its parts, all F32.
   *
   * @param total what training minimises, (1 value)
   * @param perExpression (B): mask and no-target terms of each expression, for hard-example mining
   * @param mask mean of the mask term, Dice included
   * @param region mean of the region term, before its weight
   * @param negative mean of the no-target term
   */
  public record Result(
      Tensor total, Tensor perExpression, Tensor mask, Tensor region, Tensor negative) {}

  /**
   * @param mask bitmaps U8 (B, H, W), 0 or 1
   * @param isNegative F32 (B): 1 where the phrase points at nothing
   */
  public Result of(Prediction prediction, Tensor mask, Tensor isNegative) {
    RegionGrid grid = RegionGrid.of(prediction.regions());
    try (Scope scope = Scope.open()) {
      Tensor target = mask.regionPool(grid.rows(), grid.columns(), DType.F32);
      Tensor masks = prediction.mask().maskLoss(mask, focal, diceWeight);
      Tensor negatives = prediction.isNegative().binaryLoss(isNegative, null);
      Tensor each = masks.add(negatives);
      Tensor region = prediction.regionLogits().binaryLoss(target, null).mean();
      Tensor total = each.mean().add(region.scale(regionWeight));
      return new Result(
          total.keep(scope),
          each.detach().keep(scope),
          masks.detach().mean().keep(scope),
          region.detach().keep(scope),
          negatives.detach().mean().keep(scope));
    }
  }
}
