package org.deixis.core;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;

/** Files that appear whole or not at all; what was there before stays until then. */
public final class AtomicWrite {
  private static final AtomicLong COUNTER = new AtomicLong();

  private AtomicWrite() {}

  /**
   * An unused name beside {@code file}. (The JDK's own temporary files are readable by nobody else,
   * and would stay so under their final name.)
   */
  public static Path temporaryFor(Path file) {
    return file.resolveSibling(
        ".%s.%d-%d.tmp"
            .formatted(
                file.getFileName(), ProcessHandle.current().pid(), COUNTER.getAndIncrement()));
  }

  /**
   * Writes one file, and the folders above it that are missing.
   *
   * @throws InputException when it cannot be written; nothing is left behind then
   */
  public static void bytes(Path file, byte[] content) {
    files(Map.of(file, content));
  }

  /**
   * Writes files that belong together: none takes its name before all are written.
   *
   * @param contents by file, in the order in which they appear
   * @throws InputException when one cannot be written; nothing is left behind then
   */
  public static void files(Map<Path, byte[]> contents) {
    Map<Path, Path> temporaries = new LinkedHashMap<>();
    for (Map.Entry<Path, byte[]> e : contents.entrySet()) {
      Path file = e.getKey();
      Path temporary = temporaryFor(file);
      temporaries.put(file, temporary);
      try {
        Files.createDirectories(file.toAbsolutePath().getParent());
        Files.write(temporary, e.getValue());
      } catch (IOException fault) {
        throw failed(file, fault, temporaries);
      }
    }
    for (Map.Entry<Path, Path> e : temporaries.entrySet()) {
      try {
        Files.move(
            e.getValue(),
            e.getKey(),
            StandardCopyOption.ATOMIC_MOVE,
            StandardCopyOption.REPLACE_EXISTING);
      } catch (IOException fault) {
        throw failed(e.getKey(), fault, temporaries);
      }
    }
  }

  private static InputException failed(Path file, IOException fault, Map<Path, Path> temporaries) {
    for (Path temporary : temporaries.values()) {
      try {
        Files.deleteIfExists(temporary);
      } catch (IOException again) {
        fault.addSuppressed(again);
      }
    }
    return new InputException(
        "cannot write "
            + file
            + ": "
            + Reason.of(fault)
            + "; free some space or choose another folder",
        fault);
  }
}
