package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.PatchGather;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * Gathers that turn maps into rows for a matrix product: picture to patches, and Swin's patch
 * merging.
 */
public final class Patches {
  public static final String GATHER = "patch_gather";
  public static final String MERGE = "merge_gather";

  private Patches() {}

  /**
   * Patches (B, ⌈H/p⌉, ⌈W/p⌉, 3p²) of a normalised picture (B, 3, H, W), or of bytes (B, H, W, 3),
   * which are normalised with ImageNet's statistics into {@code dtype}.
   */
  public static Variable gather(Variable image, int patch, DType dtype) {
    boolean bytes = image.dtype() == DType.U8;
    Check.that(
        image.shape().rank() == 4
            && image.shape().dim(bytes ? 3 : 1) == 3
            && (bytes || image.dtype() == dtype)
            && patch > 0,
        GATHER,
        "a picture (B, 3, H, W) of " + dtype + " or (B, H, W, 3) of U8, and a positive patch",
        image);
    Backend k = image.backend();
    PatchGather spec =
        new PatchGather(
            image.shape().dim(0),
            image.shape().dim(bytes ? 1 : 2),
            image.shape().dim(bytes ? 2 : 3),
            patch,
            PatchGather.IMAGENET_MEAN,
            PatchGather.IMAGENET_STD);
    Array y =
        k.allocate(Shape.of(spec.batch(), spec.rows(), spec.columns(), 3 * patch * patch), dtype);
    k.patchGather(spec, image.array(), y);
    return Tape.record(
        GATHER,
        Check.inputs(image),
        y,
        Check.saved(),
        c -> {
          Array dx = Check.like(image);
          k.patchScatter(spec, c.gradient(0), dx);
          c.give(0, dx);
        });
  }

  /** (B, H, W, C) to (B, ⌈H/2⌉, ⌈W/2⌉, 4C), in the order of {@link Backend#mergeGather}. */
  public static Variable merge(Variable x) {
    Backend k = Check.floating(MERGE, x);
    Check.that(x.shape().rank() == 4, MERGE, "x must be (B, H, W, C)", x);
    int b = x.shape().dim(0);
    int h = x.shape().dim(1);
    int w = x.shape().dim(2);
    int ch = x.shape().dim(3);
    Array y = Check.make(x, b, (h + 1) / 2, (w + 1) / 2, 4 * ch);
    k.mergeGather(b, h, w, ch, x.array(), y);
    return Tape.record(
        MERGE,
        Check.inputs(x),
        y,
        Check.saved(),
        c -> {
          Array dx = Check.like(x);
          k.mergeScatter(b, h, w, ch, c.gradient(0), dx);
          c.give(0, dx);
        });
  }
}
