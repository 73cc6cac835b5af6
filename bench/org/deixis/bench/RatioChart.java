package org.deixis.bench;

import java.awt.BasicStroke;
import java.awt.Color;
import java.awt.Font;
import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import javax.imageio.ImageIO;
import org.deixis.core.InputException;

/**
 * Bars of how many times as good the engine is as each peer, on a logarithmic axis around 1, where
 * both are alike. Drawn by hand: XChart has no horizontal bars, and names are too long to stand.
 */
final class RatioChart {
  static final String FILE = "chart.png";

  private static final Color[] COLOURS = {
    new Color(0x2f6fb0),
    new Color(0xd9822b),
    new Color(0x4b9b5c),
    new Color(0x8a5fb0),
    new Color(0xb5484b),
    new Color(0x3aa6a6),
    new Color(0x7a7a7a)
  };
  private static final int WIDTH = 1200;
  private static final int NAMES = 520;
  private static final int RIGHT = 70;
  private static final int TOP = 84;
  private static final int BAR = 15;
  private static final int GAP = 9;
  private static final double[] TICKS = {0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64};

  private record Bar(String label, String peer, double ratio) {}

  private RatioChart() {}

  static void write(BenchReport report, Path file) {
    try {
      if (!ImageIO.write(draw(report), "png", file.toFile())) {
        throw new IllegalStateException("this JDK writes no PNG");
      }
    } catch (IOException e) {
      throw new InputException("cannot write " + file + ": " + e.getMessage(), e);
    }
  }

  static BufferedImage draw(BenchReport report) {
    List<Bar> bars = new ArrayList<>();
    Set<String> peers = new LinkedHashSet<>();
    int rows = 0;
    for (Row row : report.rows()) {
      String label = row.name();
      for (String peer : row.peers().keySet()) {
        double ratio = row.ratio(peer);
        if (ratio > 0 && Double.isFinite(ratio)) {
          bars.add(new Bar(label, peer, ratio));
          peers.add(peer);
          rows += label.isEmpty() ? 0 : 1;
          label = "";
        }
      }
    }
    int height = TOP + bars.size() * (BAR + 2) + rows * GAP + 40;
    BufferedImage image = new BufferedImage(WIDTH, height, BufferedImage.TYPE_INT_RGB);
    Graphics2D g = image.createGraphics();
    g.setRenderingHint(RenderingHints.KEY_ANTIALIASING, RenderingHints.VALUE_ANTIALIAS_ON);
    g.setRenderingHint(
        RenderingHints.KEY_TEXT_ANTIALIASING, RenderingHints.VALUE_TEXT_ANTIALIAS_ON);
    g.setColor(Color.WHITE);
    g.fillRect(0, 0, WIDTH, height);
    double low = Math.min(0.5, bars.stream().mapToDouble(Bar::ratio).min().orElse(1) * 0.9);
    double high = Math.max(2, bars.stream().mapToDouble(Bar::ratio).max().orElse(1) * 1.1);
    legend(g, report, List.copyOf(peers));
    axis(g, low, high, height);
    int y = TOP;
    for (Bar bar : bars) {
      y += bar.label.isEmpty() ? 0 : GAP;
      bar(g, bar, y, low, high, COLOURS[List.copyOf(peers).indexOf(bar.peer) % COLOURS.length]);
      y += BAR + 2;
    }
    g.setColor(Color.BLACK);
    g.setStroke(new BasicStroke(2));
    int one = x(1, low, high);
    g.drawLine(one, TOP, one, height - 30);
    g.dispose();
    return image;
  }

  private static int x(double ratio, double low, double high) {
    double share = Math.log(ratio / low) / Math.log(high / low);
    return NAMES + (int) Math.round(share * (WIDTH - NAMES - RIGHT));
  }

  private static void legend(Graphics2D g, BenchReport report, List<String> peers) {
    g.setColor(Color.BLACK);
    g.setFont(new Font(Font.SANS_SERIF, Font.BOLD, 18));
    g.drawString("How many times as good as its peers Deixis is (right of 1: better)", 16, 28);
    g.setFont(new Font(Font.SANS_SERIF, Font.PLAIN, 13));
    g.drawString(
        "%s; %s threads; %s"
            .formatted(
                report.about().getOrDefault("machine", "an unknown machine"),
                report.about().getOrDefault("threads", "?"),
                report.about().getOrDefault("date", "no date")),
        16,
        48);
    int x = 16;
    for (int i = 0; i < peers.size(); i++) {
      g.setColor(COLOURS[i % COLOURS.length]);
      g.fillRect(x, 58, 14, 14);
      g.setColor(Color.BLACK);
      g.drawString(peers.get(i), x + 20, 70);
      x += 40 + g.getFontMetrics().stringWidth(peers.get(i));
    }
  }

  private static void axis(Graphics2D g, double low, double high, int height) {
    g.setFont(new Font(Font.SANS_SERIF, Font.PLAIN, 13));
    for (double tick : TICKS) {
      if (tick >= low && tick <= high) {
        int x = x(tick, low, high);
        g.setColor(new Color(0xdddddd));
        g.drawLine(x, TOP, x, height - 30);
        g.setColor(Color.DARK_GRAY);
        String text = tick < 1 ? Double.toString(tick) : String.format(Locale.ROOT, "%.0f", tick);
        g.drawString(text, x - g.getFontMetrics().stringWidth(text) / 2, height - 12);
      }
    }
  }

  private static void bar(Graphics2D g, Bar bar, int y, double low, double high, Color colour) {
    g.setFont(new Font(Font.SANS_SERIF, Font.PLAIN, 13));
    g.setColor(Color.BLACK);
    String label = bar.label;
    while (g.getFontMetrics().stringWidth(label) > NAMES - 24) {
      label = label.substring(0, label.length() - 2) + "…";
    }
    g.drawString(label, NAMES - 10 - g.getFontMetrics().stringWidth(label), y + BAR - 3);
    int one = x(1, low, high);
    int end = x(bar.ratio, low, high);
    g.setColor(colour);
    g.fillRect(Math.min(one, end), y, Math.max(1, Math.abs(end - one)), BAR);
    g.setColor(Color.BLACK);
    String value = Quantity.digits(bar.ratio);
    g.drawString(value, Math.max(one, end) + 5, y + BAR - 3);
  }
}
