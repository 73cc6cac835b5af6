package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/**
 * NVRTC is handed the headers by name: one that is not in the list would be missing on a card
 * alone, as g++ and nvcc find it in the folder.
 */
class NvrtcHeadersTest {
  /** Of the stand-in driver, behind an #ifdef that NVRTC never meets. */
  private static final String STAND_IN = "host/host.h";

  private static final Pattern INCLUDE = Pattern.compile("(?m)^\\s*#include\\s*[\"<]([^\">]+)");

  private static List<Path> files(String suffix) throws IOException {
    try (Stream<Path> all = Files.list(Path.of("cuda"))) {
      return all.filter(f -> f.toString().endsWith(suffix)).sorted().toList();
    }
  }

  @Test
  void theListIsTheFoldersHeaders() throws IOException {
    assertEquals(
        files(".cuh").stream().map(f -> f.getFileName().toString()).toList(),
        NvrtcCompiler.HEADERS.stream().sorted().toList());
  }

  @Test
  void everyIncludeIsInTheList() throws IOException {
    int met = 0;
    for (Path file : Stream.concat(files(".cu").stream(), files(".cuh").stream()).toList()) {
      Matcher include = INCLUDE.matcher(Files.readString(file));
      while (include.find()) {
        met++;
        String name = include.group(1);
        assertTrue(
            NvrtcCompiler.HEADERS.contains(name)
                || name.equals(STAND_IN) && file.endsWith("common.cuh"),
            file + " includes " + name + ", which NVRTC is not given");
      }
    }
    assertTrue(met >= files(".cu").size(), met + " includes in all files");
  }
}
