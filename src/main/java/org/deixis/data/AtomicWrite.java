package org.deixis.data;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import org.deixis.core.InputException;

/** Files that appear whole or not at all. */
final class AtomicWrite {
  private AtomicWrite() {}

  static void bytes(Path file, byte[] content) {
    Path parent = file.toAbsolutePath().getParent();
    Path temporary = null;
    try {
      Files.createDirectories(parent);
      temporary = Files.createTempFile(parent, "." + file.getFileName(), ".tmp");
      Files.write(temporary, content);
      Files.move(
          temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } catch (IOException e) {
      try {
        if (temporary != null) {
          Files.deleteIfExists(temporary);
        }
      } catch (IOException again) {
        e.addSuppressed(again);
      }
      throw new InputException(file + ": cannot be written: " + e.getMessage(), e);
    }
  }
}
