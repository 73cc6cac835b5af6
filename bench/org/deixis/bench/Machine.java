package org.deixis.bench;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** What the system says about this machine and this process. */
final class Machine {
  private Machine() {}

  /** Processor and cores, on one line. */
  static String describe() {
    String cores = Runtime.getRuntime().availableProcessors() + " cores";
    String model = line(Path.of("/proc/cpuinfo"), "model name");
    String processor =
        model == null
            ? System.getProperty("os.name") + " " + System.getProperty("os.arch")
            : model.replaceFirst("^[^:]*:\\s*", "");
    return processor + ", " + cores;
  }

  /** Highest resident set of this process in MiB, from the kernel; −1 where there is no /proc. */
  static double peakResidentMib() {
    String line = line(Path.of("/proc/self/status"), "VmHWM:");
    return line == null ? -1 : Long.parseLong(line.replaceAll("\\D", "")) / 1024.0;
  }

  private static String line(Path file, String start) {
    if (!Files.isReadable(file)) {
      return null; // not Linux
    }
    try {
      return Files.readAllLines(file).stream()
          .filter(l -> l.startsWith(start))
          .findFirst()
          .orElse(null);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
