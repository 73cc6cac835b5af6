package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Gemm;

/**
 * y = activation(x W1ᵀ + b1) W2ᵀ + b2 over the last axis, the two layers behind the attention of a
 * Transformer (Vaswani et al., 2017, section 3.3): x (…, in), W1 (hidden, in), W2 (out, hidden) as
 * PyTorch stores them, biases or none. One operation, since the activation's derivative then goes
 * with the product that brings the gradient back to it.
 */
public final class FeedForward {
  public static final String NAME = "feed_forward";

  private FeedForward() {}

  public static Variable apply(
      Variable x,
      Variable weight1,
      Variable bias1,
      Activation activation,
      Variable weight2,
      Variable bias2) {
    Backend k = Check.floating(NAME, x, weight1, bias1, weight2, bias2);
    Check.that(
        x.shape().rank() >= 1
            && weight1.shape().rank() == 2
            && x.shape().dim(-1) == weight1.shape().dim(1)
            && Linear.fits(bias1, weight1),
        NAME,
        "x (…, in), the first weight (hidden, in) and its bias (hidden) must agree",
        x,
        weight1,
        bias1);
    Check.that(
        weight2.shape().rank() == 2
            && weight1.shape().dim(0) == weight2.shape().dim(1)
            && Linear.fits(bias2, weight2),
        NAME,
        "the first weight (hidden, in), the second (out, hidden) and its bias (out) must agree",
        weight1,
        weight2,
        bias2);
    Check.that(activation != Activation.NONE, NAME, "there must be an activation", x);
    int in = weight1.shape().dim(1);
    int hidden = weight1.shape().dim(0);
    int out = weight2.shape().dim(0);
    int rows = Check.rows(x);
    boolean recorded = Tape.records(x, weight1, bias1, weight2, bias2);
    Array h = Check.make(x, x.shape().with(-1, hidden));
    Array pre = recorded ? Check.like(h) : null;
    Array y = Check.make(x, x.shape().with(-1, out));
    k.gemm(
        Gemm.of(rows, hidden, in, false, true).activated(activation),
        x.array(),
        weight1.array(),
        Check.array(bias1),
        pre,
        h);
    k.gemm(
        Gemm.of(rows, out, hidden, false, true), h, weight2.array(), Check.array(bias2), null, y);
    return Tape.record(
        NAME,
        Check.inputs(x, weight1, bias1, weight2, bias2),
        y,
        Check.saved(x.array(), weight1.array(), weight2.array(), pre, h),
        c -> {
          Array dy = c.gradient(0);
          Linear.giveParameters(k, c, 3, rows, c.saved(4), dy, weight2, bias2);
          if (!c.needs(0) && !c.needs(1) && !c.needs(2)) {
            return;
          }
          Array d = Check.like(c.saved(4));
          k.gemmBackwardActivation(
              Gemm.of(rows, hidden, out, false, false).activated(activation),
              dy,
              c.saved(2),
              c.saved(3),
              d);
          Linear.giveParameters(k, c, 1, rows, c.saved(0), d, weight1, bias1);
          if (c.needs(0)) {
            Array dx = Check.like(c.saved(0));
            k.gemm(Gemm.of(rows, in, hidden, false, false), d, c.saved(1), null, null, dx);
            c.give(0, dx);
          }
        });
  }
}
