package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;

/** softmax over the last axis. */
public final class Softmax {
  public static final String NAME = "softmax";

  private Softmax() {}

  public static Variable apply(Variable x) {
    Backend k = Check.floating(NAME, x);
    Check.that(x.shape().rank() >= 1, NAME, "x needs an axis", x);
    int rows = Check.rows(x);
    int columns = x.shape().dim(-1);
    Array y = Check.like(x);
    k.softmax(rows, columns, x.array(), y);
    return Tape.record(
        NAME,
        Check.inputs(x),
        y,
        Check.saved(y),
        c -> {
          Array dx = Check.like(c.saved(0));
          k.softmaxBackward(rows, columns, c.saved(0), c.gradient(0), dx);
          c.give(0, dx);
        });
  }
}
