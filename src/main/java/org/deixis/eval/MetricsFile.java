package org.deixis.eval;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Locale;
import java.util.Map;
import org.deixis.core.InputException;

/**
 * Writes {@code metrics.json}: the measures by name, the same for each kind of expression, and the
 * counts.
 */
public final class MetricsFile {
  public static final String NAME = "metrics.json";

  private static final ObjectMapper JSON = new ObjectMapper();

  private MetricsFile() {}

  /** Writes {@code folder/metrics.json} under another name first, then renames it. */
  public static Path write(Path folder, Metrics metrics) {
    ObjectNode root = node(metrics.values());
    root.put("expressions", metrics.expressions());
    for (Metrics.Kind kind : Metrics.Kind.values()) {
      ObjectNode part = node(metrics.values(kind));
      part.put("expressions", metrics.expressions(kind));
      root.set(kind.name().toLowerCase(Locale.ROOT), part);
    }
    Path file = folder.resolve(NAME);
    try {
      Files.createDirectories(folder);
      Path temporary = Files.createTempFile(folder, NAME, ".tmp");
      Files.write(temporary, JSON.writerWithDefaultPrettyPrinter().writeValueAsBytes(root));
      Files.move(
          temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
      return file;
    } catch (IOException e) {
      throw new InputException(
          "cannot write " + file + ": " + e.getMessage() + "; choose another --out", e);
    }
  }

  /** JSON knows no NaN: a measure that nothing was counted for is null. */
  private static ObjectNode node(Map<String, Double> values) {
    ObjectNode node = JSON.createObjectNode();
    values.forEach(
        (name, v) -> {
          if (v.isNaN()) {
            node.putNull(name);
          } else {
            node.put(name, v);
          }
        });
    return node;
  }
}
