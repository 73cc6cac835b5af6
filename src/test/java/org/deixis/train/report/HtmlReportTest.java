package org.deixis.train.report;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.awt.image.BufferedImage;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.imageio.ImageIO;
import org.deixis.data.BitMask;
import org.deixis.data.RgbImage;
import org.deixis.eval.Metrics;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class HtmlReportTest {
  private static final Pattern PICTURE =
      Pattern.compile("data:image/(\\w+);base64,([A-Za-z0-9+/=]+)");

  @TempDir Path dir;

  private String report() throws IOException {
    BitMask mask = new BitMask(2, 3, new byte[] {1, 0, 0, 0, 1, 1});
    RgbImage picture = new RgbImage(2, 3, new byte[18]);
    Metrics metrics = new Metrics();
    metrics.add(new byte[] {1, 1, 0, 0}, new byte[] {1, 0, 0, 0}, false, Metrics.Kind.SINGLE);
    metrics.add(new byte[4], new byte[4], true, Metrics.Kind.NONE);
    Path file = dir.resolve("report.html");
    HtmlReport.titled("a <title>")
        .summary(Map.of("device", "<cpu>"))
        .metrics(metrics)
        .curve("Loss", "loss", List.of(new double[] {1, 2}, new double[] {2, 1}))
        .sample(
            new HtmlReport.GallerySample(
                "<script>alert('x')</script> & \"all\"", picture, mask, mask, 0.25, false, 0.5))
        .sample(
            new HtmlReport.GallerySample(
                "the unicorn", picture, null, BitMask.empty(2, 3), 0.875, true, 1))
        .write(file);
    return Files.readString(file);
  }

  @Test
  void textOfStrangersIsText() throws IOException {
    String html = report();
    assertFalse(html.contains("<script>alert"), "a phrase became a script");
    assertTrue(html.contains("&lt;script&gt;"), "the phrase is not shown");
    assertFalse(html.contains("<cpu>"));
    assertFalse(html.contains("a <title>"));
  }

  @Test
  void picturesAreInTheFileAndNothingIsFetched() throws IOException {
    String html = report();
    List<BufferedImage> pictures = new ArrayList<>();
    Matcher m = PICTURE.matcher(html);
    while (m.find()) {
      byte[] bytes = Base64.getDecoder().decode(m.group(2));
      BufferedImage image = ImageIO.read(new ByteArrayInputStream(bytes));
      assertNotNull(image, m.group(1) + " that does not decode");
      pictures.add(image);
    }
    // A curve, and for each of two samples the truth and what was found.
    assertEquals(5, pictures.size());
    assertFalse(
        Pattern.compile("(?:src|href)\\s*=\\s*[\"']?(?:https?:)?//").matcher(html).find(),
        "something is fetched from the network");
  }

  @Test
  void measuresAndAnswersAreThere() throws IOException {
    String html = report();
    // IoU ½ for the one, 1 for the recognised one without a target: gIoU 75, cIoU 50, N-acc 100.
    for (String value : new String[] {"75.0", "50.0", "100.0"}) {
      assertTrue(html.contains(">" + value + "<"), value + " is not in the table");
    }
    assertTrue(html.contains("the unicorn"));
    assertTrue(html.contains("IoU 0.50"));
  }
}
