package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;

/**
 * One step of a gated recurrent unit from its two projections; formula in {@link Backend#gruCell}.
 */
public final class GruCell {
  public static final String NAME = "gru_cell";

  private GruCell() {}

  /** gi and gh (B, 3H), h (B, H); result (B, H). */
  public static Variable apply(Variable gi, Variable gh, Variable h) {
    Backend k = Check.floating(NAME, gi, gh, h);
    Check.that(
        h.shape().rank() == 2
            && gi.shape().equals(gh.shape())
            && gi.shape().equals(h.shape().with(1, 3 * h.shape().dim(1))),
        NAME,
        "gi and gh (B, 3H), h (B, H)",
        gi,
        gh,
        h);
    int b = h.shape().dim(0);
    int n = h.shape().dim(1);
    Array y = Check.like(h);
    k.gruCell(b, n, gi.array(), gh.array(), h.array(), y);
    return Tape.record(
        NAME,
        Check.inputs(gi, gh, h),
        y,
        Check.saved(gi.array(), gh.array(), h.array()),
        c -> {
          Array[] d = {Check.like(gi), Check.like(gh), Check.like(h)};
          k.gruCellBackward(
              b, n, c.saved(0), c.saved(1), c.saved(2), c.gradient(0), d[0], d[1], d[2]);
          for (int i = 0; i < 3; i++) {
            if (c.needs(i)) {
              c.give(i, d[i]);
            }
          }
        });
  }
}
