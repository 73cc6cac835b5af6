package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;

/** y = factor · x. */
public final class Scale {
  public static final String NAME = "scale";

  private Scale() {}

  public static Variable apply(Variable x, double factor) {
    Backend k = Check.floating(NAME, x);
    Array y = Check.like(x);
    k.axpby(factor, x.array(), 0, y);
    return Tape.record(
        NAME,
        Check.inputs(x),
        y,
        Check.saved(),
        c -> {
          Array dx = Check.like(c.gradient(0));
          k.axpby(factor, c.gradient(0), 0, dx);
          c.give(0, dx);
        });
  }
}
