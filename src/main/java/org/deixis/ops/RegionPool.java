package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * Mean of each cell of a grid over x (N, H, W), floating or U8; result (N, rows·columns). Adaptive
 * average pooling.
 */
public final class RegionPool {
  public static final String NAME = "region_pool";

  private RegionPool() {}

  /**
   * @param dtype of the result; that of x where x is floating
   */
  public static Variable apply(Variable x, int rows, int columns, DType dtype) {
    Check.that(
        x.shape().rank() == 3
            && (x.dtype() == DType.U8 || x.dtype() == dtype)
            && x.shape().size() > 0,
        NAME,
        "x must be (N, H, W), U8 or " + dtype,
        x);
    Backend k = x.backend();
    int n = x.shape().dim(0);
    int h = x.shape().dim(1);
    int w = x.shape().dim(2);
    Array y = k.allocate(Shape.of(n, rows * columns), dtype);
    k.regionPool(n, h, w, rows, columns, x.array(), y);
    return Tape.record(
        NAME,
        Check.inputs(x),
        y,
        Check.saved(),
        c -> {
          Array dx = Check.like(x);
          k.regionPoolBackward(n, h, w, rows, columns, c.gradient(0), dx);
          c.give(0, dx);
        });
  }
}
