package org.deixis.nn;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * A trained array: the fp32 master that the optimiser updates, and, in mixed precision, the half
 * copy that the forward reads and the gradient belongs to. Owns its memory until {@link #close}.
 */
public final class Parameter implements AutoCloseable {
  private final Array master;
  private Array half;
  private Variable leaf;
  private boolean trainable = true;
  private long layout;

  private Parameter(Array master) {
    this.master = master;
    this.leaf = Variable.leaf(master);
  }

  /** A parameter of these values, row-major. */
  public static Parameter of(Backend backend, float[] values, Shape shape) {
    if (values.length != shape.size()) {
      throw new IllegalArgumentException(values.length + " values for a parameter " + shape);
    }
    try (Scope scope = Scope.open()) {
      Array array = Scope.detach(backend.allocate(shape, DType.F32));
      Parameter parameter = new Parameter(array);
      parameter.set(values);
      return parameter;
    }
  }

  /**
   * A parameter whose values nobody will read: for a model that is built to learn its parameters'
   * names and shapes. Its memory is not written, so that a system that commits pages on first use
   * commits none.
   */
  public static Parameter outline(Backend backend, Shape shape) {
    try (Scope scope = Scope.open()) {
      return new Parameter(Scope.detach(backend.allocate(shape, DType.F32)));
    }
  }

  public Shape shape() {
    return master.shape();
  }

  /** The fp32 values that the optimiser updates. */
  public Array master() {
    return master;
  }

  /** The half copy, or null in full precision. */
  public Array half() {
    return half;
  }

  /** What the forward reads. */
  public Tensor tensor() {
    return Tensor.of(leaf);
  }

  /** The gradient gathered so far, or null. */
  public Array gradient() {
    return leaf.gradient();
  }

  public void clearGradient() {
    leaf.clearGradient();
  }

  public boolean trainable() {
    return trainable;
  }

  /** Whether gradients are gathered for it. */
  public void trainable(boolean wanted) {
    trainable = wanted;
    remakeLeaf();
  }

  /**
   * Chooses what the forward reads: the master (F32), or a copy in F16 or BF16 that this call
   * makes.
   */
  public void precision(DType dtype) {
    if (half != null) {
      leaf.clearGradient();
      half.release();
      half = null;
    }
    if (dtype.isHalf()) {
      try (Scope scope = Scope.open()) {
        half = Scope.detach(master.backend().allocate(master.shape(), dtype));
        master.backend().copy(master, half);
      }
    } else if (dtype != DType.F32) {
      throw new IllegalArgumentException("parameters are F32, F16 or BF16, not " + dtype);
    }
    remakeLeaf();
  }

  /**
   * Promises that the values do not change any more, so that the backend may lay them out for its
   * products; see {@link Backend#freeze}. No gradient is gathered from here on; writing to it is an
   * error.
   *
   * @param products type to multiply in, one that the backend freezes
   */
  public void freeze(DType products) {
    if (half != null) {
      throw new IllegalStateException("only parameters read in F32 can be frozen");
    }
    trainable(false);
    master.backend().freeze(master, products);
  }

  private void remakeLeaf() {
    layout++;
    leaf.clearGradient();
    Array read = half != null ? half : master;
    leaf = trainable ? Variable.leaf(read) : Variable.constant(read);
  }

  /** Grows whenever the forward is to read other memory, or gradients are wanted or not. */
  public long layout() {
    return layout;
  }

  /** Overwrites the values, row-major, and the half copy with them. */
  public void set(float[] values) {
    ByteBuffer bytes = ByteBuffer.allocate(values.length * 4).order(ByteOrder.LITTLE_ENDIAN);
    bytes.asFloatBuffer().put(values);
    master.backend().upload(bytes, master);
    refresh();
  }

  /** Copies the master into the half copy, after the master was written from outside. */
  public void refresh() {
    if (half != null) {
      master.backend().copy(master, half);
    }
  }

  /** The master's values; waits for the device. */
  public float[] toFloats() {
    return Tensor.of(master).toFloats();
  }

  @Override
  public void close() {
    leaf.clearGradient();
    master.release();
    if (half != null) {
      half.release();
      half = null;
    }
  }
}
