package org.deixis.ops;

import java.util.Locale;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Unary;

/** Elementwise functions of one argument: one operation for each {@link Unary}. */
public final class UnaryOp {
  private UnaryOp() {}

  public static String name(Unary kind) {
    return kind.name().toLowerCase(Locale.ROOT);
  }

  public static Variable apply(Unary kind, Variable x) {
    String name = name(kind);
    Backend k = Check.floating(name, x);
    Array y = Check.like(x);
    k.unary(kind, x.array(), y);
    return Tape.record(
        name,
        Check.inputs(x),
        y,
        Check.saved(x.array(), y),
        c -> {
          Array dx = Check.like(c.saved(0));
          k.unaryBackward(kind, c.saved(0), c.saved(1), c.gradient(0), dx);
          c.give(0, dx);
        });
  }
}
