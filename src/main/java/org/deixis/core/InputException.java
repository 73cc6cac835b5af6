package org.deixis.core;

/**
 * Bad input or bad usage: the message is one line that says what is wrong, where, and what to do.
 * Commands print it without a trace and exit with code 2.
 */
public class InputException extends RuntimeException {
  public InputException(String message) {
    super(message);
  }

  public InputException(String message, Throwable cause) {
    super(message, cause);
  }
}
