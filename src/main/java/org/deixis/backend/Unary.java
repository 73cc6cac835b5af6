package org.deixis.backend;

/** Elementwise functions of one argument. */
public enum Unary {
  /** x Φ(x), Φ by the Gauss error function. */
  GELU,
  /** The tanh form: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))). */
  GELU_TANH,
  RELU,
  SIGMOID,
  TANH,
  EXP,
  SQUARE
}
