package org.deixis.data;

import java.util.ArrayList;
import java.util.List;
import org.deixis.core.InputException;

/** Decides what damage in a data set does: ends the reading, or is counted and listed. */
final class Damage {
  private final boolean skipBad;
  private final List<String> skipped = new ArrayList<>();

  Damage(boolean skipBad) {
    this.skipBad = skipBad;
  }

  boolean skipBad() {
    return skipBad;
  }

  /** A damaged record, which the caller leaves out if this returns. */
  void report(String where, String reason) {
    if (!skipBad) {
      throw new InputException(
          where + ": " + reason + " (--skip-bad leaves such records out and lists them)");
    }
    skipped.add(where + ": " + reason);
  }

  List<String> skipped() {
    return List.copyOf(skipped);
  }
}
