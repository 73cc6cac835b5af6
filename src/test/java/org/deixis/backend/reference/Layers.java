package org.deixis.backend.reference;

import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Gemm;
import org.deixis.backend.Reduction;
import org.deixis.testing.TestArrays;

/** A linear layer, forward and backward by hand, out of kernels. */
record Layers(Backend backend, TestArrays arrays) {

  /** x (…, in) by w (out, in) and a bias (out) or null. */
  Array linear(Array x, Array w, Array bias) {
    int rows = (int) x.shape().rows();
    Array y = arrays.result(x.shape().with(-1, w.dim(0)).dims());
    backend.gemm(Gemm.of(rows, w.dim(0), w.dim(1), false, true), x, w, bias, null, y);
    return y;
  }

  Array linearData(Array dy, Array w) {
    int rows = (int) dy.shape().rows();
    Array dx = arrays.result(dy.shape().with(-1, w.dim(1)).dims());
    backend.gemm(Gemm.of(rows, w.dim(1), w.dim(0), false, false), dy, w, null, null, dx);
    return dx;
  }

  Array linearWeight(Array x, Array dy) {
    Array dw = arrays.result(dy.dim(-1), x.dim(-1));
    int rows = (int) x.shape().rows();
    backend.gemm(Gemm.of(dy.dim(-1), x.dim(-1), rows, true, false), dy, x, null, null, dw);
    return dw;
  }

  Array linearBias(Array dy) {
    Array db = arrays.result(dy.dim(-1));
    backend.reduce(Reduction.SUM, 1, (int) dy.shape().rows(), dy.dim(-1), dy, db);
    return db;
  }

  /** a + b in a new array. */
  Array sum(Array a, Array b) {
    Array y = arrays.result(a.shape().dims());
    backend.copy(a, y);
    backend.axpby(1, b, 1, y);
    return y;
  }
}
