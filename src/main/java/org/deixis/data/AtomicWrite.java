package org.deixis.data;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.concurrent.atomic.AtomicLong;
import org.deixis.core.InputException;

/** Files that appear whole or not at all. */
final class AtomicWrite {
  private static final AtomicLong COUNTER = new AtomicLong();

  private AtomicWrite() {}

  /**
   * An unused name beside {@code file}. (The JDK's own temporary files are readable by nobody else,
   * and would stay so under their final name.)
   */
  static Path temporaryFor(Path file) {
    return file.resolveSibling(
        ".%s.%d-%d.tmp"
            .formatted(
                file.getFileName(), ProcessHandle.current().pid(), COUNTER.getAndIncrement()));
  }

  static void bytes(Path file, byte[] content) {
    Path temporary = temporaryFor(file);
    try {
      Files.createDirectories(file.toAbsolutePath().getParent());
      Files.write(temporary, content);
      Files.move(
          temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } catch (IOException e) {
      try {
        Files.deleteIfExists(temporary);
      } catch (IOException again) {
        e.addSuppressed(again);
      }
      throw new InputException(file + ": cannot be written: " + e.getMessage(), e);
    }
  }
}
