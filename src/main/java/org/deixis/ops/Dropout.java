package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.core.DType;

/**
 * Dropout on counter-based draws, so that backward makes the same draws again; see {@link
 * Backend#dropout}.
 */
public final class Dropout {
  public static final String NAME = "dropout";

  private Dropout() {}

  /**
   * @param block adjacent elements that share a draw: 1 for dropout, a sample's size for drop-path
   * @param rng I64 (2): seed and stream
   * @param offset first draw's number within the stream; each use in a step takes its own range
   */
  public static Variable apply(Variable x, double p, long block, Variable rng, long offset) {
    Backend k = Check.floating(NAME, x);
    Check.that(
        p >= 0 && p < 1 && block > 0 && rng.dtype() == DType.I64 && rng.shape().size() == 2,
        NAME,
        "p in [0, 1), a positive block, rng I64 (2)",
        x,
        rng);
    Array y = Check.like(x);
    k.dropout(p, block, offset, rng.array(), x.array(), y);
    return Tape.record(
        NAME,
        Check.inputs(x, rng),
        y,
        Check.saved(rng.array()),
        c -> {
          Array dx = Check.like(c.gradient(0));
          k.dropout(p, block, offset, c.saved(0), c.gradient(0), dx);
          c.give(0, dx);
        });
  }
}
