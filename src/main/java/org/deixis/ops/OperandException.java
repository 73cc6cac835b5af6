package org.deixis.ops;

/**
 * Operands that an operation cannot take: the message names the operation, shapes, dtypes and the
 * module path.
 */
public final class OperandException extends IllegalArgumentException {
  OperandException(String message) {
    super(message);
  }
}
