package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;

/**
 * Group normalisation (Wu and He, ECCV 2018) of x (N, …, C), channels last; gamma and beta (C), or
 * both null.
 */
public final class GroupNorm {
  public static final String NAME = "group_norm";

  private GroupNorm() {}

  public static Variable apply(Variable x, int groups, Variable gamma, Variable beta, double eps) {
    Backend k = Check.floating(NAME, x);
    int rank = x.shape().rank();
    Check.that(
        rank >= 2
            && groups > 0
            && x.shape().dim(-1) % groups == 0
            && (gamma == null) == (beta == null)
            && (gamma == null || gamma.shape().size() == x.shape().dim(-1)),
        NAME,
        "x (N, …, C) with C divisible by " + groups + " groups; gamma and beta (C) or neither",
        x,
        gamma,
        beta);
    int batch = x.shape().dim(0);
    int channels = x.shape().dim(-1);
    int pixels = Math.toIntExact(x.shape().product(1, rank - 1));
    Array y = Check.like(x);
    Array stats = Check.statistics(x, batch, groups, 2);
    k.groupNorm(
        batch,
        pixels,
        channels,
        groups,
        eps,
        x.array(),
        Check.array(gamma),
        Check.array(beta),
        y,
        stats);
    return Tape.record(
        NAME,
        Check.inputs(x, gamma, beta),
        y,
        Check.saved(x.array(), Check.array(gamma), stats),
        c -> {
          Array weight = c.saved(1);
          Array dx = Check.like(c.saved(0));
          Array dGamma = weight == null ? null : Check.like(weight);
          Array dBeta = weight == null ? null : Check.like(weight);
          k.groupNormBackward(
              batch,
              pixels,
              channels,
              groups,
              c.saved(0),
              weight,
              c.saved(2),
              c.gradient(0),
              dx,
              dGamma,
              dBeta);
          if (c.needs(0)) {
            c.give(0, dx);
          }
          if (c.needs(1)) {
            c.give(1, dGamma);
          }
          if (c.needs(2)) {
            c.give(2, dBeta);
          }
        });
  }
}
