package org.deixis.eval;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MetricsTest {
  private static final ObjectMapper JSON = new ObjectMapper();

  private static JsonNode golden() throws IOException {
    String dir = System.getProperty("golden.dir");
    try (InputStream in =
        dir != null
            ? Files.newInputStream(Path.of(dir, "metrics.json"))
            : MetricsTest.class.getResourceAsStream("/golden/metrics.json")) {
      return JSON.readTree(in);
    }
  }

  private static byte[] bits(JsonNode rows) {
    StringBuilder all = new StringBuilder();
    rows.forEach(r -> all.append(r.asText()));
    byte[] out = new byte[all.length()];
    for (int i = 0; i < out.length; i++) {
      out[i] = (byte) (all.charAt(i) - '0');
    }
    return out;
  }

  private static Metrics count(JsonNode samples, int from, int to) {
    Metrics m = new Metrics();
    for (int i = from; i < to; i++) {
      JsonNode s = samples.get(i);
      m.add(
          bits(s.get("prediction")),
          bits(s.get("truth")),
          s.get("says_no_target").asBoolean(),
          s.get("no_target").asBoolean() ? Metrics.Kind.NONE : Metrics.Kind.SINGLE);
    }
    return m;
  }

  @Test
  @Tag("golden")
  void equalsThePublishedCount() throws IOException {
    JsonNode golden = golden();
    Metrics m = count(golden.get("samples"), 0, golden.get("samples").size());
    golden
        .get("expected")
        .fields()
        .forEachRemaining(
            e ->
                assertEquals(
                    e.getValue().asDouble(), m.values().get(e.getKey()), 1e-9, e.getKey()));
  }

  @Test
  void partsMergeToTheWhole() throws IOException {
    JsonNode samples = golden().get("samples");
    Metrics whole = count(samples, 0, 200);
    Metrics part = count(samples, 0, 77);
    part.merge(count(samples, 77, 200));
    whole.values().forEach((k, v) -> assertEquals(v, part.values().get(k), 1e-9, k));
    assertEquals(200, part.expressions());
  }

  @Test
  void theFileHasTheNamesAndNullWhereNothingWasCounted(@TempDir Path dir) throws IOException {
    Metrics m = new Metrics();
    m.add(new byte[] {1, 0}, new byte[] {1, 1}, false, Metrics.Kind.MULTI);
    JsonNode file = JSON.readTree(Files.readAllBytes(MetricsFile.write(dir, m)));
    assertEquals(50, file.get("gIoU").asDouble());
    assertTrue(file.get("N-acc").isNull());
    assertEquals(100, file.get("multi").get("Pr@0.5").asDouble());
    assertEquals(0, file.get("single").get("expressions").asInt());
    try (var files = Files.list(dir)) {
      assertEquals(1, files.count(), "nothing but the file is left");
    }
  }
}
