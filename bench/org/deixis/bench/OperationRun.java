package org.deixis.bench;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.core.Shape;

/**
 * An operation with its operands on a device, ready to be run again and again. Times include
 * scopes, tape and launch, as a model's do.
 */
final class OperationRun implements AutoCloseable {
  private final OpCase opCase;
  private final Backend backend;
  private final List<Array> arrays = new ArrayList<>();
  private final List<Array> upstream = new ArrayList<>();

  /**
   * @param dtype of the floating operands
   */
  OperationRun(Backend backend, OpCase opCase, DType dtype) {
    this.backend = backend;
    this.opCase = opCase;
    try (Scope scope = Scope.open()) {
      for (int i = 0; i < opCase.inputs().size(); i++) {
        arrays.add(Scope.detach(operand(opCase.inputs().get(i), i, dtype)));
      }
      for (Variable y : opCase.run().apply(variables(false))) {
        Array up = Scope.detach(backend.allocate(y.shape(), y.dtype()));
        backend.fill(up, 0.5);
        upstream.add(up);
      }
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  void forward() {
    try (Scope scope = Scope.open()) {
      opCase.run().apply(variables(false));
    }
  }

  void forwardBackward() {
    Variable[] inputs = variables(true);
    try (Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      tape.backward(List.of(opCase.run().apply(inputs)), upstream);
    } finally {
      for (Variable v : inputs) {
        v.clearGradient();
      }
    }
  }

  private Variable[] variables(boolean gradients) {
    Variable[] v = new Variable[arrays.size()];
    for (int i = 0; i < v.length; i++) {
      v[i] =
          gradients && opCase.inputs().get(i).gradient()
              ? Variable.leaf(arrays.get(i))
              : Variable.constant(arrays.get(i));
    }
    return v;
  }

  /** Most values that are drawn; a larger operand repeats them. */
  private static final int DRAWN = 1 << 20;

  /** Drawn values of the kind that the case asks for. */
  private Array operand(OpCase.Input in, int index, DType floating) {
    DType dtype =
        switch (in.kind()) {
          case FLOATS, BITS -> DType.F32;
          case INTS, MASK, GAPS -> DType.I32;
          case BITMAP, PICTURE -> DType.U8;
          case RNG -> DType.I64;
        };
    int n = Math.toIntExact(in.shape().size());
    int part = Math.min(n, DRAWN);
    ByteBuffer drawn = draw(in, new Rng(1, index), part, dtype);
    Array array = backend.allocate(in.shape(), dtype);
    Array flat = array.view(Shape.of(n));
    for (int from = 0; from < n; from += part) {
      backend.upload(drawn, flat.slice(from, Math.min(n, from + part)));
    }
    if (in.kind() != OpCase.Kind.FLOATS || floating == DType.F32) {
      return array;
    }
    Array half = backend.allocate(in.shape(), floating);
    backend.copy(array, half);
    return half;
  }

  private static ByteBuffer draw(OpCase.Input in, Rng rng, int n, DType dtype) {
    ByteBuffer bytes = ByteBuffer.allocate(n * dtype.bytes()).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < n; i++) {
      switch (in.kind()) {
        case FLOATS -> bytes.putFloat((float) (rng.nextGaussian() * in.scale()));
        case BITS -> bytes.putFloat(rng.nextInt(2));
        case INTS -> bytes.putInt(rng.nextInt((int) in.scale()));
        case MASK, GAPS -> bytes.putInt(1);
        case BITMAP -> bytes.put((byte) rng.nextInt(2));
        case PICTURE -> bytes.put((byte) rng.nextInt(256));
        case RNG -> bytes.putLong(i + 1L);
      }
    }
    return bytes.flip();
  }

  @Override
  public void close() {
    arrays.forEach(Array::release);
    upstream.forEach(Array::release);
    arrays.clear();
    upstream.clear();
  }
}
