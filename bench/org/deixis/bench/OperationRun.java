package org.deixis.bench;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
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
 *
 * <p>Where a cache could hold what a call reads and writes until the next one, there are several
 * sets of operands, of the same values, and calls take them in turns. A call's results live until
 * the turn of its set comes again, so that they are written elsewhere each time too.
 */
final class OperationRun implements AutoCloseable {
  /** Sets of operands that a few kilobytes large would be thousands; such work is all launch. */
  private static final int MOST_SETS = 256;

  /** Operands, the gradients of the results, and what the last call with them made. */
  private record Operands(List<Array> arrays, List<Array> upstream, List<Array> made)
      implements AutoCloseable {
    Operands() {
      this(new ArrayList<>(), new ArrayList<>(), new ArrayList<>());
    }

    long bytes() {
      return Stream.of(arrays, upstream)
          .flatMap(List::stream)
          .mapToLong(a -> a.size() * a.dtype().bytes())
          .sum();
    }

    void forget() {
      made.forEach(Array::release);
      made.clear();
    }

    @Override
    public void close() {
      forget();
      arrays.forEach(Array::release);
      upstream.forEach(Array::release);
      arrays.clear();
      upstream.clear();
    }
  }

  private final OpCase opCase;
  private final Backend backend;
  private final List<Operands> sets = new ArrayList<>();
  private int turn;

  /** With one set of operands, which may stay in a cache. */
  OperationRun(Backend backend, OpCase opCase, DType dtype) {
    this(backend, opCase, dtype, 0);
  }

  /**
   * @param dtype of the floating operands
   * @param cycled bytes that the sets of operands are to have together at least; 0 for one set
   */
  OperationRun(Backend backend, OpCase opCase, DType dtype, long cycled) {
    this.backend = backend;
    this.opCase = opCase;
    try {
      Operands first = first(dtype);
      long more = cycled / Math.max(1, first.bytes());
      for (int i = 0; i < Math.min(more, MOST_SETS - 1); i++) {
        copy(first);
      }
    } catch (RuntimeException e) {
      close();
      throw e;
    }
  }

  private Operands add() {
    Operands set = new Operands();
    sets.add(set);
    return set;
  }

  private Operands first(DType dtype) {
    Operands set = add();
    try (Scope scope = Scope.open()) {
      for (int i = 0; i < opCase.inputs().size(); i++) {
        set.arrays.add(Scope.detach(operand(opCase.inputs().get(i), i, dtype)));
      }
      for (Variable y : opCase.run().apply(variables(set, false))) {
        Array up = Scope.detach(backend.allocate(y.shape(), y.dtype()));
        backend.fill(up, 0.5);
        set.upstream.add(up);
      }
    }
    return set;
  }

  private void copy(Operands first) {
    Operands set = add();
    try (Scope scope = Scope.open()) {
      first.arrays.forEach(a -> set.arrays.add(copy(a)));
      first.upstream.forEach(a -> set.upstream.add(copy(a)));
    }
  }

  private Array copy(Array from) {
    Array to = Scope.detach(backend.allocate(from.shape(), from.dtype()));
    backend.copy(from, to);
    return to;
  }

  /** How many sets of operands take turns. */
  int sets() {
    return sets.size();
  }

  private Operands next() {
    Operands set = sets.get(turn);
    turn = (turn + 1) % sets.size();
    set.forget();
    return set;
  }

  private void keep(Operands set, Array made) {
    if (sets.size() > 1) {
      set.made.add(Scope.detach(made));
    }
  }

  void forward() {
    Operands set = next();
    try (Scope scope = Scope.open()) {
      for (Variable y : opCase.run().apply(variables(set, false))) {
        keep(set, y.array());
      }
    }
  }

  void forwardBackward() {
    Operands set = next();
    Variable[] inputs = variables(set, true);
    try (Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      Variable[] results = opCase.run().apply(inputs);
      tape.backward(List.of(results), set.upstream);
      for (Variable y : results) {
        keep(set, y.array());
      }
    } finally {
      for (Variable v : inputs) {
        if (v.gradient() != null) {
          keep(set, v.gradient());
        }
        v.clearGradient();
      }
    }
  }

  private Variable[] variables(Operands set, boolean gradients) {
    Variable[] v = new Variable[set.arrays.size()];
    for (int i = 0; i < v.length; i++) {
      v[i] =
          gradients && opCase.inputs().get(i).gradient()
              ? Variable.leaf(set.arrays.get(i))
              : Variable.constant(set.arrays.get(i));
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
    int columns = in.shape().dim(in.shape().rank() - 1);
    for (int i = 0; i < n; i++) {
      switch (in.kind()) {
        case FLOATS -> bytes.putFloat((float) (rng.nextGaussian() * in.scale()));
        case BITS -> bytes.putFloat(rng.nextInt(2));
        case INTS -> bytes.putInt(rng.nextInt((int) in.scale()));
        case MASK -> bytes.putInt(i % columns < length(i / columns, columns, in.scale()) ? 1 : 0);
        case GAPS -> throw new IllegalArgumentException("masks with gaps are not timed");
        case BITMAP -> bytes.put((byte) rng.nextInt(2));
        case PICTURE -> bytes.put((byte) rng.nextInt(256));
        case RNG -> bytes.putLong(i + 1L);
      }
    }
    return bytes.flip();
  }

  /** Of a row's phrase: the shortest, the longest and two between them, in turns. */
  private static int length(int row, int longest, double shortest) {
    return Math.max(1, (int) Math.round(longest * (1 - (1 - shortest) * (row % 4) / 3)));
  }

  @Override
  public void close() {
    sets.forEach(Operands::close);
    sets.clear();
  }
}
