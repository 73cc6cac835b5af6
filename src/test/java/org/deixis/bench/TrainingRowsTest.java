package org.deixis.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Memory;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Training rows of a card, whose memory the engine and its peers share; a shell script is one. */
class TrainingRowsTest {
  private static final Effort ONCE = new Effort(1, 0, 0);

  @TempDir private Path dir;

  private Bench bench(Backend backend, Path said) throws IOException {
    Files.writeString(
        dir.resolve("pytorch_peer.py"),
        "while read -r line; do\n  case $line in\n"
            + "    *hello*) echo '{\"torch\": \"9.9\"}' ;;\n"
            + "    *prepare*) echo prepare >> '"
            + said
            + "'; echo '{}' ;;\n"
            + "    *'\"run\"'*) echo '{\"seconds\": 0.5}' ;;\n"
            + "    *facts*) echo '{\"peak_device_mib\": 7}' ;;\n"
            + "    *drop*) echo drop >> '"
            + said
            + "'; echo '{}' ;;\n"
            + "  esac\ndone\n");
    Bench.Options options = new Bench.Options(true, null, List.of(), null, DType.F16, 1, 1, true);
    return new Bench(
        backend,
        options,
        ONCE,
        new Bench.Peers(Path.of("/bin/sh"), dir),
        null,
        new PrintStream(new ByteArrayOutputStream(), true, StandardCharsets.UTF_8));
  }

  /** A megabyte while it is open. */
  private static final class Held implements Steps {
    private final Array held;
    private final Path said;

    Held(Backend backend, Path said) {
      held = backend.allocate(Shape.of(1 << 18), DType.F32);
      this.said = said;
    }

    @Override
    public void run() {}

    @Override
    public int amount() {
      return 1;
    }

    @Override
    public void close() {
      held.release();
      try {
        Files.writeString(
            said,
            "closed\n",
            java.nio.file.StandardOpenOption.CREATE,
            java.nio.file.StandardOpenOption.APPEND);
      } catch (IOException e) {
        throw new java.io.UncheckedIOException(e);
      }
    }
  }

  private List<String> measured(Backend backend, boolean apart) throws IOException {
    Path said = dir.resolve("said");
    try (Bench bench = bench(backend, said)) {
      new TrainingRows(bench)
          .measure(
              "step", "steps/s", () -> new Held(backend, said), Map.of("kind", "x"), 1.3, ONCE);
      assertEquals(List.of(), bench.report().failed());
      List<Row> rows = bench.report().rows();
      assertEquals(2, rows.size());
      assertEquals(Map.of(Row.PYTORCH, 2.0, Row.PYTORCH_COMPILED, 2.0), rows.get(0).peers());
      assertEquals(Map.of(Row.PYTORCH, 7.0, Row.PYTORCH_COMPILED, 7.0), rows.get(1).peers());
      assertEquals(apart, rows.get(0).more().containsKey("apart"));
      assertTrue(rows.get(1).engine() >= 1, "the megabyte");
    }
    return Files.readAllLines(said);
  }

  @Test
  @Tag("cuda-host")
  void whereBothFitTheyTakeTurns() throws IOException {
    assumeTrue(CudaHost.available(), "no g++");
    assertEquals(
        List.of("prepare", "prepare", "closed", "drop", "drop"),
        measured(CudaHost.backend(), false));
  }

  @Test
  @Tag("cuda-host")
  void whereTheyDoNotEachHasTheDeviceAlone() throws IOException {
    assumeTrue(CudaHost.available(), "no g++");
    Backend backend = CudaHost.backend();
    long cap = backend.memory().stats().cap();
    backend.memory().cap(backend.memory().stats().live() + (3 << 20));
    try {
      assertEquals(
          List.of("closed", "prepare", "drop", "prepare", "drop"), measured(backend, true));
    } finally {
      backend.memory().cap(cap);
    }
  }

  @Test
  void aPeerIsTakenToNeedHalfAsMuchAgain() {
    Memory.Stats stats = new Memory.Stats(0, 40, 40, 100);
    assertFalse(TrainingRows.tooSmall(stats, 1));
    assertTrue(TrainingRows.tooSmall(stats, 2));
    assertFalse(TrainingRows.tooSmall(new Memory.Stats(0, 99, 99, 100), 0));
  }
}
