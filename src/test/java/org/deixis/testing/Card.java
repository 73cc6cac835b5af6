package org.deixis.testing;

import static org.junit.jupiter.api.Assertions.assertFalse;

import org.deixis.backend.Backend;
import org.deixis.backend.Backends;

/** The cuda backend on a real GPU. */
public final class Card {
  private Card() {}

  /** It must not be the stand-in driver, loaded by another test of the same process. */
  public static Backend backend() {
    Backend cuda = Backends.get("cuda");
    assertFalse(
        cuda.deviceName().contains("stand-in"),
        "the stand-in driver was loaded first: run tests of the card in a process without cuda-host");
    return cuda;
  }
}
