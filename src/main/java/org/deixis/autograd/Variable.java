package org.deixis.autograd;

import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * An array in a computation: either a leaf (input, parameter) or the output of a recorded
 * operation. The gradient slot is filled by {@link Tape#backward}; a leaf keeps it until {@link
 * #clearGradient}, others give it up once used.
 */
public final class Variable {
  private final Array array;
  private final boolean requiresGradient;
  private final boolean leaf;
  private Array gradient;

  private Variable(Array array, boolean requiresGradient, boolean leaf) {
    this.array = array;
    this.requiresGradient = requiresGradient;
    this.leaf = leaf;
  }

  /** An array that no gradient reaches. */
  public static Variable constant(Array array) {
    return new Variable(array, false, true);
  }

  /** A leaf whose gradient is wanted. */
  public static Variable leaf(Array array) {
    return new Variable(array, true, true);
  }

  static Variable output(Array array, boolean requiresGradient) {
    return new Variable(array, requiresGradient, false);
  }

  public Array array() {
    return array;
  }

  public Shape shape() {
    return array.shape();
  }

  public DType dtype() {
    return array.dtype();
  }

  public Backend backend() {
    return array.backend();
  }

  public boolean requiresGradient() {
    return requiresGradient;
  }

  public boolean isLeaf() {
    return leaf;
  }

  /** The gradient that has reached this variable, of its shape and dtype, or null. */
  public Array gradient() {
    return gradient;
  }

  /** Adds {@code g} to the gradient; in place only where nobody else holds the sum so far. */
  void accumulate(Array g) {
    if (gradient == null) {
      g.retain();
      gradient = g;
      return;
    }
    Backend backend = array.backend();
    if (gradient.buffer().exclusive()) {
      backend.axpby(1, g, 1, gradient);
      return;
    }
    Array sum = backend.allocate(array.shape(), array.dtype());
    sum.retain();
    backend.copy(gradient, sum);
    backend.axpby(1, g, 1, sum);
    gradient.release();
    gradient = sum;
  }

  /** Drops the gradient and its memory. */
  public void clearGradient() {
    if (gradient != null) {
      gradient.release();
      gradient = null;
    }
  }
}
