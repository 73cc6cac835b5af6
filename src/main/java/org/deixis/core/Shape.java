package org.deixis.core;

import java.util.Arrays;
import java.util.stream.Collectors;

/** The extents of a row-major, contiguous array. Immutable; a scalar has rank 0 and one element. */
public final class Shape {
  private final int[] dims;

  private Shape(int[] dims) {
    this.dims = dims;
  }

  /** A shape of the given extents, each at least 0; their product must fit a {@code long}. */
  public static Shape of(int... dims) {
    long n = 1;
    for (int d : dims) {
      if (d < 0) {
        throw new IllegalArgumentException("negative extent in shape " + Arrays.toString(dims));
      }
      n = Math.multiplyExact(n, d);
    }
    return new Shape(dims.clone());
  }

  public int rank() {
    return dims.length;
  }

  /** Extent of {@code axis}; a negative axis counts from the end. */
  public int dim(int axis) {
    return dims[axis < 0 ? axis + dims.length : axis];
  }

  public int[] dims() {
    return dims.clone();
  }

  /** Number of elements: 1 for a scalar, 0 when any extent is 0. */
  public long size() {
    long n = 1;
    for (int d : dims) {
      n *= d;
    }
    return n;
  }

  /** Product of the extents in {@code [from, to)}. */
  public long product(int from, int to) {
    long n = 1;
    for (int i = from; i < to; i++) {
      n *= dims[i];
    }
    return n;
  }

  /** Number of rows when the last axis is taken as columns; 1 for a scalar. */
  public long rows() {
    return product(0, Math.max(0, dims.length - 1));
  }

  /** This shape with {@code axis} (negative counts from the end) replaced by {@code extent}. */
  public Shape with(int axis, int extent) {
    int[] d = dims.clone();
    d[axis < 0 ? axis + d.length : axis] = extent;
    return of(d);
  }

  /** This shape with {@code extent} put before the first axis. */
  public Shape prepend(int extent) {
    int[] d = new int[dims.length + 1];
    d[0] = extent;
    System.arraycopy(dims, 0, d, 1, dims.length);
    return of(d);
  }

  /** This shape with {@code extent} put behind the last axis. */
  public Shape append(int extent) {
    int[] d = Arrays.copyOf(dims, dims.length + 1);
    d[dims.length] = extent;
    return of(d);
  }

  /** The axes {@code [from, to)} as a shape. */
  public Shape slice(int from, int to) {
    return new Shape(Arrays.copyOfRange(dims, from, to));
  }

  @Override
  public boolean equals(Object o) {
    return o instanceof Shape s && Arrays.equals(dims, s.dims);
  }

  @Override
  public int hashCode() {
    return Arrays.hashCode(dims);
  }

  @Override
  public String toString() {
    return Arrays.stream(dims)
        .mapToObj(Integer::toString)
        .collect(Collectors.joining(", ", "(", ")"));
  }
}
