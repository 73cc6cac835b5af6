package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Reduction;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/** Operations that move elements: views, slices, joins, repetition, axes, element types. */
public final class Layout {
  public static final String RESHAPE = "reshape";
  public static final String SLICE = "slice";
  public static final String CONCAT = "concat";
  public static final String REPEAT = "repeat";
  public static final String TRANSPOSE = "transpose";
  public static final String CAST = "cast";

  private Layout() {}

  /** The same elements under another shape; no copy. */
  public static Variable reshape(Variable x, Shape shape) {
    Check.that(shape.size() == x.shape().size(), RESHAPE, "cannot take the shape " + shape, x);
    return Tape.record(
        RESHAPE,
        Check.inputs(x),
        x.array().view(shape),
        Check.saved(),
        c -> c.give(0, c.gradient(0).view(x.shape())));
  }

  /** Rows [from, to) of the leading axis; no copy. */
  public static Variable slice(Variable x, int from, int to) {
    Check.that(
        x.shape().rank() >= 1 && 0 <= from && from <= to && to <= x.shape().dim(0),
        SLICE,
        "rows " + from + " to " + to,
        x);
    return Tape.record(
        SLICE,
        Check.inputs(x),
        x.array().slice(from, to),
        Check.saved(),
        c -> {
          Backend k = x.backend();
          Array dx = Check.like(x);
          k.fill(dx, 0);
          k.copy(c.gradient(0), dx.slice(from, to));
          c.give(0, dx);
        });
  }

  /** Joins along the last axis; the other axes agree. */
  public static Variable concat(Variable... parts) {
    Backend k = Check.floating(CONCAT, parts);
    int columns = 0;
    for (Variable p : parts) {
      Check.that(
          p.shape().rank() >= 1 && p.shape().with(-1, 0).equals(parts[0].shape().with(-1, 0)),
          CONCAT,
          "all axes but the last must agree",
          parts);
      columns += p.shape().dim(-1);
    }
    int total = columns;
    int rows = Check.rows(parts[0]);
    Array y = Check.make(parts[0], parts[0].shape().with(-1, total));
    int at = 0;
    for (Variable p : parts) {
      int n = p.shape().dim(-1);
      k.copyColumns(rows, n, p.array(), 0, n, y, at, total, false);
      at += n;
    }
    return Tape.record(
        CONCAT,
        parts,
        y,
        Check.saved(),
        c -> {
          int from = 0;
          for (int i = 0; i < parts.length; i++) {
            int n = parts[i].shape().dim(-1);
            if (c.needs(i)) {
              Array d = Check.like(parts[i]);
              k.copyColumns(rows, n, c.gradient(0), from, total, d, 0, n, false);
              c.give(i, d);
            }
            from += n;
          }
        });
  }

  /**
   * Each row of the leading axis {@code times} in a row: (N, …) to (N·times, …), PyTorch's
   * repeat_interleave.
   */
  public static Variable repeat(Variable x, int times) {
    Backend k = Check.floating(REPEAT, x);
    Check.that(
        x.shape().rank() >= 1 && times > 0, REPEAT, "x needs an axis, times must be positive", x);
    int n = x.shape().dim(0);
    int inner = Math.toIntExact(x.shape().product(1, x.shape().rank()));
    Array y = Check.make(x, x.shape().with(0, n * times));
    k.repeat(n, times, inner, x.array(), y);
    return Tape.record(
        REPEAT,
        Check.inputs(x),
        y,
        Check.saved(),
        c -> {
          Array dx = Check.like(x);
          k.reduce(Reduction.SUM, n, times, inner, c.gradient(0), dx);
          c.give(0, dx);
        });
  }

  /**
   * Axes permuted, by a copy: result axis i is x's axis permutation[i]. For the edges of a model,
   * not its inside.
   */
  public static Variable transpose(Variable x, int... permutation) {
    Backend k = Check.floating(TRANSPOSE, x);
    int rank = x.shape().rank();
    int[] inverse = new int[rank];
    boolean[] seen = new boolean[rank];
    boolean valid = permutation.length == rank;
    for (int i = 0; valid && i < rank; i++) {
      int p = permutation[i];
      valid = p >= 0 && p < rank && !seen[p];
      if (valid) {
        seen[p] = true;
        inverse[p] = i;
      }
    }
    Check.that(valid, TRANSPOSE, "not a permutation: " + java.util.Arrays.toString(permutation), x);
    int[] dims = new int[rank];
    for (int i = 0; i < rank; i++) {
      dims[i] = x.shape().dim(permutation[i]);
    }
    int[] forward = permutation.clone();
    Array y = Check.make(x, Shape.of(dims));
    k.transpose(x.array(), forward, y);
    return Tape.record(
        TRANSPOSE,
        Check.inputs(x),
        y,
        Check.saved(),
        c -> {
          Array dx = Check.like(x);
          k.transpose(c.gradient(0), inverse, dx);
          c.give(0, dx);
        });
  }

  /** The same values in another floating type. */
  public static Variable cast(Variable x, DType dtype) {
    Backend k = Check.floating(CAST, x);
    if (x.dtype() == dtype) {
      return x;
    }
    Check.that(dtype.isFloating(), CAST, "cannot cast to " + dtype, x);
    Array y = k.allocate(x.shape(), dtype);
    k.copy(x.array(), y);
    return Tape.record(
        CAST,
        Check.inputs(x),
        y,
        Check.saved(),
        c -> {
          Array dx = Check.like(x);
          k.copy(c.gradient(0), dx);
          c.give(0, dx);
        });
  }
}
