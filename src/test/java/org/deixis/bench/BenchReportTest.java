package org.deixis.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.core.InputException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Figures: ratios, quartiles, and their way into files, tables and pictures. */
class BenchReportTest {
  @TempDir private Path dir;

  private static Row row(Row.Group group, String name, String unit, double ours, double theirs) {
    return Row.of(group, name, unit, ours).peer(Row.PYTORCH, theirs);
  }

  private static BenchReport report() {
    Map<String, String> about = new LinkedHashMap<>();
    about.put("date", "2026-01-02");
    about.put("machine", "a machine, 2 cores");
    about.put("threads", "2");
    about.put("dtype", "f32");
    about.put("torch", "9.9");
    return new BenchReport(
        about,
        Map.of("gflops", 400.0, "gbs", 40.0),
        List.of(
            row(Row.Group.TRAINING, "a step", "pictures/s", 30, 20).wants(Row.PYTORCH, 1.2),
            row(Row.Group.OPERATIONS, "an operation", "s", 0.002, 0.001)
                .with("gflops", 12.5)
                .with("gbs", 8)
                .with("share_of_limit", 0.25),
            Row.of(Row.Group.FOOTPRINT, "memory", "MiB", 160)));
  }

  @Test
  void filesOfOneRunBecomeOne() throws IOException {
    BenchReport one = report();
    one.failed().add("a row: why");
    BenchReport two =
        new BenchReport(
            Map.of("machine", "a machine, 2 cores", "dtype", "f32", "java", "17"),
            Map.of("gbs", 41.0),
            List.of(Row.of(Row.Group.INFERENCE, "a mask", "s", 1)),
            List.of("another: why"));
    List<Path> files = List.of(dir.resolve("one"), dir.resolve("two"));
    BenchReport all = BenchReport.together(files, List.of(one, two));
    BenchReport read = BenchReport.read(all.write(dir));
    assertEquals(all, read);
    assertEquals(4, read.rows().size());
    assertEquals(List.of("a row: why", "another: why"), read.failed());
    assertEquals(Map.of("gflops", 400.0, "gbs", 41.0), read.limits());
    assertEquals("17", read.about().get("java"));
    assertTrue(
        MarkdownTable.of(read, MarkdownTable.Part.SUMMARY).contains("Not measured: another: why"));
    two.about().put("dtype", "f16");
    String message =
        assertThrows(InputException.class, () -> BenchReport.together(files, List.of(one, two)))
            .getMessage();
    assertTrue(message.contains("two is of dtype 'f16'"), message);
  }

  @Test
  void aRatioAboveOneMeansThatTheEngineIsAhead() {
    assertEquals(1.5, row(Row.Group.TRAINING, "", "pictures/s", 30, 20).ratio(Row.PYTORCH));
    assertEquals(0.5, row(Row.Group.OPERATIONS, "", "s", 0.002, 0.001).ratio(Row.PYTORCH));
    assertEquals(4, row(Row.Group.FOOTPRINT, "", "MiB", 100, 400).ratio(Row.PYTORCH));
    assertTrue(Double.isNaN(Row.of(Row.Group.FOOTPRINT, "", "s", 1).ratio(Row.PYTORCH)));
  }

  @Test
  void aTimeBecomesARateForEverybody() {
    Row rate = row(Row.Group.TRAINING, "", "s", 0.5, 2).asRate("expressions/s", 32);
    assertEquals(64, rate.engine());
    assertEquals(16, rate.peers().get(Row.PYTORCH));
    assertEquals(4, rate.ratio(Row.PYTORCH));
  }

  @Test
  void medianAndQuartilesOfRounds() {
    Rounds.Timing odd = Rounds.Timing.of(new double[] {5, 1, 3, 2, 4});
    assertEquals(new Rounds.Timing(3, 2, 4), odd);
    Rounds.Timing even = Rounds.Timing.of(new double[] {4, 1, 2, 3});
    assertEquals(new Rounds.Timing(2.5, 1.75, 3.25), even);
  }

  @Test
  void contendersTakeTurnsAndShortWorkIsRepeatedAndWarmed() {
    StringBuilder order = new StringBuilder();
    Map<String, Rounds.Timing> timings =
        Rounds.run(List.of(fake("a", 0.001, order), fake("b", 0.5, order)), new Effort(3, 0, 0.01));
    assertEquals("a1 b1 a10w b1 a10w b1 a10w b1 ", order.toString());
    assertEquals(0.001, timings.get("a").median());
    assertEquals(0.5, timings.get("b").median());
  }

  private static Contender fake(String name, double seconds, StringBuilder order) {
    return new Contender() {
      @Override
      public String name() {
        return name;
      }

      @Override
      public double seconds(int calls, boolean warm) {
        order.append(name).append(calls).append(warm ? "w " : " ");
        return seconds;
      }
    };
  }

  @Test
  void whatIsWrittenIsRead() throws IOException {
    Path file = report().write(dir.resolve("made"));
    assertEquals(report(), BenchReport.read(file));
    JsonNode first = new ObjectMapper().readTree(file.toFile()).get("rows").get(0);
    assertEquals(1.5, first.get("ratios").get(Row.PYTORCH).asDouble());
    assertEquals("training", first.get("group").asText());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "{",
        "[]",
        "{\"rows\": 3}",
        "{\"rows\": [{}]}",
        "{\"rows\": [{\"name\": \"a\", \"unit\": \"s\", \"group\": \"operations\"}]}",
        "{\"rows\": [{\"name\": \"a\", \"unit\": \"s\", \"group\": \"none\", \"engine\": 1}]}"
      })
  void otherFilesAreRefusedInOneLine(String text) throws IOException {
    Path file = dir.resolve("bench.json");
    Files.writeString(file, text);
    InputException e = assertThrows(InputException.class, () -> BenchReport.read(file));
    assertTrue(e.getMessage().startsWith(file.toString()), e.getMessage());
  }

  @Test
  void theSummaryLeavesOutOperationsThatNothingIsWantedOf() {
    assertEquals(
        """
        | what | Deixis | others in the same run | ratio | wanted |
        | --- | --- | --- | --- | --- |
        | a step | 30.0 pictures/s | PyTorch 20.0 pictures/s | 1.50 × | 1.20 × |
        | memory | 160 MiB |  |  |  |

        Run of 2026-01-02, a machine, 2 cores, 2 threads, f32, PyTorch 9.9.
        """,
        MarkdownTable.of(report(), MarkdownTable.Part.SUMMARY));
  }

  @Test
  void operationsStandBesideTheLimit() {
    String table = MarkdownTable.of(report(), MarkdownTable.Part.OPERATIONS);
    assertTrue(
        table.contains("| an operation | 2.00 ms | 12.5 | 8.00 | 25 % | PyTorch 1.00 ms, 0.50 × |"),
        table);
    assertTrue(table.contains("400 GFLOP/s, 40.0 GB/s"), table);
  }

  @Test
  void aTableGoesBetweenItsComments() throws IOException {
    Path document = dir.resolve("page.md");
    Files.writeString(
        document,
        "before\n<!-- bench summary: begin -->\nold\n<!-- bench summary: end -->\nafter\n");
    MarkdownTable.into(document, report());
    String text = Files.readString(document);
    assertTrue(text.startsWith("before\n<!--") && text.endsWith("-->\nafter\n"), text);
    assertEquals(
        MarkdownTable.of(report(), MarkdownTable.Part.SUMMARY),
        MarkdownTable.within(document, text, MarkdownTable.Part.SUMMARY));
    Files.writeString(document, "nothing");
    assertThrows(InputException.class, () -> MarkdownTable.into(document, report()));
    assertEquals("nothing", Files.readString(document));
  }

  @Test
  void documentsSayWhatTheCommittedRunSays() throws IOException {
    BenchReport measured = BenchReport.read(Path.of("docs/measured/bench.json"));
    same(Path.of("README.md"), measured, MarkdownTable.Part.SUMMARY);
    same(Path.of("docs/performance.md"), measured, MarkdownTable.Part.OPERATIONS);
  }

  private static void same(Path document, BenchReport measured, MarkdownTable.Part part)
      throws IOException {
    assertEquals(
        MarkdownTable.of(measured, part),
        MarkdownTable.within(document, Files.readString(document), part),
        document + ": run deixis bench --table docs/measured/bench.json --into " + document);
  }

  @Test
  void barsGoRightWhereTheEngineIsAheadAndLeftWhereNot() {
    BufferedImage chart = RatioChart.draw(report());
    int blue = 0x2f6fb0;
    int[] ahead = span(chart, blue, 84, 110);
    int[] behind = span(chart, blue, 110, 140);
    assertTrue(ahead[0] >= behind[1] - 1, "one ends where the other begins");
    assertTrue(behind[1] - behind[0] > ahead[1] - ahead[0], "a half is further from 1 than 1.5");
  }

  /** First and last column of a colour between two rows. */
  private static int[] span(BufferedImage image, int colour, int top, int bottom) {
    int first = Integer.MAX_VALUE;
    int last = -1;
    for (int y = top; y < bottom; y++) {
      for (int x = 0; x < image.getWidth(); x++) {
        if ((image.getRGB(x, y) & 0xffffff) == colour) {
          first = Math.min(first, x);
          last = Math.max(last, x);
        }
      }
    }
    assertTrue(last >= 0, "no bar between rows " + top + " and " + bottom);
    return new int[] {first, last};
  }

  @Test
  void nativesOfAPlatformAreNoLibraryMore() {
    assertEquals(
        "dnnl-3.11-1.5.13.jar", FootprintRows.artifact("dnnl-3.11-1.5.13-linux-x86_64.jar"));
    assertEquals("picocli-4.7.7.jar", FootprintRows.artifact("picocli-4.7.7.jar"));
  }

  @Test
  void masksAreComparedByWhatIsPositive() {
    assertEquals(0.5, GuideRows.iou(new float[] {1, 2, -1}, new float[] {1, -2, -3}));
    assertEquals(1, GuideRows.iou(new float[] {-1}, new float[] {-2}));
    assertEquals(0.5, GuideRows.difference(new float[] {3, 6}, new float[] {0, 10}));
  }
}
