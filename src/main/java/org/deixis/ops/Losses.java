package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Binary;
import org.deixis.backend.MaskLoss;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/** Losses whose gradient is found in the same pass as their value. Targets get no gradient. */
public final class Losses {
  public static final String MASK = "mask_loss";
  public static final String BINARY = "binary_loss";
  public static final String CROSS_ENTROPY = "cross_entropy";

  /** Focal loss's weight and exponent; null where plain cross-entropy is meant. */
  public record Focal(float alpha, float gamma) {
    /** The values of the guide, and of Lin et al. (ICCV 2017), table 1. */
    public static final Focal DEFAULT = new Focal(0.25f, 2f);
  }

  private Losses() {}

  /**
   * Per-picture loss (B), F32, of logits (B, h, w) against bitmaps (B, H, W) of U8 or floats;
   * formula in {@link MaskLoss}.
   */
  public static Variable mask(Variable logits, Variable mask, Focal focal, float diceWeight) {
    Backend k = Check.floating(MASK, logits);
    Check.that(
        logits.shape().rank() == 3
            && mask.shape().rank() == 3
            && logits.shape().dim(0) == mask.shape().dim(0)
            && logits.shape().product(1, 3) > 0
            && mask.shape().product(1, 3) > 0
            && (mask.dtype() == DType.U8 || mask.dtype() == logits.dtype())
            && !mask.requiresGradient(),
        MASK,
        "logits (B, h, w) and a bitmap (B, H, W) of U8 or of the logits' type, which gets no gradient",
        logits,
        mask);
    int b = logits.shape().dim(0);
    MaskLoss spec =
        new MaskLoss(
            b,
            logits.shape().dim(1),
            logits.shape().dim(2),
            mask.shape().dim(1),
            mask.shape().dim(2),
            focal != null,
            focal == null ? 0 : focal.alpha(),
            focal == null ? 0 : focal.gamma(),
            diceWeight);
    Array loss = Check.statistics(logits, b);
    // A half gradient of a mean over a picture would underflow before the loss scale reaches it.
    Array d = Tape.records(logits) ? Check.statistics(logits, logits.shape().dims()) : null;
    k.maskLoss(spec, logits.array(), mask.array(), loss, d);
    int inner = Math.toIntExact(logits.shape().product(1, 3));
    return Tape.record(
        MASK,
        Check.inputs(logits, mask),
        loss,
        Check.saved(d),
        c -> {
          Array scaled = Check.like(c.saved(0));
          k.binary(Binary.MUL, 1, b, inner, true, true, false, c.saved(0), c.gradient(0), scaled);
          c.give(0, cast(k, scaled, logits.dtype()));
        });
  }

  /** Elementwise binary cross-entropy (or focal loss) with logits, F32, of x's shape. */
  public static Variable binary(Variable x, Variable target, Focal focal) {
    Backend k = Check.floating(BINARY, x);
    Check.that(
        x.shape().equals(target.shape())
            && target.dtype().isFloating()
            && !target.requiresGradient(),
        BINARY,
        "x and a floating target of one shape, which gets no gradient",
        x,
        target);
    Array loss = Check.statistics(x, x.shape().dims());
    Array d = Tape.records(x) ? Check.statistics(x, x.shape().dims()) : null;
    k.binaryLoss(
        focal != null,
        focal == null ? 0 : focal.alpha(),
        focal == null ? 0 : focal.gamma(),
        x.array(),
        target.array(),
        loss,
        d);
    return Tape.record(
        BINARY,
        Check.inputs(x, target),
        loss,
        Check.saved(d),
        c -> {
          Array scaled = Check.like(c.saved(0));
          int n = Math.toIntExact(scaled.size());
          k.binary(Binary.MUL, 1, 1, n, true, true, true, c.saved(0), c.gradient(0), scaled);
          c.give(0, cast(k, scaled, x.dtype()));
        });
  }

  /**
   * Weighted softmax cross-entropy (1) of rows x (R, classes) against I32 targets (R); weight
   * (classes) or null.
   */
  public static Variable crossEntropy(Variable x, Variable target, Variable weight) {
    Backend k = Check.floating(CROSS_ENTROPY, x, weight);
    Check.that(
        x.shape().rank() == 2
            && target.dtype() == DType.I32
            && target.shape().size() == x.shape().dim(0)
            && x.shape().size() > 0
            && (weight == null || weight.shape().size() == x.shape().dim(1)),
        CROSS_ENTROPY,
        "x (R, classes), targets I32 (R), weight (classes) or none",
        x,
        target,
        weight);
    Array loss = Check.statistics(x, 1);
    Array d = Tape.records(x) ? Check.statistics(x, x.shape().dims()) : null;
    k.crossEntropy(
        x.shape().dim(0),
        x.shape().dim(1),
        x.array(),
        target.array(),
        Check.array(weight),
        loss,
        d);
    return Tape.record(
        CROSS_ENTROPY,
        Check.inputs(x),
        loss,
        Check.saved(d),
        c -> {
          Array scaled = Check.like(c.saved(0));
          int n = Math.toIntExact(scaled.size());
          k.binary(Binary.MUL, 1, 1, n, true, true, false, c.saved(0), c.gradient(0), scaled);
          c.give(0, cast(k, scaled, x.dtype()));
        });
  }

  private static Array cast(Backend k, Array a, DType dtype) {
    if (a.dtype() == dtype) {
      return a;
    }
    Array y = k.allocate(Shape.of(a.shape().dims()), dtype);
    k.copy(a, y);
    return y;
  }
}
