package org.deixis.ops;

import java.util.Locale;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Reduction;
import org.deixis.core.Shape;

/**
 * Sum, mean or maximum over adjacent axes {@code [from, to)}, which disappear. The maximum has no
 * backward.
 */
public final class Reduce {
  private Reduce() {}

  public static String name(Reduction kind) {
    return "reduce_" + kind.name().toLowerCase(Locale.ROOT);
  }

  public static Variable apply(Reduction kind, Variable x, int from, int to) {
    String name = name(kind);
    Backend k = Check.floating(name, x);
    int rank = x.shape().rank();
    Check.that(0 <= from && from <= to && to <= rank, name, "axes " + from + " to " + to, x);
    int outer = Math.toIntExact(x.shape().product(0, from));
    int axis = Math.toIntExact(x.shape().product(from, to));
    int inner = Math.toIntExact(x.shape().product(to, rank));
    Check.that(axis > 0 || kind == Reduction.SUM, name, "nothing to fold", x);
    int[] dims = new int[rank - (to - from)];
    for (int i = 0; i < dims.length; i++) {
      dims[i] = x.shape().dim(i < from ? i : i + to - from);
    }
    Array y = Check.make(x, Shape.of(dims));
    k.reduce(kind, outer, axis, inner, x.array(), y);
    return Tape.record(
        name,
        Check.inputs(x),
        y,
        Check.saved(),
        kind == Reduction.MAX
            ? null
            : c -> {
              Array dx = Check.like(x);
              k.repeat(outer, axis, inner, c.gradient(0), dx);
              if (kind == Reduction.MEAN) {
                k.axpby(1.0 / axis, dx, 0, dx);
              }
              c.give(0, dx);
            });
  }
}
