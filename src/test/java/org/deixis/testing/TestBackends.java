package org.deixis.testing;

import java.util.List;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;

/**
 * The backends that tests run on: {@code -Dtest.backends=reference,cpu}. "cuda-host" is the cuda
 * backend on the stand-in driver.
 */
public final class TestBackends {
  private TestBackends() {}

  public static List<Backend> all() {
    return names().stream().map(TestBackends::get).toList();
  }

  /** Their names, for {@link #get}. */
  public static List<String> names() {
    return List.of(System.getProperty("test.backends", "reference,cpu").split(","));
  }

  public static Backend get(String name) {
    return switch (name) {
      case "cuda-host" -> CudaHost.backend();
      case "cuda" -> Card.backend();
      default -> Backends.get(name);
    };
  }
}
