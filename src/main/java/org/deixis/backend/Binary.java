package org.deixis.backend;

/** Elementwise functions of two arguments. */
public enum Binary {
  ADD,
  SUB,
  MUL,
  DIV
}
