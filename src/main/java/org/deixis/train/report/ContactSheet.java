package org.deixis.train.report;

import java.awt.Color;
import java.awt.Font;
import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.List;
import java.util.Locale;
import javax.imageio.ImageIO;
import org.deixis.data.RgbImage;
import org.deixis.infer.Overlay;

/** Predictions side by side in one picture: each phrase over what the model points at. */
public final class ContactSheet {
  private static final int CELL = 220;
  private static final int CAPTION = 44;
  private static final int GAP = 12;

  private ContactSheet() {}

  /** PNG bytes of the samples in rows of {@code columns}. */
  public static byte[] png(List<HtmlReport.GallerySample> samples, int columns) {
    System.setProperty("java.awt.headless", "true");
    int rows = (samples.size() + columns - 1) / columns;
    BufferedImage sheet =
        new BufferedImage(
            columns * (CELL + GAP) + GAP,
            rows * (CELL + CAPTION + GAP) + GAP,
            BufferedImage.TYPE_INT_RGB);
    Graphics2D g = sheet.createGraphics();
    g.setColor(Color.WHITE);
    g.fillRect(0, 0, sheet.getWidth(), sheet.getHeight());
    g.setRenderingHint(
        RenderingHints.KEY_TEXT_ANTIALIASING, RenderingHints.VALUE_TEXT_ANTIALIAS_ON);
    for (int i = 0; i < samples.size(); i++) {
      HtmlReport.GallerySample s = samples.get(i);
      int x = GAP + i % columns * (CELL + GAP);
      int y = GAP + i / columns * (CELL + CAPTION + GAP);
      g.setColor(new Color(0x1d2b39));
      g.setFont(new Font(Font.SANS_SERIF, Font.BOLD, 13));
      g.drawString(fitted(g, "“" + s.phrase() + "”", CELL), x, y + 15);
      g.setFont(new Font(Font.SANS_SERIF, Font.PLAIN, 12));
      g.setColor(new Color(0x5b6b7a));
      g.drawString(
          s.saysNoTarget()
              ? String.format(Locale.ROOT, "nothing (%.0f %%)", 100 * s.noTarget())
              : s.truth() == null
                  ? "names nothing"
                  : String.format(Locale.ROOT, "IoU %.2f", s.iou()),
          x,
          y + 33);
      g.drawImage(
          buffered(Overlay.draw(s.picture(), s.prediction())),
          x,
          y + CAPTION - 4,
          CELL,
          CELL,
          null);
    }
    g.dispose();
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try {
      ImageIO.write(sheet, "png", out);
    } catch (IOException e) {
      throw new IllegalStateException("cannot encode the sheet", e);
    }
    return out.toByteArray();
  }

  /** The text, cut where it would be wider than the cell. */
  private static String fitted(Graphics2D g, String text, int width) {
    String fit = text;
    while (fit.length() > 4 && g.getFontMetrics().stringWidth(fit) > width) {
      fit = fit.substring(0, fit.length() - 2) + "…";
    }
    return fit;
  }

  private static BufferedImage buffered(RgbImage image) {
    BufferedImage out =
        new BufferedImage(image.width(), image.height(), BufferedImage.TYPE_INT_RGB);
    for (int y = 0; y < image.height(); y++) {
      for (int x = 0; x < image.width(); x++) {
        int at = (y * image.width() + x) * 3;
        byte[] d = image.data();
        out.setRGB(x, y, (d[at] & 0xff) << 16 | (d[at + 1] & 0xff) << 8 | d[at + 2] & 0xff);
      }
    }
    return out;
  }
}
