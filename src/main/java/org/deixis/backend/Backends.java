package org.deixis.backend;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.ServiceLoader;
import java.util.concurrent.ConcurrentHashMap;
import org.deixis.core.InputException;

/**
 * The registry: which devices this process knows, made on first use. Implementations announce
 * themselves through {@link ServiceLoader} as a {@link Provider}, so that nothing above them names
 * a class of theirs.
 */
public final class Backends {
  /** Makes a backend, or says why it cannot. */
  public interface Provider {
    /** Name as {@code --device} takes it. */
    String name();

    /** Null when the device can be used here, else one line: what is missing and how to get it. */
    String missing();

    /** Where {@link #missing} is null: what runs slower than it could for want of a library. */
    default String note() {
      return null;
    }

    /** What it loads from the system by name, in the order of need; loads all that is there. */
    default List<NativeLibrary> libraries() {
      return List.of();
    }

    Backend create();
  }

  /**
   * A library as the system's loader resolves it.
   *
   * @param name as it is asked for
   * @param path of its file; null where it does not load
   * @param problem why it does not, and what that costs; null where it does
   */
  public record NativeLibrary(String name, String path, String problem) {}

  private static final Map<String, Backend> MADE = new ConcurrentHashMap<>();

  private Backends() {}

  /** The providers on the class path, in the order of their declaration. */
  public static List<Provider> providers() {
    List<Provider> found = new ArrayList<>();
    ServiceLoader.load(Provider.class, Backends.class.getClassLoader()).forEach(found::add);
    return found;
  }

  /**
   * The backend of that name, made once a process; traced as {@code DEIXIS_DEBUG} says.
   *
   * @throws InputException when there is none of that name, or something it needs is missing
   */
  public static Backend get(String name) {
    Backend made = MADE.get(name);
    if (made != null) {
      return made;
    }
    synchronized (MADE) {
      List<String> names = new ArrayList<>();
      for (Provider provider : providers()) {
        names.add(provider.name());
        if (provider.name().equals(name)) {
          String missing = provider.missing();
          if (missing != null) {
            throw new InputException("device '" + name + "' cannot be used: " + missing);
          }
          return MADE.computeIfAbsent(name, n -> KernelTrace.of(provider.create()));
        }
      }
      throw new InputException(
          "unknown device '" + name + "'; there are " + String.join(", ", names) + " and auto");
    }
  }
}
