package org.deixis.bench;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Locale;
import java.util.StringJoiner;
import org.deixis.core.InputException;

/**
 * What documents say of a run: tables made from {@code bench.json} alone, between two comments that
 * name them.
 */
public final class MarkdownTable {
  /** A table, and the name in the comments around it. */
  public enum Part {
    /** Models, training steps, footprint, and the operations that something is wanted of. */
    SUMMARY,
    /** Every operation, with the machine's limit. */
    OPERATIONS;

    String begin() {
      return "<!-- bench " + name().toLowerCase(Locale.ROOT) + ": begin -->";
    }

    String end() {
      return "<!-- bench " + name().toLowerCase(Locale.ROOT) + ": end -->";
    }
  }

  private MarkdownTable() {}

  /** The table and a line about the run, ending with a line break. */
  public static String of(BenchReport report, Part part) {
    return part == Part.SUMMARY ? summary(report) : operations(report);
  }

  private static String summary(BenchReport report) {
    StringBuilder text =
        new StringBuilder("| what | Deixis | others in the same run | ratio | wanted |\n")
            .append("| --- | --- | --- | --- | --- |\n");
    for (Row row : report.rows()) {
      if (row.group() == Row.Group.OPERATIONS && row.wanted().isEmpty()) {
        continue;
      }
      StringJoiner peers = new StringJoiner("; ");
      StringJoiner ratios = new StringJoiner("; ");
      StringJoiner wanted = new StringJoiner("; ");
      row.peers()
          .forEach(
              (who, value) -> {
                peers.add(who + " " + Quantity.of(value, row.unit()));
                ratios.add(ratio(row.ratio(who)));
                Double target = row.wanted().get(who);
                wanted.add(target == null ? "–" : ratio(target));
              });
      if (row.peers().isEmpty() && row.more().containsKey("wanted")) {
        wanted.add(Quantity.digits(row.more().get("wanted")));
      }
      text.append("| ")
          .append(row.name())
          .append(" | ")
          .append(Quantity.of(row.engine(), row.unit()))
          .append(" | ")
          .append(peers)
          .append(" | ")
          .append(ratios)
          .append(" | ")
          .append(wanted)
          .append(" |\n");
    }
    text.append('\n').append(about(report)).append('\n');
    report.failed().forEach(line -> text.append("\nNot measured: ").append(line).append('\n'));
    return text.toString();
  }

  private static String operations(BenchReport report) {
    StringBuilder text =
        new StringBuilder("| operation | time | GFLOP/s | GB/s | limit | others, ratio |\n")
            .append("| --- | --- | --- | --- | --- | --- |\n");
    for (Row row : report.rows()) {
      if (row.group() != Row.Group.OPERATIONS) {
        continue;
      }
      StringJoiner peers = new StringJoiner("; ");
      row.peers()
          .forEach(
              (who, value) ->
                  peers.add(
                      who + " " + Quantity.of(value, row.unit()) + ", " + ratio(row.ratio(who))));
      text.append("| ")
          .append(row.name())
          .append(" | ")
          .append(Quantity.of(row.engine(), row.unit()))
          .append(" | ")
          .append(more(row, "gflops", 1))
          .append(" | ")
          .append(more(row, "gbs", 1))
          .append(" | ")
          .append(percent(row))
          .append(" | ")
          .append(peers)
          .append(" |\n");
    }
    return text.append("\nLimits of the machine in that run: ")
        .append(Quantity.digits(report.limits().getOrDefault("gflops", Double.NaN)))
        .append(" GFLOP/s, ")
        .append(Quantity.digits(report.limits().getOrDefault("gbs", Double.NaN)))
        .append(" GB/s. ")
        .append(about(report))
        .append('\n')
        .toString();
  }

  private static String ratio(double value) {
    return String.format(Locale.ROOT, "%.2f ×", value);
  }

  private static String more(Row row, String key, double factor) {
    Double value = row.more().get(key);
    return value == null ? "–" : Quantity.digits(value * factor);
  }

  private static String percent(Row row) {
    Double share = row.more().get("share_of_limit");
    if (share == null) {
      return "–";
    }
    Double wanted = row.more().get("wanted_share");
    return String.format(Locale.ROOT, "%.0f %%", 100 * share)
        + (wanted == null ? "" : String.format(Locale.ROOT, " (wanted %.0f)", 100 * wanted));
  }

  /** Where and with what: one line. */
  private static String about(BenchReport report) {
    StringJoiner facts = new StringJoiner(", ", "Run of ", ".");
    facts.add(report.about().getOrDefault("date", "an unknown day"));
    facts.add(report.about().getOrDefault("machine", "an unknown machine"));
    facts.add(report.about().getOrDefault("threads", "?") + " threads");
    facts.add(report.about().getOrDefault("dtype", "f32"));
    report
        .about()
        .forEach(
            (name, value) -> {
              switch (name) {
                case "java" -> facts.add("Java " + value);
                case "torch" -> facts.add("PyTorch " + value);
                case "onnxruntime" -> facts.add("ONNX Runtime " + value);
                case "libtorch_java" -> facts.add(Row.LIBTORCH_JAVA + " " + value);
                case "onnxruntime_java" -> facts.add(Row.ONNX_RUNTIME_JAVA + " " + value);
                case "card" -> facts.add(value);
                default -> {} // the JSON has the rest
              }
            });
    return facts.toString();
  }

  /**
   * What stands between the comments of that part in a document.
   *
   * @throws InputException when the document has no such comments
   */
  public static String within(Path document, String text, Part part) {
    int[] span = span(document, text, part);
    return text.substring(span[0], span[1]);
  }

  private static int[] span(Path document, String text, Part part) {
    int begin = text.indexOf(part.begin());
    int end = text.indexOf(part.end(), Math.max(begin, 0));
    if (begin < 0 || end < 0) {
      throw new InputException(
          "%s: no '%s' and '%s' to write between".formatted(document, part.begin(), part.end()));
    }
    return new int[] {begin + part.begin().length() + 1, end};
  }

  /** Replaces the tables of every part that the document has comments for; at least one. */
  public static void into(Path document, BenchReport report) {
    try {
      String text = Files.readString(document);
      int found = 0;
      for (Part part : Part.values()) {
        if (text.contains(part.begin())) {
          int[] span = span(document, text, part);
          text = text.substring(0, span[0]) + of(report, part) + text.substring(span[1]);
          found++;
        }
      }
      if (found == 0) {
        span(document, text, Part.SUMMARY);
      }
      Path partial = document.resolveSibling(document.getFileName() + ".partial");
      Files.writeString(partial, text);
      Files.move(
          partial, document, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } catch (IOException e) {
      throw new InputException(document + ": cannot be rewritten: " + e.getMessage(), e);
    }
  }
}
