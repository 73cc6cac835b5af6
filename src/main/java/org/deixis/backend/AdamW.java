package org.deixis.backend;

/**
 * One step of AdamW (Loshchilov and Hutter, ICLR 2019) for many parameters at once, its scalars in
 * device memory.
 *
 * <p>The control array holds {@link #SLOTS} floats: LR learning rate, STEP steps taken, SCALE loss
 * scale, GOOD good steps since the scale last changed, OVERFLOW 1 when a gradient of this step is
 * not finite, NORM the global gradient norm after unscaling, CLIP what gradients are multiplied
 * with (clipping and unscaling in one), SKIPPED steps skipped in all.
 *
 * @param beta1 decay of the first moment
 * @param beta2 decay of the second moment
 * @param eps added to the root of the second moment
 */
public record AdamW(float beta1, float beta2, float eps) {
  public static final int LR = 0;
  public static final int STEP = 1;
  public static final int SCALE = 2;
  public static final int GOOD = 3;
  public static final int OVERFLOW = 4;
  public static final int NORM = 5;
  public static final int CLIP = 6;
  public static final int SKIPPED = 7;
  public static final int SLOTS = 8;

  /**
   * One parameter's arrays, all of one shape: the fp32 master weight, its gradient (fp32 or half),
   * both moments (fp32), and the half copy that the forward reads (null where the master is read
   * itself).
   */
  public record Slot(
      Array parameter,
      Array gradient,
      Array m,
      Array v,
      Array half,
      float rateFactor,
      float weightDecay) {}
}
