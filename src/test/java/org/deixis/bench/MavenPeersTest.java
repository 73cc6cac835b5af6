package org.deixis.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** Building and choosing the peers from Maven Central; shell scripts play Maven, Java and peers. */
@EnabledOnOs({OS.LINUX, OS.MAC})
class MavenPeersTest {
  @TempDir private Path dir;
  private final ByteArrayOutputStream said = new ByteArrayOutputStream();

  private Path program(String name, String body) throws IOException {
    Path file = dir.resolve(name);
    Files.writeString(file, "#!/bin/sh\n" + body);
    Files.setPosixFilePermissions(file, PosixFilePermissions.fromString("rwx------"));
    return file;
  }

  private Path home() throws IOException {
    Path home = dir.resolve("home");
    Path sources = Files.createDirectories(home.resolve(MavenPeers.SOURCES));
    Path pom = Files.writeString(sources.resolve("pom.xml"), "<project/>");
    Files.setLastModifiedTime(pom, FileTime.fromMillis(1_000_000));
    return home;
  }

  private Path build(Path home, String maven) {
    return MavenPeers.build(home, maven, new PrintStream(said, true, StandardCharsets.UTF_8));
  }

  @Test
  void theyAreBuiltOnceAndAgainWhenTheirSourcesAreNewer() throws IOException {
    Path home = home();
    Path runs = dir.resolve("runs");
    String maven = program("mvn", "echo \"$@\" >> '" + runs + "'\n").toString();
    assertEquals(home.resolve("target/peers"), build(home, maven));
    Path pom = home.resolve(MavenPeers.SOURCES).resolve("pom.xml");
    assertEquals(List.of("-B -f " + pom + " process-classes"), Files.readAllLines(runs));
    assertTrue(said.toString(StandardCharsets.UTF_8).contains("building the peers"));
    build(home, maven);
    assertEquals(1, Files.readAllLines(runs).size());
    Files.setLastModifiedTime(pom, FileTime.fromMillis(System.currentTimeMillis() + 60_000));
    build(home, maven);
    assertEquals(2, Files.readAllLines(runs).size());
  }

  @Test
  void aBuildThatFailsIsOneLineAndNotTakenForDone() throws IOException {
    Path home = home();
    String maven =
        program(
                "mvn",
                "echo '[INFO] scanning'\necho '[ERROR] Could not transfer: Unknown host'\n"
                    + "echo '[ERROR] more'\nexit 1\n")
            .toString();
    for (int i = 0; i < 2; i++) {
      InputException e = assertThrows(InputException.class, () -> build(home, maven));
      assertEquals(
          "bench: the peers could not be built: Could not transfer: Unknown host; the log is "
              + home.resolve("target/peers/build.log"),
          e.getMessage());
    }
  }

  @Test
  void aMissingMavenOrCheckoutIsSaid() throws IOException {
    Path home = home();
    String none = dir.resolve("no-mvn").toString();
    InputException e = assertThrows(InputException.class, () -> build(home, none));
    assertEquals(
        "bench: cannot run " + none + ", which builds the peers; install Maven", e.getMessage());
    e = assertThrows(InputException.class, () -> build(dir.resolve("elsewhere"), none));
    assertTrue(e.getMessage().contains("needs a checkout"), e.getMessage());
  }

  @Test
  void aPeerThatCannotStartLeavesOneLine() throws IOException {
    Path java =
        program("java", "read -r hello\necho 'UnsatisfiedLinkError: no jnitorch' >&2\nexit 1\n");
    Bench.Options options = Bench.Options.of(true, DType.F32);
    MavenPeers peers = new MavenPeers(dir, java);
    InputException e =
        assertThrows(
            InputException.class,
            () ->
                new Bench(Backends.get("cpu"), options, Effort.QUICK, null, peers, System.out)
                    .close());
    assertEquals("LibTorch (Java) has ended: UnsatisfiedLinkError: no jnitorch", e.getMessage());
  }

  /** A row gets the peer where it has a twin; elsewhere it goes without, which is no failure. */
  @Test
  void rowsHaveThePeersThatHaveATwin() throws IOException {
    Path seen = dir.resolve("seen");
    Path java =
        program(
            "java",
            "echo \"$@ $OPENBLAS_THREAD_TIMEOUT\" >> '"
                + seen
                + "'\nwhile read -r line; do\n  case $line in\n"
                + "    *hello*) echo '{\"libtorch_java\": \"9.9\"}' ;;\n"
                + "    *prepare*'\"softmax\"'*) echo '{}' ;;\n"
                + "    *prepare*) echo '{\"twin\": false}' ;;\n"
                + "    *run*) echo '{\"seconds\": 0.5}' ;;\n"
                + "    *) echo '{}' ;;\n"
                + "  esac\ndone\n");
    Backend cpu = Backends.get("cpu");
    Effort once = new Effort(1, 0, 0);
    long before = cpu.memory().stats().live();
    Bench.Options options = Bench.Options.of(true, DType.F32);
    PrintStream out = new PrintStream(said, true, StandardCharsets.UTF_8);
    try (Bench bench = new Bench(cpu, options, once, null, new MavenPeers(dir, java), out)) {
      bench.operations(Limits.measure(cpu, DType.F32, 32, 1 << 12, once), BenchCases.tiny());
      BenchReport report = bench.report();
      assertEquals(List.of(), report.failed());
      assertEquals("9.9", report.about().get("libtorch_java"));
      long both = BenchCases.tiny().stream().filter(BenchCases.Timed::hasBackward).count();
      assertEquals(BenchCases.tiny().size() + both + 1, report.rows().size());
      for (Row row : report.rows()) {
        boolean twin = row.name().startsWith("softmax");
        assertEquals(twin ? Set.of(Row.LIBTORCH_JAVA) : Set.of(), row.peers().keySet(), row.name());
        if (twin) {
          assertEquals(0.5, row.peers().get(Row.LIBTORCH_JAVA));
        }
      }
      assertTrue(
          MarkdownTable.of(report, MarkdownTable.Part.SUMMARY).contains("LibTorch (Java) 9.9"));
    }
    assertEquals(before, cpu.memory().stats().live());
    List<String> commands = Files.readAllLines(seen);
    assertEquals(2, commands.size(), "one for products, one for the rest");
    String command = commands.get(1);
    assertTrue(command.contains("-cp " + dir.resolve("classes") + ":" + dir.resolve("lib/*")));
    assertTrue(command.contains("org.deixis.peers.LibTorchPeer serve --threads "), command);
    assertTrue(command.strip().endsWith(" 4"), command);
  }

  /**
   * Their build is its own, but what both have is one version; and ours knows nothing of theirs.
   */
  @Test
  void theBuildsAgree() throws IOException {
    String ours = Files.readString(Path.of("pom.xml"));
    assertFalse(ours.contains("<artifactId>pytorch</artifactId>"));
    Map<String, String> here = versions(ours);
    Map<String, String> theirs = versions(Files.readString(Path.of("bench-peers/pom.xml")));
    Set<String> both = new java.util.TreeSet<>(here.keySet());
    both.retainAll(theirs.keySet());
    assertEquals(
        Set.of(
            "jackson-databind",
            "javacpp",
            "maven-compiler-plugin",
            "maven-dependency-plugin",
            "onnxruntime",
            "openblas"),
        both);
    both.forEach(name -> assertEquals(here.get(name), theirs.get(name), name));
  }

  /** Versions by artifact, with properties put in. */
  private static Map<String, String> versions(String pom) {
    Map<String, String> found = new HashMap<>();
    Matcher m =
        Pattern.compile("<artifactId>([^<]+)</artifactId>\\s*<version>([^<]+)</version>")
            .matcher(pom);
    while (m.find()) {
      String version = m.group(2);
      for (Matcher p = Pattern.compile("\\$\\{([^}]+)}").matcher(version);
          p.find();
          p = Pattern.compile("\\$\\{([^}]+)}").matcher(version)) {
        Matcher value = Pattern.compile("<" + Pattern.quote(p.group(1)) + ">([^<]+)<").matcher(pom);
        assertTrue(value.find(), p.group());
        version = version.replace(p.group(), value.group(1));
      }
      found.put(m.group(1), version);
    }
    return found;
  }
}
