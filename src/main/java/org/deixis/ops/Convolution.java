package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Conv2d;
import org.deixis.backend.Reduction;

/**
 * Two-dimensional convolution of x (N, H, W, Cin), channels last, with a weight (Cout, Cin, k, k)
 * and bias (Cout) or none.
 */
public final class Convolution {
  public static final String NAME = "conv2d";

  private Convolution() {}

  public static Variable apply(
      Variable x, Variable weight, Variable bias, int stride, int padding) {
    Backend k = Check.floating(NAME, x, weight, bias);
    Check.that(
        x.shape().rank() == 4
            && weight.shape().rank() == 4
            && weight.shape().dim(1) == x.shape().dim(3)
            && weight.shape().dim(2) == weight.shape().dim(3)
            && x.shape().dim(1) + 2 * padding >= weight.shape().dim(2)
            && x.shape().dim(2) + 2 * padding >= weight.shape().dim(2)
            && (bias == null || bias.shape().size() == weight.shape().dim(0)),
        NAME,
        "x (N, H, W, Cin), weight (Cout, Cin, k, k), bias (Cout) or none, the kernel no larger than the padded map",
        x,
        weight,
        bias);
    Conv2d spec =
        new Conv2d(
            x.shape().dim(0),
            x.shape().dim(1),
            x.shape().dim(2),
            x.shape().dim(3),
            weight.shape().dim(0),
            weight.shape().dim(2),
            stride,
            padding);
    Array y = Check.make(x, spec.batch(), spec.outHeight(), spec.outWidth(), spec.outChannels());
    k.conv2d(spec, x.array(), weight.array(), Check.array(bias), y);
    return Tape.record(
        NAME,
        Check.inputs(x, weight, bias),
        y,
        Check.saved(x.array(), weight.array()),
        c -> {
          Array dy = c.gradient(0);
          if (c.needs(0)) {
            Array dx = Check.like(c.saved(0));
            k.conv2dBackwardData(spec, c.saved(1), dy, dx);
            c.give(0, dx);
          }
          if (c.needs(1)) {
            Array dw = Check.like(c.saved(1));
            k.conv2dBackwardWeight(spec, c.saved(0), dy, dw);
            c.give(1, dw);
          }
          if (c.needs(2)) {
            Array db = Check.like(bias);
            k.reduce(
                Reduction.SUM,
                1,
                spec.batch() * spec.outHeight() * spec.outWidth(),
                spec.outChannels(),
                dy,
                db);
            c.give(2, db);
          }
        });
  }
}
