package org.deixis.train.report;

import java.awt.Color;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.deixis.core.AtomicWrite;
import org.deixis.data.BitMask;
import org.deixis.data.Images;
import org.deixis.data.RgbImage;
import org.deixis.eval.Metrics;
import org.deixis.infer.Overlay;
import org.knowm.xchart.BitmapEncoder;
import org.knowm.xchart.XYChart;
import org.knowm.xchart.XYChartBuilder;
import org.knowm.xchart.style.markers.SeriesMarkers;

/**
 * A report in one file: what was trained, the measures, the curves, and pictures with masks drawn
 * over them. It holds its pictures and styles itself and asks nothing of the network.
 */
public final class HtmlReport {
  private static final String STYLE =
      """
      :root{--ink:#1d2b39;--soft:#5b6b7a;--page:#fff;--card:#f4f7fa;--line:#d8e0e8;--good:#127a3d;--bad:#b3261e}
      @media(prefers-color-scheme:dark){:root{--ink:#e6ecf2;--soft:#9fb0c0;--page:#12181f;--card:#1b242d;--line:#2c3945;--good:#5fd38d;--bad:#ff8a80}}
      body{margin:0 auto;max-width:72rem;padding:1.5rem;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
      h1{font-size:1.7rem;margin:.2rem 0 1rem}h2{font-size:1.2rem;margin:2rem 0 .6rem}
      table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}
      th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
      th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600}
      .tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:.6rem}
      .tiles div{background:var(--card);border-radius:.5rem;padding:.5rem .8rem}.tiles b{display:block;font-size:1.1rem}
      .tiles span{color:var(--soft);font-size:.85rem}
      .grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr));gap:1rem}
      .grid img{width:100%;border-radius:.4rem;background:#fff}
      figure{margin:0;background:var(--card);border-radius:.6rem;padding:.7rem}
      figure div{display:grid;grid-template-columns:1fr 1fr;gap:.5rem}figure img{image-rendering:pixelated}
      figcaption{margin-top:.5rem}figcaption b{display:block}.good{color:var(--good)}.bad{color:var(--bad)}small{color:var(--soft)}
      """;

  /**
   * One expression of the gallery.
   *
   * @param truth null where the phrase names nothing
   * @param noTarget probability that it names nothing
   */
  public record GallerySample(
      String phrase,
      RgbImage picture,
      BitMask truth,
      BitMask prediction,
      double noTarget,
      boolean saysNoTarget,
      double iou) {}

  private final String title;
  private final StringBuilder summary = new StringBuilder();
  private final StringBuilder metrics = new StringBuilder();
  private final StringBuilder curves = new StringBuilder();
  private final List<GallerySample> samples = new ArrayList<>();

  private HtmlReport(String title) {
    this.title = title;
  }

  public static HtmlReport titled(String title) {
    System.setProperty("java.awt.headless", "true");
    return new HtmlReport(title);
  }

  /** Key figures, shown as tiles. */
  public HtmlReport summary(Map<String, ?> values) {
    values.forEach(
        (name, v) ->
            summary
                .append("<div><span>")
                .append(escape(name))
                .append("</span><b>")
                .append(escape(String.valueOf(v)))
                .append("</b></div>"));
    return this;
  }

  /** The measures, of all expressions and by kind. */
  public HtmlReport metrics(Metrics m) {
    metrics.append(
        "<h2>Measured on expressions it never saw</h2><div class=scroll><table><tr><th></th><th>count</th>");
    m.values()
        .keySet()
        .forEach(name -> metrics.append("<th>").append(escape(name)).append("</th>"));
    metrics.append("</tr>");
    row("all", m.expressions(), m.values());
    row("one target", m.expressions(Metrics.Kind.SINGLE), m.values(Metrics.Kind.SINGLE));
    row("several", m.expressions(Metrics.Kind.MULTI), m.values(Metrics.Kind.MULTI));
    row("none", m.expressions(Metrics.Kind.NONE), m.values(Metrics.Kind.NONE));
    metrics.append("</table></div>");
    return this;
  }

  private void row(String name, long count, Map<String, Double> values) {
    metrics.append("<tr><td>").append(name).append("</td><td>").append(count).append("</td>");
    values
        .values()
        .forEach(
            v ->
                metrics
                    .append("<td>")
                    .append(v.isNaN() ? "–" : String.format(Locale.ROOT, "%.1f", v))
                    .append("</td>"));
    metrics.append("</tr>");
  }

  /** A curve over steps; left out when it has fewer than two points. */
  public HtmlReport curve(String name, String label, List<double[]> points) {
    if (points.size() < 2) {
      return this;
    }
    XYChart chart =
        new XYChartBuilder()
            .width(640)
            .height(320)
            .title(name)
            .xAxisTitle("step")
            .yAxisTitle(label)
            .build();
    chart.getStyler().setLegendVisible(false);
    chart.getStyler().setChartBackgroundColor(Color.WHITE);
    chart.getStyler().setPlotBorderVisible(false);
    chart.getStyler().setYAxisDecimalPattern("#,##0.######");
    chart
        .addSeries(
            name,
            points.stream().mapToDouble(p -> p[0]).toArray(),
            points.stream().mapToDouble(p -> p[1]).toArray())
        .setMarker(SeriesMarkers.NONE)
        .setLineColor(new Color(0x2f6f9f));
    try {
      curves.append(
          image(BitmapEncoder.getBitmapBytes(chart, BitmapEncoder.BitmapFormat.PNG), name));
    } catch (IOException e) {
      throw new IllegalStateException("cannot draw the curve " + name, e);
    }
    return this;
  }

  public HtmlReport sample(GallerySample sample) {
    samples.add(sample);
    return this;
  }

  private static String image(byte[] png, String alt) {
    return "<img alt=\""
        + escape(alt)
        + "\" src=\"data:image/png;base64,"
        + Base64.getEncoder().encodeToString(png)
        + "\">";
  }

  private static String figure(GallerySample s) {
    RgbImage truth = s.truth == null ? s.picture : Overlay.outline(s.picture, s.truth, 20, 20, 20);
    boolean none = s.truth == null;
    boolean right = none ? s.saysNoTarget : !s.saysNoTarget && s.iou >= 0.5;
    String verdict;
    if (none) {
      verdict = s.saysNoTarget ? "names nothing, and it says so" : "names nothing, but it points";
    } else if (s.saysNoTarget) {
      verdict = "it says that this names nothing";
    } else {
      verdict = String.format(Locale.ROOT, "IoU %.2f", s.iou);
    }
    return "<figure><div>"
        + image(Images.encodePng(truth), "truth")
        + image(Images.encodePng(Overlay.draw(s.picture, s.prediction)), "prediction")
        + "</div><figcaption><b>“"
        + escape(s.phrase)
        + "”</b><span class="
        + (right ? "good" : "bad")
        + ">"
        + verdict
        + "</span> <small>no target: "
        + String.format(Locale.ROOT, "%.0f %%", 100 * s.noTarget)
        + "</small></figcaption></figure>";
  }

  /** The whole page. */
  String html() {
    StringBuilder page = new StringBuilder();
    page.append("<!doctype html><html lang=en><head><meta charset=utf-8>")
        .append("<meta name=viewport content=\"width=device-width,initial-scale=1\"><title>")
        .append(escape(title))
        .append("</title><style>")
        .append(STYLE)
        .append("</style></head><body><h1>")
        .append(escape(title))
        .append("</h1><div class=tiles>")
        .append(summary)
        .append("</div>")
        .append(metrics);
    if (!curves.isEmpty()) {
      page.append("<h2>Training</h2><div class=grid>").append(curves).append("</div>");
    }
    if (!samples.isEmpty()) {
      page.append(
              "<h2>Where it points</h2><p><small>Left the truth, outlined; right the prediction, tinted.</small></p>")
          .append("<div class=grid>");
      samples.forEach(s -> page.append(figure(s)));
      page.append("</div>");
    }
    return page.append("</body></html>\n").toString();
  }

  /** Writes the page, whole or not at all. */
  public void write(Path file) {
    AtomicWrite.bytes(file, html().getBytes(StandardCharsets.UTF_8));
  }

  static String escape(String text) {
    return text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("\"", "&quot;")
        .replace("'", "&#39;");
  }
}
