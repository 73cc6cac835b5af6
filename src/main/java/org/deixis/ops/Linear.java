package org.deixis.ops;

import org.deixis.autograd.Backward;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Gemm;
import org.deixis.backend.Reduction;

/**
 * y = activation(x Wᵀ + b) over the last axis: x (…, in), W (out, in) as PyTorch stores it, b (out)
 * or none.
 */
public final class Linear {
  public static final String NAME = "linear";

  private Linear() {}

  public static Variable apply(Variable x, Variable weight, Variable bias, Activation activation) {
    Backend k = Check.floating(NAME, x, weight, bias);
    Check.that(
        x.shape().rank() >= 1
            && weight.shape().rank() == 2
            && x.shape().dim(-1) == weight.shape().dim(1)
            && fits(bias, weight),
        NAME,
        "x (…, in), weight (out, in) and bias (out) must agree",
        x,
        weight,
        bias);
    int in = weight.shape().dim(1);
    int out = weight.shape().dim(0);
    int rows = Check.rows(x);
    boolean recorded = Tape.records(x, weight, bias);
    Array y = Check.make(x, x.shape().with(-1, out));
    boolean active = activation != Activation.NONE;
    Array pre = active && recorded ? Check.like(y) : null;
    k.gemm(
        Gemm.of(rows, out, in, false, true).activated(activation),
        x.array(),
        weight.array(),
        Check.array(bias),
        pre,
        y);
    return Tape.record(
        NAME,
        Check.inputs(x, weight, bias),
        y,
        Check.saved(x.array(), weight.array(), pre),
        c -> {
          Array dy = c.gradient(0);
          if (active) {
            Array d = Check.like(dy);
            k.unaryBackward(activation.unary(), c.saved(2), null, dy, d);
            dy = d;
          }
          if (c.needs(0)) {
            Array dx = Check.like(c.saved(0));
            k.gemm(Gemm.of(rows, in, out, false, false), dy, c.saved(1), null, null, dx);
            c.give(0, dx);
          }
          giveParameters(k, c, 1, rows, c.saved(0), dy, weight, bias);
        });
  }

  static boolean fits(Variable bias, Variable weight) {
    return bias == null || bias.shape().rank() == 1 && bias.shape().dim(0) == weight.shape().dim(0);
  }

  /**
   * Gives a layer's weight, the operation's input {@code i}, and its bias, input i + 1, their
   * gradients, where they need them: x (rows, in), dy (rows, out).
   */
  static void giveParameters(
      Backend k,
      Backward.Context c,
      int i,
      int rows,
      Array x,
      Array dy,
      Variable weight,
      Variable bias) {
    int in = weight.shape().dim(1);
    int out = weight.shape().dim(0);
    Array db = c.needs(i + 1) ? Check.like(bias) : null;
    if (c.needs(i)) {
      Array dw = Check.like(weight);
      k.linearBackwardWeight(rows, in, out, x, dy, dw, db);
      c.give(i, dw);
    } else if (db != null) {
      k.reduce(Reduction.SUM, 1, rows, out, dy, db);
    }
    if (db != null) {
      c.give(i + 1, db);
    }
  }
}
