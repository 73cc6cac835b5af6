package org.deixis.bench;

import java.util.List;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Gemm;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * What the machine can do at most, measured by the engine itself: a large product and a large copy.
 *
 * @param flops operations a second
 * @param bytes bytes a second, read and written
 */
record Limits(double flops, double bytes) {
  /**
   * @param side rows and columns of the product's matrices
   * @param elements of the copy
   */
  static Limits measure(Backend backend, DType dtype, int side, int elements, Effort effort) {
    return new Limits(
        product(backend, dtype, side, effort), copy(backend, dtype, elements, effort));
  }

  /** Large enough to keep the device busy, small enough to take no minutes. */
  static Limits measure(Backend backend, DType dtype, Effort effort) {
    boolean gpu = backend.name().equals("cuda");
    return measure(backend, dtype, gpu ? 8192 : 1024, gpu ? 256 << 20 : 16 << 20, effort);
  }

  private static double product(Backend backend, DType dtype, int side, Effort effort) {
    try (Scope scope = Scope.open()) {
      Array a = filled(backend, dtype, side, side);
      Array b = filled(backend, dtype, side, side);
      Array c = filled(backend, dtype, side, side);
      Gemm spec = Gemm.of(side, side, side, false, false);
      return spec.flops() / seconds(backend, effort, () -> backend.gemm(spec, a, b, null, null, c));
    }
  }

  private static double copy(Backend backend, DType dtype, int elements, Effort effort) {
    try (Scope scope = Scope.open()) {
      Array a = filled(backend, dtype, elements);
      Array b = filled(backend, dtype, elements);
      return 2.0 * dtype.bytes() * elements / seconds(backend, effort, () -> backend.copy(a, b));
    }
  }

  private static double seconds(Backend backend, Effort effort, Runnable work) {
    return Rounds.run(List.of(Contender.engine(backend, work)), effort).get(Row.ENGINE).median();
  }

  private static Array filled(Backend backend, DType dtype, int... dims) {
    Array a = backend.allocate(Shape.of(dims), dtype);
    backend.fill(a, 0.5);
    return a;
  }

  /**
   * The share of the roofline (Williams et al., 2009): the time that operations and bytes take at
   * least, over the time taken. Above 1 the data stayed in cache.
   */
  double share(double operations, double moved, double seconds) {
    return Math.max(operations / flops, moved / bytes) / seconds;
  }
}
