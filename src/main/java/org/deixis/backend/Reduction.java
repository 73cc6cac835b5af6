package org.deixis.backend;

/** How an axis is folded. */
public enum Reduction {
  SUM,
  MEAN,
  MAX
}
