package org.deixis.backend.cpu;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;

/**
 * Elementary functions of float vectors. The JDK's own (SVML) exist on some JDKs and processors
 * only; these give the same bits everywhere that a fused multiply-add is one instruction. The
 * coefficients are our own minimax fits (Lawson-weighted least squares at Chebyshev nodes of the
 * stated interval); the stated errors were measured over all magnitudes.
 *
 * <p>Every method handles NaN and the infinities as {@link Math} does.
 */
final class VectorMath {
  static final VectorSpecies<Float> SPECIES = FloatVector.SPECIES_PREFERRED;

  /** Lanes of {@link #SPECIES}. */
  static final int LANES = SPECIES.length();

  private static final float LOG2_E = 1.4426950408889634f;

  /** ln 2 in two parts, the first with trailing zeros so that its small multiples are exact. */
  private static final float LN2_HIGH = 0.693359375f;

  private static final float LN2_LOW = -2.12194440e-4f;

  /** 1.5·2²³: adding it rounds to a whole number, which then stands in the low mantissa bits. */
  private static final float ROUND = 12582912f;

  private static final int ROUND_BITS = 0x4B400000;

  private VectorMath() {}

  /** The smallest multiple of {@link #LANES} that is at least n. */
  static int pad(int n) {
    return (n + LANES - 1) & -LANES;
  }

  /** e^x within 1.2 ulp; results below 2⁻¹²⁵ are 0. */
  static FloatVector exp(FloatVector x) {
    return expBelow(x.blend(89f, x.compare(VectorOperators.GT, 89f)));
  }

  /** {@link #exp} for arguments of at most 89, as in a softmax; saves the upper bound. */
  static FloatVector expBelow(FloatVector x) {
    FloatVector t =
        x.fma(FloatVector.broadcast(SPECIES, LOG2_E), FloatVector.broadcast(SPECIES, ROUND));
    FloatVector n = t.sub(ROUND);
    FloatVector r =
        n.fma(
            FloatVector.broadcast(SPECIES, -LN2_LOW),
            n.fma(FloatVector.broadcast(SPECIES, -LN2_HIGH), x));
    // e^r = 1 + r + r²·q(r) on [-ln2/2, ln2/2]; relative error of the fit 3e-9
    FloatVector q =
        r.fma(
                FloatVector.broadcast(SPECIES, 0.0013950486f),
                FloatVector.broadcast(SPECIES, 0.008368888f))
            .fma(r, FloatVector.broadcast(SPECIES, 0.041666206f))
            .fma(r, FloatVector.broadcast(SPECIES, 0.16666518f))
            .fma(r, FloatVector.broadcast(SPECIES, 0.5f));
    FloatVector p = q.fma(r.mul(r), r).add(1f);
    // 2^(n-1), so that n = 128 is still a float; the other half is the final addition
    FloatVector power =
        t.reinterpretAsInts()
            .add(126 - ROUND_BITS)
            .lanewise(VectorOperators.LSHL, 23)
            .reinterpretAsFloats();
    FloatVector half = p.mul(power);
    return half.add(half).blend(0f, x.compare(VectorOperators.LT, -86.6f));
  }

  /** 1 / (1 + e^−x), relative error 2e-7. */
  static FloatVector sigmoid(FloatVector x) {
    return FloatVector.broadcast(SPECIES, 1f).div(exp(x.neg()).add(1f));
  }

  /** ln(1 + u) for u in [0, 1], relative error 2e-7. */
  static FloatVector log1pUnit(FloatVector u) {
    return u.fma(
            FloatVector.broadcast(SPECIES, -0.003243981f),
            FloatVector.broadcast(SPECIES, 0.019851264f))
        .fma(u, FloatVector.broadcast(SPECIES, -0.05695916f))
        .fma(u, FloatVector.broadcast(SPECIES, 0.10603617f))
        .fma(u, FloatVector.broadcast(SPECIES, -0.1530557f))
        .fma(u, FloatVector.broadcast(SPECIES, 0.19675931f))
        .fma(u, FloatVector.broadcast(SPECIES, -0.24954133f))
        .fma(u, FloatVector.broadcast(SPECIES, 0.33329964f))
        .fma(u, FloatVector.broadcast(SPECIES, -0.49999902f))
        .fma(u, FloatVector.broadcast(SPECIES, 1f))
        .mul(u);
  }

  /** {@link #log} of a normal positive number or NaN: a sum of a softmax is at least 1. */
  static FloatVector logAbove(FloatVector x) {
    return logNormal(x, FloatVector.zero(SPECIES)).add(x.sub(x)); // which keeps NaN
  }

  /** ln x within 2 ulp. */
  static FloatVector log(FloatVector x) {
    var subnormal = x.compare(VectorOperators.LT, Float.MIN_NORMAL);
    FloatVector y =
        logNormal(
            x.blend(x.mul(0x1p24f), subnormal), FloatVector.zero(SPECIES).blend(24f, subnormal));
    y = y.blend(Float.NaN, x.compare(VectorOperators.LT, 0f));
    y = y.blend(Float.NEGATIVE_INFINITY, x.compare(VectorOperators.EQ, 0f));
    // infinity stays, and NaN makes NaN
    return y.blend(x.add(x), x.compare(VectorOperators.LT, Float.POSITIVE_INFINITY).not());
  }

  /**
   * ln(x / 2^shift) of a normal positive x. A method of its own as the compiler inlines none of
   * more than 325 bytes (FreqInlineSize), and a vector that crosses a call is an object.
   */
  private static FloatVector logNormal(FloatVector x, FloatVector shift) {
    IntVector bits = x.reinterpretAsInts();
    // mantissa in [√½, √2) and the exponent that goes with it
    IntVector exponent = bits.sub(0x3f3504f3).lanewise(VectorOperators.ASHR, 23);
    FloatVector r =
        bits.sub(exponent.lanewise(VectorOperators.LSHL, 23)).reinterpretAsFloats().sub(1f);
    FloatVector n = exponent.add(ROUND_BITS).reinterpretAsFloats().sub(ROUND).sub(shift);
    // ln(1 + r) = r − r²/2 + r³·q(r); relative error of the fit 1e-9
    FloatVector q =
        r.fma(
                FloatVector.broadcast(SPECIES, 0.06746601f),
                FloatVector.broadcast(SPECIES, -0.11675641f))
            .fma(r, FloatVector.broadcast(SPECIES, 0.11888175f))
            .fma(r, FloatVector.broadcast(SPECIES, -0.124055915f))
            .fma(r, FloatVector.broadcast(SPECIES, 0.14219551f))
            .fma(r, FloatVector.broadcast(SPECIES, -0.16667996f))
            .fma(r, FloatVector.broadcast(SPECIES, 0.20002119f))
            .fma(r, FloatVector.broadcast(SPECIES, -0.2500001f))
            .fma(r, FloatVector.broadcast(SPECIES, 0.33333313f));
    FloatVector square = r.mul(r);
    FloatVector low = n.fma(FloatVector.broadcast(SPECIES, LN2_LOW), q.mul(square).mul(r));
    FloatVector rest = square.fma(FloatVector.broadcast(SPECIES, -0.5f), low).add(r);
    return n.fma(FloatVector.broadcast(SPECIES, LN2_HIGH), rest);
  }

  /** tanh x, relative error 3e-7. */
  static FloatVector tanh(FloatVector x) {
    FloatVector c = clamp(x, 9f);
    FloatVector u = c.mul(c);
    FloatVector p =
        u.fma(
                FloatVector.broadcast(SPECIES, 1.3354344e-08f),
                FloatVector.broadcast(SPECIES, 2.0608846e-05f))
            .fma(u, FloatVector.broadcast(SPECIES, 0.0034955735f))
            .fma(u, FloatVector.broadcast(SPECIES, 0.13381013f))
            .fma(u, FloatVector.broadcast(SPECIES, 1f));
    FloatVector q =
        u.fma(
                FloatVector.broadcast(SPECIES, 7.776426e-07f),
                FloatVector.broadcast(SPECIES, 0.00032856112f))
            .fma(u, FloatVector.broadcast(SPECIES, 0.025876926f))
            .fma(u, FloatVector.broadcast(SPECIES, 0.4671433f))
            .fma(u, FloatVector.broadcast(SPECIES, 1f));
    return clamp(c.mul(p).div(q), 1f);
  }

  /** Gauss error function, relative error 4e-7. */
  static FloatVector erf(FloatVector x) {
    FloatVector c = clamp(x, 3.9f);
    FloatVector u = c.mul(c);
    FloatVector p =
        u.fma(
                FloatVector.broadcast(SPECIES, 2.0664713e-06f),
                FloatVector.broadcast(SPECIES, 0.0002850607f))
            .fma(u, FloatVector.broadcast(SPECIES, 0.0037383065f))
            .fma(u, FloatVector.broadcast(SPECIES, 0.052667957f))
            .fma(u, FloatVector.broadcast(SPECIES, 0.18966599f))
            .fma(u, FloatVector.broadcast(SPECIES, 1.1283791f));
    FloatVector q =
        u.fma(
                FloatVector.broadcast(SPECIES, 3.826992e-05f),
                FloatVector.broadcast(SPECIES, 0.0011573655f))
            .fma(u, FloatVector.broadcast(SPECIES, 0.014914198f))
            .fma(u, FloatVector.broadcast(SPECIES, 0.1138186f))
            .fma(u, FloatVector.broadcast(SPECIES, 0.5014199f))
            .fma(u, FloatVector.broadcast(SPECIES, 1f));
    return clamp(c.mul(p).div(q), 1f);
  }

  /** x cut to [−bound, bound]; NaN stays. min and max would cost more, for their care about −0. */
  private static FloatVector clamp(FloatVector x, float bound) {
    FloatVector low = x.blend(-bound, x.compare(VectorOperators.LT, -bound));
    return low.blend(bound, x.compare(VectorOperators.GT, bound));
  }
}
