package org.deixis.backend.cuda;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Pattern;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The algorithms that measuring chose, one line a shape ({@code shape<TAB>algorithm}), under a line
 * that names the library's version and the device. A file that is not of that form, too large, or
 * of another device or version is ignored with a warning; what it says is only ever used to pick
 * among the algorithms that the library itself proposes.
 */
final class AlgorithmFile {
  private static final Logger LOG = LoggerFactory.getLogger(AlgorithmFile.class);
  private static final int MOST_BYTES = 4 << 20;
  private static final int MOST_SHAPES = 10_000;
  private static final Pattern LINE = Pattern.compile("([a-z0-9 -]{1,200})\t([0-9a-f]{128})");

  private final Path file;
  private final String header;
  private final Map<String, String> chosen;

  AlgorithmFile(Path folder, String device, long version) {
    String name = device.replaceAll("\\s+", " ");
    header = "deixis cublaslt algorithms 1, version " + version + ", " + name;
    file = folder.resolve("cublaslt-" + DiskCache.hash(name, Long.toString(version)));
    chosen = read();
  }

  Path path() {
    return file;
  }

  /** The algorithm in hexadecimal digits, or null. */
  String get(String shape) {
    return chosen.get(shape);
  }

  /** Keeps a choice, beside those that other processes may have written meanwhile. */
  void put(String shape, String algorithm) {
    read().forEach(chosen::putIfAbsent);
    if (chosen.size() >= MOST_SHAPES && !chosen.containsKey(shape)) {
      return;
    }
    chosen.put(shape, algorithm);
    StringBuilder text = new StringBuilder(header).append('\n');
    chosen.forEach((s, a) -> text.append(s).append('\t').append(a).append('\n'));
    DiskCache.keep(file, text.toString().getBytes(StandardCharsets.UTF_8));
  }

  private Map<String, String> read() {
    if (!Files.exists(file)) {
      return new TreeMap<>();
    }
    try (InputStream in = Files.newInputStream(file)) {
      byte[] bytes = in.readNBytes(MOST_BYTES + 1);
      if (bytes.length > MOST_BYTES) {
        return ignored("is larger than " + (MOST_BYTES >> 20) + " MiB");
      }
      return parse(new String(bytes, StandardCharsets.UTF_8));
    } catch (IOException e) {
      return ignored("cannot be read: " + e);
    }
  }

  private Map<String, String> parse(String text) {
    String[] lines = text.split("\n", -1);
    if (!lines[0].equals(header)) {
      return ignored("is of another device or version of cuBLASLt");
    }
    if (!lines[lines.length - 1].isEmpty()) {
      return ignored("ends in the middle of a line");
    }
    if (lines.length - 2 > MOST_SHAPES) {
      return ignored("has more than " + MOST_SHAPES + " shapes");
    }
    Map<String, String> found = new TreeMap<>();
    for (int i = 1; i < lines.length - 1; i++) {
      var line = LINE.matcher(lines[i]);
      if (!line.matches()) {
        return ignored("line " + (i + 1) + " is not a shape and an algorithm");
      }
      found.put(line.group(1), line.group(2));
    }
    return found;
  }

  private Map<String, String> ignored(String why) {
    LOG.warn(
        "{} {}; it is ignored, and the library's first advice taken (DEIXIS_TUNE=1 writes it anew)",
        file,
        why);
    return new TreeMap<>();
  }
}
