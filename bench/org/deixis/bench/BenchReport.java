package org.deixis.bench;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import org.deixis.core.InputException;

/**
 * What one run measured, and where: the content of {@code bench.json}.
 *
 * @param about date, device, dtype, threads, machine and versions, by name
 * @param limits of the machine: "gflops" of a large product, "gbs" of a large copy
 * @param failed rows and peers that could not be measured, and why, a line each
 */
public record BenchReport(
    Map<String, String> about, Map<String, Double> limits, List<Row> rows, List<String> failed) {
  /** The file's name in the folder that a run writes. */
  public static final String FILE = "bench.json";

  private static final ObjectMapper JSON = new ObjectMapper();
  private static final long MOST_BYTES = 16 << 20;
  private static final int MOST_ROWS = 10_000;

  public BenchReport {
    about = new LinkedHashMap<>(about);
    limits = new LinkedHashMap<>(limits);
    rows = new ArrayList<>(rows);
    failed = new ArrayList<>(failed);
  }

  /** One in which nothing failed. */
  public BenchReport(Map<String, String> about, Map<String, Double> limits, List<Row> rows) {
    this(about, limits, rows, List.of());
  }

  /** Reads a file that {@link #write} wrote. */
  public static BenchReport read(Path file) {
    try {
      if (Files.size(file) > MOST_BYTES) {
        throw new InputException(file + ": too large for a bench's figures");
      }
      return parse(file, JSON.readTree(Files.readAllBytes(file)));
    } catch (IOException e) {
      throw new InputException(
          file + ": cannot be read: " + e.getMessage() + "; give a bench.json", e);
    }
  }

  /**
   * The rows of several files of one machine, device and type, in their order. What they say of
   * themselves is the first one's, completed by the others'; the limits are the best measured.
   *
   * @throws InputException when they are of different devices
   */
  public static BenchReport together(List<Path> files, List<BenchReport> reports) {
    BenchReport all = new BenchReport(Map.of(), Map.of(), List.of());
    for (int i = 0; i < reports.size(); i++) {
      BenchReport one = reports.get(i);
      for (String same : List.of("device", "card", "machine", "dtype")) {
        String first = reports.get(0).about.get(same);
        if (!Objects.equals(first, one.about.get(same))) {
          throw new InputException(
              "%s is of %s '%s', and %s of '%s': give files of one run"
                  .formatted(files.get(i), same, one.about.get(same), files.get(0), first));
        }
      }
      one.about.forEach(all.about::putIfAbsent);
      one.limits.forEach((name, value) -> all.limits.merge(name, value, Math::max));
      all.rows.addAll(one.rows);
      all.failed.addAll(one.failed);
    }
    return all;
  }

  private static BenchReport parse(Path file, JsonNode root) {
    JsonNode rows = root.path("rows");
    if (!rows.isArray() || rows.size() > MOST_ROWS) {
      throw new InputException(file + ": no list of rows; give a file that deixis bench wrote");
    }
    Map<String, String> about = new LinkedHashMap<>();
    root.path("about").fields().forEachRemaining(e -> about.put(e.getKey(), e.getValue().asText()));
    BenchReport report = new BenchReport(about, numbers(root.path("limits")), List.of());
    root.path("failed").forEach(f -> report.failed.add(f.asText()));
    for (int i = 0; i < rows.size(); i++) {
      JsonNode r = rows.get(i);
      if (!r.path("name").isTextual() || !r.path("unit").isTextual()) {
        throw new InputException(file + ": row " + i + " has no name or unit");
      }
      if (!r.path("engine").isNumber()) {
        throw new InputException(file + ": row " + i + " has no figure of the engine");
      }
      report.rows.add(
          new Row(
              group(file, i, r.path("group").asText()),
              r.path("name").asText(),
              r.path("unit").asText(),
              r.path("engine").asDouble(),
              numbers(r.path("peers")),
              numbers(r.path("wanted")),
              numbers(r.path("more"))));
    }
    return report;
  }

  private static Row.Group group(Path file, int row, String name) {
    for (Row.Group g : Row.Group.values()) {
      if (g.name().toLowerCase(Locale.ROOT).equals(name)) {
        return g;
      }
    }
    throw new InputException(file + ": row " + row + " is of an unknown group '" + name + "'");
  }

  private static Map<String, Double> numbers(JsonNode node) {
    Map<String, Double> numbers = new LinkedHashMap<>();
    node.fields().forEachRemaining(e -> numbers.put(e.getKey(), e.getValue().asDouble()));
    return numbers;
  }

  /** Writes {@code folder/bench.json}, ratios to the peers included, and returns its path. */
  public Path write(Path folder) {
    ObjectNode root = JSON.createObjectNode();
    ObjectNode facts = root.putObject("about");
    about.forEach(facts::put);
    put(root.putObject("limits"), limits);
    for (Row row : rows) {
      ObjectNode r = root.withArray("rows").addObject();
      r.put("group", row.group().name().toLowerCase(Locale.ROOT));
      r.put("name", row.name());
      r.put("unit", row.unit());
      r.put("engine", row.engine());
      put(r.putObject("peers"), row.peers());
      Map<String, Double> ratios = new LinkedHashMap<>();
      row.peers().keySet().forEach(p -> ratios.put(p, row.ratio(p)));
      put(r.putObject("ratios"), ratios);
      put(r.putObject("wanted"), row.wanted());
      put(r.putObject("more"), new TreeMap<>(row.more()));
    }
    if (!failed.isEmpty()) {
      failed.forEach(root.putArray("failed")::add);
    }
    Path file = folder.resolve(FILE);
    try {
      Files.createDirectories(folder);
      Path temporary = folder.resolve(FILE + ".partial");
      Files.write(temporary, JSON.writerWithDefaultPrettyPrinter().writeValueAsBytes(root));
      Files.move(
          temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
      return file;
    } catch (IOException e) {
      throw new InputException("cannot write " + file + ": " + e.getMessage(), e);
    }
  }

  private static void put(ObjectNode node, Map<String, Double> numbers) {
    numbers.forEach(node::put);
  }
}
