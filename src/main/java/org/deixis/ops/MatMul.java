package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Gemm;
import org.deixis.core.Shape;

/**
 * Batched matrix product y = scale · op(a) op(b) over the last two axes; the leading axes agree.
 * Transposes are flags, not copies.
 */
public final class MatMul {
  public static final String NAME = "matmul";

  private MatMul() {}

  public static Variable apply(
      Variable a, Variable b, boolean transA, boolean transB, float scale) {
    Backend k = Check.floating(NAME, a, b);
    int rank = a.shape().rank();
    Check.that(
        rank >= 2
            && b.shape().rank() == rank
            && a.shape().slice(0, rank - 2).equals(b.shape().slice(0, rank - 2))
            && a.shape().dim(transA ? -2 : -1) == b.shape().dim(transB ? -1 : -2),
        NAME,
        "leading axes and the summed axis must agree (transA "
            + transA
            + ", transB "
            + transB
            + ")",
        a,
        b);
    int m = a.shape().dim(transA ? -1 : -2);
    int inner = a.shape().dim(transA ? -2 : -1);
    int n = b.shape().dim(transB ? -2 : -1);
    int batch = Math.toIntExact(a.shape().product(0, rank - 2));
    Shape shape = a.shape().with(-2, m).with(-1, n);
    Array y = Check.make(a, shape);
    k.gemm(
        Gemm.batched(batch, m, n, inner, transA, transB).scaled(scale),
        a.array(),
        b.array(),
        null,
        null,
        y);
    return Tape.record(
        NAME,
        Check.inputs(a, b),
        y,
        Check.saved(a.array(), b.array()),
        c -> {
          Array dy = c.gradient(0);
          if (c.needs(0)) {
            Array da = Check.like(c.saved(0));
            if (transA) { // da (k, m) = op(b) dyᵀ
              k.gemm(
                  Gemm.batched(batch, inner, m, n, transB, true).scaled(scale),
                  c.saved(1),
                  dy,
                  null,
                  null,
                  da);
            } else { // da (m, k) = dy op(b)ᵀ
              k.gemm(
                  Gemm.batched(batch, m, inner, n, false, !transB).scaled(scale),
                  dy,
                  c.saved(1),
                  null,
                  null,
                  da);
            }
            c.give(0, da);
          }
          if (c.needs(1)) {
            Array db = Check.like(c.saved(1));
            if (transB) { // db (n, k) = dyᵀ op(a)
              k.gemm(
                  Gemm.batched(batch, n, inner, m, true, transA).scaled(scale),
                  dy,
                  c.saved(0),
                  null,
                  null,
                  db);
            } else { // db (k, n) = op(a)ᵀ dy
              k.gemm(
                  Gemm.batched(batch, inner, n, m, !transA, false).scaled(scale),
                  c.saved(0),
                  dy,
                  null,
                  null,
                  db);
            }
            c.give(1, db);
          }
        });
  }
}
