package org.deixis.ops;

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
            && (bias == null
                || bias.shape().rank() == 1 && bias.shape().dim(0) == weight.shape().dim(0)),
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
        Check.saved(x.array(), weight.array(), pre, active ? y : null),
        c -> {
          Array dy = c.gradient(0);
          if (active) {
            Array d = Check.like(dy);
            k.unaryBackward(activation.unary(), c.saved(2), c.saved(3), dy, d);
            dy = d;
          }
          if (c.needs(0)) {
            Array dx = Check.like(c.saved(0));
            k.gemm(Gemm.of(rows, in, out, false, false), dy, c.saved(1), null, null, dx);
            c.give(0, dx);
          }
          Array db = c.needs(2) ? Check.like(bias) : null;
          if (c.needs(1)) {
            Array dw = Check.like(c.saved(1));
            k.linearBackwardWeight(rows, in, out, c.saved(0), dy, dw, db);
            c.give(1, dw);
          } else if (db != null) {
            k.reduce(Reduction.SUM, 1, rows, out, dy, db);
          }
          if (db != null) {
            c.give(2, db);
          }
        });
  }
}
