package org.deixis.backend;

import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * A row-major, contiguous array: a shape and an element type laid over a {@link Buffer}. Views
 * share the buffer and its lifetime.
 */
public final class Array {
  private final Buffer buffer;
  private final long offset;
  private final Shape shape;
  private final DType dtype;

  /**
   * @param offset first element's index in the buffer, counted in elements of {@code dtype}
   */
  public Array(Buffer buffer, long offset, Shape shape, DType dtype) {
    if ((offset + shape.size()) * dtype.bytes() > buffer.bytes()) {
      throw new IllegalArgumentException(
          "array "
              + shape
              + " "
              + dtype
              + " at element "
              + offset
              + " leaves its buffer of "
              + buffer.bytes()
              + " bytes");
    }
    this.buffer = buffer;
    this.offset = offset;
    this.shape = shape;
    this.dtype = dtype;
  }

  public Buffer buffer() {
    return buffer;
  }

  public Backend backend() {
    return KernelTrace.of(buffer.backend());
  }

  /** Index of the first element in the buffer, in elements. */
  public long offset() {
    return offset;
  }

  public Shape shape() {
    return shape;
  }

  public DType dtype() {
    return dtype;
  }

  public long size() {
    return shape.size();
  }

  public long bytes() {
    return shape.size() * dtype.bytes();
  }

  public int dim(int axis) {
    return shape.dim(axis);
  }

  /** The same elements under another shape of the same size. */
  public Array view(Shape other) {
    if (other.size() != shape.size()) {
      throw new IllegalArgumentException("cannot view " + shape + " as " + other);
    }
    return new Array(buffer, offset, other, dtype);
  }

  public Array view(int... dims) {
    return view(Shape.of(dims));
  }

  /** Rows {@code [from, to)} of the leading axis. */
  public Array slice(int from, int to) {
    if (from < 0 || to > shape.dim(0) || from > to) {
      throw new IllegalArgumentException("rows " + from + " to " + to + " of " + shape);
    }
    long row = shape.product(1, shape.rank());
    return new Array(buffer, offset + from * row, shape.with(0, to - from), dtype);
  }

  public void retain() {
    buffer.retain();
  }

  public void release() {
    buffer.release();
  }

  @Override
  public String toString() {
    return shape + " " + dtype;
  }
}
