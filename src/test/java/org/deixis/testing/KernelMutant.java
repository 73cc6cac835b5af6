package org.deixis.testing;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;

/**
 * One mistake in a kernel file, which tests on the stand-in driver must notice.
 *
 * @param file that is changed
 * @param right its text, found exactly once
 * @param wrong what takes its place
 */
public record KernelMutant(String name, String file, String right, String wrong) {
  /**
   * The kernel files with the mistake, in a new folder.
   *
   * @throws AssertionError when the file's text is not, or not only once, what the mistake replaces
   */
  public Path sources(Path folder) throws IOException {
    try (Stream<Path> files = Files.walk(Path.of("cuda"))) {
      for (Path from : (Iterable<Path>) files::iterator) {
        Path target = folder.resolve(Path.of("cuda").relativize(from).toString());
        if (Files.isDirectory(from)) {
          Files.createDirectories(target);
        } else {
          Files.copy(from, target);
        }
      }
    }
    Path changed = folder.resolve(file);
    String text = Files.readString(changed);
    int at = text.indexOf(right);
    assertTrue(
        at >= 0 && text.indexOf(right, at + 1) < 0,
        file + " no longer has the text of this mutant exactly once");
    Files.writeString(changed, text.replace(right, wrong));
    return folder;
  }
}
