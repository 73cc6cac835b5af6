package org.deixis.testing;

import java.util.Set;

/** The backend's methods by kind, for tests that go through all of them. */
public final class SpiMethods {
  /** Those that compute nothing: memory, moving data, what a device is and can. */
  public static final Set<String> NOT_KERNELS =
      Set.of(
          "name",
          "memory",
          "deviceName",
          "supports",
          "allocate",
          "upload",
          "download",
          "graphs",
          "freezes",
          "freeze",
          "synchronize",
          "close");

  private SpiMethods() {}
}
