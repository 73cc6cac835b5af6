package org.deixis.backend.cpu;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;

/**
 * Binary cross-entropy of logits and its focal form, by vectors. All start from e = exp(−|z|),
 * which does not overflow and keeps the digits of both tails.
 */
final class LossMath {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;

  /** Keeps powers of 0 finite. */
  private static final float TINY = 1e-37f;

  private LossMath() {}

  /** exp(−|z|). */
  static FloatVector tail(FloatVector z) {
    return VectorMath.expBelow(z.abs().neg());
  }

  /** σ(z), given e and 1 / (1 + e). */
  static FloatVector sigmoid(FloatVector z, FloatVector e, FloatVector inverse) {
    return inverse.blend(e.mul(inverse), z.compare(VectorOperators.LT, 0f));
  }

  /** σ(z) − t, which keeps its digits where the two are close: σ(z) is 1 − q for z ≥ 0. */
  static FloatVector residual(FloatVector z, FloatVector t, FloatVector e, FloatVector inverse) {
    FloatVector q = e.mul(inverse);
    FloatVector upper = FloatVector.broadcast(S, 1f).sub(t).sub(q);
    return upper.blend(q.sub(t), z.compare(VectorOperators.LT, 0f));
  }

  /** max(z, 0) − z·t + ln(1 + e). */
  static FloatVector crossEntropy(FloatVector z, FloatVector t, FloatVector e) {
    FloatVector positive = z.blend(0f, z.compare(VectorOperators.LT, 0f));
    return t.neg().fma(z, positive).add(VectorMath.log1pUnit(e));
  }

  /** 1 − exp(−b) for b of at least 0, without cancellation near 0. */
  static FloatVector oneMinusExp(FloatVector b) {
    // b − b²/2 + b³/6 − …, whose first term left out is b⁷/5040
    FloatVector series =
        b.fma(FloatVector.broadcast(S, -1f / 720), FloatVector.broadcast(S, 1f / 120))
            .fma(b, FloatVector.broadcast(S, -1f / 24))
            .fma(b, FloatVector.broadcast(S, 1f / 6))
            .fma(b, FloatVector.broadcast(S, -0.5f))
            .fma(b, FloatVector.broadcast(S, 1f))
            .mul(b);
    FloatVector direct = FloatVector.broadcast(S, 1f).sub(VectorMath.expBelow(b.neg()));
    return direct.blend(series, b.compare(VectorOperators.LT, 0.25f));
  }

  /** u cut below at a tiny number, so that quotients and logarithms of it exist. */
  static FloatVector positive(FloatVector u) {
    return u.blend(TINY, u.compare(VectorOperators.LT, TINY));
  }

  /** u^gamma for positive u. */
  static FloatVector power(FloatVector u, float gamma) {
    return VectorMath.expBelow(VectorMath.log(u).mul(gamma));
  }

  /**
   * What (σ(z) − t) is multiplied with in the derivative of alpha·u^gamma·bce, u = 1 − exp(−bce):
   * alpha·u^gamma·(1 + gamma·(1 − u)·bce/u).
   *
   * @param power alpha·u^gamma
   */
  static FloatVector focalSlope(FloatVector u, FloatVector power, FloatVector bce, float gamma) {
    FloatVector inner = FloatVector.broadcast(S, 1f).sub(u).mul(bce.div(u)).mul(gamma);
    return power.mul(inner.add(1f));
  }
}
