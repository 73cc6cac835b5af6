package org.deixis.backend;

/** What a matrix product may do to its result before storing it. */
public enum Activation {
  NONE,
  RELU,
  /** GELU with the Gauss error function (Hendrycks and Gimpel, 2016). */
  GELU,
  /** GELU's tanh form, see {@link Unary#GELU_TANH}. */
  GELU_TANH;

  /** The elementwise operation of the same formula; not for NONE. */
  public Unary unary() {
    return switch (this) {
      case RELU -> Unary.RELU;
      case GELU -> Unary.GELU;
      case GELU_TANH -> Unary.GELU_TANH;
      case NONE -> throw new IllegalStateException("no activation has no formula");
    };
  }
}
