package org.deixis.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.deixis.core.InputException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** The talk with a peer, whom a shell script plays. */
@EnabledOnOs({OS.LINUX, OS.MAC})
class PeerProcessTest {
  @TempDir private Path dir;

  private Path script(String body) throws IOException {
    Path file = dir.resolve("peer.sh");
    Files.writeString(
        file,
        "while read -r line; do\n  case $line in\n"
            + "    *hello*) echo \"{\\\"torch\\\": \\\"$1 $2 $3 $4 $5 $OMP_NUM_THREADS\\\"}\" ;;\n"
            + body
            + "  esac\ndone\n");
    return file;
  }

  @Test
  void itAsksForWorkAndReadsTheTime() throws IOException {
    Path file =
        script(
            """
                *prepare*softmax*) echo '{}' ;;
                *run*'"calls":7,"warm":true'*) echo '{"seconds": 0.25}' ;;
                *facts*) echo '{"peak": 3}' ;;
                *drop*) echo '{}' ;;
            """);
    try (PeerProcess peer = new PeerProcess(Path.of("/bin/sh"), file, "cpu")) {
      String threads = Integer.toString(org.deixis.core.Env.threads());
      assertEquals(
          "serve --threads " + threads + " --device cpu " + threads,
          peer.versions().get("torch").asText());
      try (PeerProcess.Work work =
          peer.prepare("PyTorch", Map.of("kind", "softmax")).orElseThrow()) {
        assertEquals("PyTorch", work.name());
        assertEquals(0.25, work.seconds(7, true));
        assertEquals(3, work.facts().get("peak").asInt());
      }
    }
  }

  @Test
  void aPeerWithoutATwinIsLeftOut() throws IOException {
    Path file = script("    *prepare*) echo '{\"twin\": false}' ;;\n");
    try (PeerProcess peer = new PeerProcess(Path.of("/bin/sh"), file, "cpu")) {
      assertTrue(peer.prepare("PyTorch", Map.of("kind", "x")).isEmpty());
    }
  }

  @Test
  void whatThePeerCannotDoIsSaidInOneLine() throws IOException {
    Path file = script("    *) echo '{\"error\": \"KeyError: unheard of\"}' ;;\n");
    try (PeerProcess peer = new PeerProcess(Path.of("/bin/sh"), file, "cpu")) {
      InputException e =
          assertThrows(InputException.class, () -> peer.prepare("PyTorch", Map.of("kind", "x")));
      assertEquals(file + ": KeyError: unheard of", e.getMessage());
    }
  }

  @Test
  void aPeerThatDiesLeavesItsLastWords() throws IOException {
    Path file = dir.resolve("dead.sh");
    Files.writeString(file, "echo 'No module named torch' >&2\nexit 1\n");
    InputException e =
        assertThrows(
            InputException.class, () -> new PeerProcess(Path.of("/bin/sh"), file, "cpu").close());
    assertTrue(e.getMessage().contains("No module named torch"), e.getMessage());
    assertThrows(
        InputException.class,
        () -> new PeerProcess(dir.resolve("no-such-python"), file, "cpu").close());
  }
}
