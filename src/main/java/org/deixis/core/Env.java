package org.deixis.core;

/**
 * What the process may be told from outside: {@code DEIXIS_*} environment variables, or system
 * properties over them.
 */
public final class Env {
  private Env() {}

  /**
   * The system property {@code deixis.name}, else the environment variable {@code DEIXIS_NAME},
   * else null.
   */
  public static String get(String name) {
    String property =
        System.getProperty("deixis." + name.toLowerCase(java.util.Locale.ROOT).replace('_', '.'));
    return property != null
        ? property
        : System.getenv("DEIXIS_" + name.toUpperCase(java.util.Locale.ROOT));
  }

  public static String get(String name, String fallback) {
    String value = get(name);
    return value == null || value.isBlank() ? fallback : value;
  }

  /** A whole number of at least {@code min}. */
  public static int getInt(String name, int fallback, int min) {
    String value = get(name);
    if (value == null || value.isBlank()) {
      return fallback;
    }
    try {
      int parsed = Integer.parseInt(value.trim());
      if (parsed >= min) {
        return parsed;
      }
    } catch (NumberFormatException e) {
      // reported below, with the same words as a number that is too small
    }
    throw new InputException(
        "DEIXIS_" + name + " is '" + value + "': give a whole number of at least " + min);
  }

  /** Threads to compute with: {@code DEIXIS_THREADS}, else the processors that the JVM sees. */
  public static int threads() {
    return getInt("THREADS", Runtime.getRuntime().availableProcessors(), 1);
  }

  /** How closely kernels are watched, 0 to 3: {@code DEIXIS_DEBUG}, see docs/architecture.md. */
  public static int debug() {
    return getInt("DEBUG", 0, 0);
  }
}
