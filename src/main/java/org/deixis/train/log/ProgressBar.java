package org.deixis.train.log;

import java.io.PrintStream;
import java.util.Locale;

/**
 * How far a long task is: a bar that is redrawn on a terminal, a plain line now and then elsewhere.
 */
public final class ProgressBar {
  private static final int WIDTH = 24;
  private static final long REDRAW_NANOS = 200_000_000L;
  private static final long LINE_NANOS = 10_000_000_000L;

  private final PrintStream out;
  private final String task;
  private final long total;
  private final boolean terminal;
  private final long begun = System.nanoTime();
  private final long firstDone;
  private long drawn;
  private boolean open;

  /**
   * @param out where to write; null is silent
   * @param done how much was done before this process, for a resumed run
   */
  public ProgressBar(PrintStream out, String task, long done, long total) {
    this.out = out;
    this.task = task;
    this.total = total;
    this.firstDone = done;
    this.terminal = out != null && System.console() != null && System.getenv("TERM") != null;
  }

  /**
   * @param note what else to say, such as the loss
   */
  public void update(long done, String note) {
    if (out == null) {
      return;
    }
    long now = System.nanoTime();
    boolean last = done >= total;
    if (!last && now - drawn < (terminal ? REDRAW_NANOS : LINE_NANOS)) {
      return;
    }
    drawn = now;
    String line = line(done, note, (now - begun) / 1e9);
    if (terminal) {
      out.print("\r\u001b[2K" + line);
      open = true;
      out.flush();
    } else {
      out.println(line);
    }
  }

  String line(long done, String note, double seconds) {
    double rate = seconds > 0 ? (done - firstDone) / seconds : 0;
    int filled = (int) (total == 0 ? WIDTH : WIDTH * Math.min(done, total) / total);
    return String.format(
        Locale.ROOT,
        "%s [%s%s] %d/%d  %.1f/s  %s left  %s",
        task,
        "#".repeat(filled),
        ".".repeat(WIDTH - filled),
        done,
        total,
        rate,
        rate > 0 ? duration((total - done) / rate) : "?",
        note);
  }

  static String duration(double seconds) {
    long s = Math.round(seconds);
    return s < 60
        ? s + " s"
        : s < 3600
            ? String.format("%d:%02d min", s / 60, s % 60)
            : String.format("%d:%02d h", s / 3600, s / 60 % 60);
  }

  /** Ends the bar's line. */
  public void close() {
    if (open) {
      out.println();
      open = false;
    }
  }
}
