package org.deixis.ops;

import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.core.DType;
import org.deixis.core.ModulePath;
import org.deixis.core.Shape;

/** The checks that every operation makes once, above the backends, and the arrays it makes. */
final class Check {
  private Check() {}

  /** Throws unless {@code ok}, naming operation, requirement, operands and module path. */
  static void that(boolean ok, String op, String requirement, Variable... operands) {
    if (ok) {
      return;
    }
    StringBuilder message = new StringBuilder(op).append(": ").append(requirement).append("; got ");
    for (int i = 0; i < operands.length; i++) {
      message.append(i == 0 ? "" : ", ").append(operands[i] == null ? "none" : operands[i].array());
    }
    String path = ModulePath.current();
    throw new OperandException(path.isEmpty() ? message.toString() : message + " at " + path);
  }

  /** All operands (nulls apart) are floating, of one dtype, on one backend, and alive. */
  static Backend floating(String op, Variable... operands) {
    Variable first = operands[0];
    for (Variable v : operands) {
      if (v != null) {
        that(v.dtype().isFloating(), op, "operands must be floating", operands);
        that(v.dtype() == first.dtype(), op, "operands must have one dtype", operands);
        sameBackend(op, first, v);
      }
    }
    return first.backend();
  }

  static void sameBackend(String op, Variable a, Variable b) {
    that(
        a.backend() == b.backend(),
        op,
        "operands live on " + a.backend().name() + " and " + b.backend().name(),
        a,
        b);
  }

  static Array like(Variable v) {
    return v.backend().allocate(v.shape(), v.dtype());
  }

  static Array like(Array a) {
    return a.backend().allocate(a.shape(), a.dtype());
  }

  static Array make(Variable v, Shape shape) {
    return v.backend().allocate(shape, v.dtype());
  }

  static Array make(Variable v, int... dims) {
    return v.backend().allocate(Shape.of(dims), v.dtype());
  }

  /** The type of statistics that go with {@code v}: F32, or F64 with F64. */
  static Array statistics(Variable v, int... dims) {
    return v.backend().allocate(Shape.of(dims), v.dtype() == DType.F64 ? DType.F64 : DType.F32);
  }

  static Variable[] inputs(Variable... inputs) {
    return inputs;
  }

  static Array[] saved(Array... arrays) {
    return arrays;
  }

  static Array array(Variable v) {
    return v == null ? null : v.array();
  }

  static int rows(Variable v) {
    return Math.toIntExact(v.shape().rows());
  }
}
