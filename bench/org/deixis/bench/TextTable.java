package org.deixis.bench;

import java.util.Locale;

/** The table on a terminal, one line a row as rows come. */
final class TextTable {
  private static final int NAME = 58;

  private TextTable() {}

  static String header(Row.Group group) {
    String title =
        switch (group) {
          case INFERENCE -> "inference";
          case TRAINING -> "training steps";
          case ENCODERS -> "encoders alone, forward";
          case OPERATIONS -> "operations";
          case FOOTPRINT -> "start-up and footprint";
        };
    return pad(title) + pad(Row.ENGINE, 18) + " peers, and how many times as good we are";
  }

  static String line(Row row) {
    StringBuilder line = new StringBuilder(pad(row.name()));
    line.append(pad(Quantity.of(row.engine(), row.unit()), 18));
    if (row.more().containsKey("share_of_limit")) {
      line.append(
          String.format(
              Locale.ROOT,
              " %7.1f GFLOP/s %6.1f GB/s %4.0f %% of the limit",
              row.more().get("gflops"),
              row.more().get("gbs"),
              100 * row.more().get("share_of_limit")));
      if (row.more().containsKey("bytes")) {
        line.append(
            String.format(
                Locale.ROOT,
                " (%.2f GFLOP, %.1f MB)",
                row.more().get("flops") / 1e9,
                row.more().get("bytes") / 1e6));
      }
    }
    row.peers()
        .forEach(
            (who, value) -> {
              line.append(
                  String.format(
                      Locale.ROOT,
                      "  %s %s: %.2f×",
                      who,
                      Quantity.of(value, row.unit()),
                      row.ratio(who)));
              if (row.wanted().containsKey(who)) {
                line.append(String.format(Locale.ROOT, " (wanted %.1f)", row.wanted().get(who)));
              }
            });
    return line.toString();
  }

  private static String pad(String text) {
    return pad(text, NAME);
  }

  private static String pad(String text, int width) {
    return text.length() >= width ? text + " " : text + " ".repeat(width - text.length());
  }
}
