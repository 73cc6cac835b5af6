package org.deixis.train.log;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.core.AtomicWrite;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/**
 * {@code metrics.jsonl}: one JSON object a line, each with its step. A resumed run drops the lines
 * after its step.
 */
public final class MetricsLog {
  private static final ObjectMapper JSON = new ObjectMapper();

  private final Path file;

  private MetricsLog(Path file) {
    this.file = file;
  }

  /**
   * Opens the log; lines of steps beyond {@code step} (and a half-written last one) are dropped.
   */
  public static MetricsLog open(Path file, long step) {
    try {
      List<String> kept = new ArrayList<>();
      if (Files.exists(file)) {
        for (String line : Files.readAllLines(file)) {
          Map<?, ?> values = parse(line);
          if (values != null && values.get("step") instanceof Number n && n.longValue() <= step) {
            kept.add(line);
          }
        }
      }
      kept.add("");
      AtomicWrite.bytes(file, String.join("\n", kept).getBytes(StandardCharsets.UTF_8));
      return new MetricsLog(file);
    } catch (IOException e) {
      throw new InputException("cannot read " + file + ": " + Reason.of(e), e);
    }
  }

  private static Map<?, ?> parse(String line) {
    try {
      return JSON.readValue(line, Map.class);
    } catch (IOException e) {
      return null; // the line that a killed run was writing
    }
  }

  /** Appends a line. NaN, which JSON has not, becomes null. */
  public void write(long step, Map<String, ?> values) {
    Map<String, Object> all = new LinkedHashMap<>();
    all.put("step", step);
    values.forEach((k, v) -> all.put(k, v instanceof Double d && !Double.isFinite(d) ? null : v));
    try {
      Files.writeString(
          file,
          JSON.writeValueAsString(all) + "\n",
          StandardCharsets.UTF_8,
          StandardOpenOption.CREATE,
          StandardOpenOption.APPEND);
    } catch (IOException e) {
      throw new InputException(
          "cannot write " + file + ": " + Reason.of(e) + "; free some space", e);
    }
  }

  /** The values of one name by step, for curves. */
  public static List<double[]> series(Path file, String name) {
    List<double[]> points = new ArrayList<>();
    try {
      for (String line : Files.readAllLines(file)) {
        Map<?, ?> values = parse(line);
        if (values != null
            && values.get("step") instanceof Number step
            && values.get(name) instanceof Number v) {
          points.add(new double[] {step.doubleValue(), v.doubleValue()});
        }
      }
    } catch (IOException e) {
      throw new InputException("cannot read " + file + ": " + Reason.of(e), e);
    }
    return points;
  }
}
