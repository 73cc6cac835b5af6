package org.deixis.io;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import org.deixis.core.InputException;

/**
 * What every false file must meet with: one line that names it, and soon. A file that is refused is
 * so in milliseconds; the limit, generous for busy machines, ends what would go on for ever.
 */
final class HostileFiles {
  private HostileFiles() {}

  /** Opens a file and reads all of it. */
  static void readAll(Path path) {
    try (Checkpoint file = Checkpoints.open(path)) {
      for (var entry : file.entries().entrySet()) {
        HostTensor tensor = file.read(entry.getKey());
        if (tensor.dtype() != entry.getValue().dtype()
            || !tensor.shape().equals(entry.getValue().shape())) {
          fail(entry.getKey() + " is not what was announced");
        }
      }
    }
  }

  /** The line with which a file is refused; it must say {@code words}. */
  static String refused(Path path, String words) {
    String line =
        assertTimeoutPreemptively(
            Duration.ofSeconds(30),
            () -> {
              try {
                readAll(path);
                return null;
              } catch (InputException e) {
                return e.getMessage();
              }
            },
            () -> path + " takes too long");
    assertTrue(line != null, () -> path + " is read as if it were whole");
    assertTrue(line.contains(path.getFileName().toString()), line);
    assertTrue(line.contains(words), line);
    assertOneLine(line);
    return line;
  }

  static void assertOneLine(String line) {
    assertFalse(line.chars().anyMatch(Character::isISOControl), line);
    assertTrue(line.length() < 600, line);
  }

  static byte[] resource(String name) throws IOException {
    try (InputStream in = HostileFiles.class.getResourceAsStream(name)) {
      return in.readAllBytes();
    }
  }

  static String refused(Path folder, String name, byte[] bytes, String words) throws IOException {
    return refused(Files.write(folder.resolve(name), bytes), words);
  }
}
