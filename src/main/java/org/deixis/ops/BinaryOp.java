package org.deixis.ops;

import java.util.Locale;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Binary;
import org.deixis.backend.Reduction;
import org.deixis.core.Shape;

/**
 * Elementwise a ∘ b. b has a's shape, or fits it after broadcasting: aligned at the last axis, with
 * extents of 1 (or missing leading axes) repeated, as long as the repeated axes form one run at the
 * front, in the middle or at the end. a is never broadcast.
 */
public final class BinaryOp {
  private BinaryOp() {}

  public static String name(Binary kind) {
    return kind.name().toLowerCase(Locale.ROOT);
  }

  /**
   * b's extents seen as (outer, middle, inner) against a's; a flag says whether b has that extent
   * or repeats over it.
   */
  private record Layout(
      int outer, int middle, int inner, boolean bOuter, boolean bMiddle, boolean bInner) {}

  public static Variable apply(Binary kind, Variable a, Variable b) {
    String name = name(kind);
    Backend k = Check.floating(name, a, b);
    Layout l = layout(name, a, b);
    Array y = Check.like(a);
    k.binary(
        kind, l.outer, l.middle, l.inner, l.bOuter, l.bMiddle, l.bInner, a.array(), b.array(), y);
    boolean product = kind == Binary.MUL || kind == Binary.DIV;
    return Tape.record(
        name,
        Check.inputs(a, b),
        y,
        Check.saved(
            kind == Binary.MUL ? a.array() : kind == Binary.DIV ? y : null,
            product ? b.array() : null),
        c -> {
          Array dy = c.gradient(0);
          if (c.needs(0)) {
            if (product) {
              Array da = Check.like(dy);
              k.binary(
                  kind,
                  l.outer,
                  l.middle,
                  l.inner,
                  l.bOuter,
                  l.bMiddle,
                  l.bInner,
                  dy,
                  c.saved(1),
                  da);
              c.give(0, da);
            } else {
              c.give(0, dy);
            }
          }
          if (c.needs(1)) {
            c.give(1, gradientOfSecond(k, kind, l, c.saved(0), c.saved(1), dy, b.shape()));
          }
        });
  }

  private static Array gradientOfSecond(
      Backend k, Binary kind, Layout l, Array first, Array b, Array dy, Shape shape) {
    Array full = dy;
    if (kind == Binary.SUB) {
      full = Check.like(dy);
      k.axpby(-1, dy, 0, full);
    } else if (kind == Binary.MUL) {
      full = Check.like(dy);
      k.binary(Binary.MUL, 1, 1, Math.toIntExact(dy.size()), true, true, true, dy, first, full);
    } else if (kind
        == Binary.DIV) { // −(Σ dy · y) / b: b is constant over what is summed, so one rounding less
      full = Check.like(dy);
      k.binary(Binary.MUL, 1, 1, Math.toIntExact(dy.size()), true, true, true, dy, first, full);
      Array sum = sumTo(k, full, l, shape);
      Array g = Check.like(b);
      int n = Math.toIntExact(b.size());
      k.binary(Binary.DIV, 1, 1, n, true, true, true, sum, b, g);
      k.axpby(-1, g, 0, g);
      return g;
    }
    return sumTo(k, full, l, shape);
  }

  /** Sums over the axes that b repeats. */
  private static Array sumTo(Backend k, Array full, Layout l, Shape shape) {
    Array g = full;
    int outer = l.outer;
    int middle = l.middle;
    int inner = l.inner;
    if (!l.bOuter && outer != 1) {
      g = fold(k, g, 1, outer, middle * inner);
      outer = 1;
    }
    if (!l.bMiddle && middle != 1) {
      g = fold(k, g, outer, middle, inner);
      middle = 1;
    }
    if (!l.bInner && inner != 1) {
      g = fold(k, g, outer * middle, inner, 1);
    }
    return g.view(shape);
  }

  private static Array fold(Backend k, Array x, int outer, int axis, int inner) {
    Array y = k.allocate(Shape.of(outer, inner), x.dtype());
    k.reduce(Reduction.SUM, outer, axis, inner, x, y);
    return y;
  }

  private static Layout layout(String name, Variable a, Variable b) {
    int rank = a.shape().rank();
    int shift = rank - b.shape().rank();
    Check.that(shift >= 0, name, "b may not have more axes than a", a, b);
    // Runs of axes of one kind (b has the extent, or repeats over it), merged; axes of extent 1
    // join any run.
    int[] extents = new int[3];
    boolean[] has = new boolean[3];
    int runs = 0;
    for (int i = 0; i < rank; i++) {
      int extent = a.shape().dim(i);
      int other = i < shift ? 1 : b.shape().dim(i - shift);
      Check.that(other == extent || other == 1, name, "b's extents must equal a's or be 1", a, b);
      if (extent == 1) {
        continue;
      }
      boolean here = other == extent;
      if (runs > 0 && has[runs - 1] == here) {
        extents[runs - 1] *= extent;
      } else {
        Check.that(runs < 3, name, "b repeats over too many separate axes", a, b);
        extents[runs] = extent;
        has[runs++] = here;
      }
    }
    // Right-align the runs: what is missing in front has extent 1.
    int[] e = {1, 1, 1};
    boolean[] h = {true, true, true};
    for (int i = 0; i < runs; i++) {
      e[3 - runs + i] = extents[i];
      h[3 - runs + i] = has[i];
    }
    return new Layout(e[0], e[1], e[2], h[0], h[1], h[2]);
  }
}
