package org.deixis.ops;

import org.deixis.autograd.Backward;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;

/**
 * Layer normalisation over the last axis (Ba et al., 2016), with or without weight and bias, and
 * its fusion with the residual sum that precedes it. F32 weights go with half inputs: the norm is
 * computed in fp32 either way.
 */
public final class LayerNorm {
  public static final String NAME = "layer_norm";
  public static final String RESIDUAL_NAME = "add_layer_norm";

  private LayerNorm() {}

  /** y = norm(x)·gamma + beta; gamma and beta (columns) are both given or both null. */
  public static Variable apply(Variable x, Variable gamma, Variable beta, double eps) {
    Backend k = check(NAME, x, gamma, beta);
    int rows = Check.rows(x);
    int columns = x.shape().dim(-1);
    Array y = Check.like(x);
    Array stats = Check.statistics(x, rows, 2);
    k.layerNorm(
        rows, columns, eps, x.array(), null, Check.array(gamma), Check.array(beta), null, y, stats);
    return Tape.record(
        NAME,
        Check.inputs(x, gamma, beta),
        y,
        Check.saved(x.array(), Check.array(gamma), stats),
        c -> backward(c, k, rows, columns, c.gradient(0), null, false));
  }

  /** Two outputs: sum = x + residual, and y = norm(sum)·gamma + beta. */
  public static Variable[] withResidual(
      Variable x, Variable residual, Variable gamma, Variable beta, double eps) {
    Backend k = check(RESIDUAL_NAME, x, gamma, beta);
    Check.floating(RESIDUAL_NAME, x, residual);
    Check.that(
        x.shape().equals(residual.shape()),
        RESIDUAL_NAME,
        "x and residual must agree",
        x,
        residual);
    int rows = Check.rows(x);
    int columns = x.shape().dim(-1);
    Array sum = Check.like(x);
    Array y = Check.like(x);
    Array stats = Check.statistics(x, rows, 2);
    k.layerNorm(
        rows,
        columns,
        eps,
        x.array(),
        residual.array(),
        Check.array(gamma),
        Check.array(beta),
        sum,
        y,
        stats);
    return Tape.record(
        RESIDUAL_NAME,
        Check.inputs(x, gamma, beta, residual),
        new Array[] {sum, y},
        Check.saved(sum, Check.array(gamma), stats),
        c -> {
          if (c.gradient(1) == null) { // only the sum was used
            for (int input : new int[] {0, 3}) {
              if (c.needs(input)) {
                c.give(input, c.gradient(0));
              }
            }
            return;
          }
          backward(c, k, rows, columns, c.gradient(1), c.gradient(0), true);
        });
  }

  private static void backward(
      Backward.Context c,
      Backend k,
      int rows,
      int columns,
      Array dy,
      Array extra,
      boolean residual) {
    Array x = c.saved(0);
    Array weight = c.saved(1);
    Array dx = Check.like(x);
    Array dGamma = weight == null ? null : Check.like(weight);
    Array dBeta = weight == null ? null : Check.like(weight);
    k.layerNormBackward(rows, columns, x, weight, c.saved(2), dy, extra, dx, dGamma, dBeta);
    if (c.needs(0)) {
      c.give(0, dx);
    }
    if (c.needs(1)) {
      c.give(1, dGamma);
    }
    if (c.needs(2)) {
      c.give(2, dBeta);
    }
    if (residual && c.needs(3)) {
      c.give(3, dx);
    }
  }

  private static Backend check(String name, Variable x, Variable gamma, Variable beta) {
    Backend k = Check.floating(name, x);
    Check.that(
        x.shape().rank() >= 1
            && x.shape().dim(-1) > 0
            && (gamma == null) == (beta == null)
            && (gamma == null
                || gamma.shape().rank() == 1
                    && gamma.shape().dim(0) == x.shape().dim(-1)
                    && beta.shape().equals(gamma.shape())),
        name,
        "x (…, columns) with gamma and beta (columns), or neither",
        x,
        gamma,
        beta);
    return k;
  }
}
