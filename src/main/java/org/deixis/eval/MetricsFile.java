package org.deixis.eval;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import org.deixis.core.AtomicWrite;

/**
 * Writes {@code metrics.json}: the measures by name, the same for each kind of expression, and the
 * counts.
 */
public final class MetricsFile {
  public static final String NAME = "metrics.json";

  private static final ObjectMapper JSON = new ObjectMapper();

  private MetricsFile() {}

  /** Writes {@code folder/metrics.json} whole or not at all. */
  public static Path write(Path folder, Metrics metrics) {
    ObjectNode root = node(metrics.values());
    root.put("expressions", metrics.expressions());
    for (Metrics.Kind kind : Metrics.Kind.values()) {
      ObjectNode part = node(metrics.values(kind));
      part.put("expressions", metrics.expressions(kind));
      root.set(kind.name().toLowerCase(Locale.ROOT), part);
    }
    Path file = folder.resolve(NAME);
    AtomicWrite.bytes(file, (root.toPrettyString() + "\n").getBytes(StandardCharsets.UTF_8));
    return file;
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
