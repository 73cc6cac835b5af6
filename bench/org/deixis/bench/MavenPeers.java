package org.deixis.bench;

import java.io.File;
import java.io.IOException;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.deixis.core.InputException;

/**
 * Peers that Maven Central has, each in a Java process of its own: ONNX Runtime's Java package, and
 * LibTorch through {@code org.bytedeco:pytorch}. Their programs and dependencies are a build of
 * their own, {@code bench-peers}, so that ours needs neither.
 */
public final class MavenPeers {
  static final String SOURCES = "bench-peers";
  private static final String BUILT = ".built";

  private final Path folder;
  private final Path java;

  /**
   * @param folder of their {@code classes} and {@code lib}
   * @param java runs them
   */
  MavenPeers(Path folder, Path java) {
    this.folder = folder;
    this.java = java;
  }

  /**
   * The peers of this machine, built first if they are not, or are older than their sources.
   *
   * @param home of Deixis: has {@code bench-peers} and {@code target}
   * @param err where it is said that the build takes a while
   * @throws InputException in one line if they cannot be built here
   */
  public static MavenPeers built(Path home, PrintStream err) {
    String system = System.getProperty("os.name") + " " + System.getProperty("os.arch");
    if (!system.equals("Linux amd64")) {
      throw new InputException(
          "bench: --maven-peers has peers for Linux amd64 only, and this is " + system);
    }
    Path java = Path.of(System.getProperty("java.home"), "bin", "java");
    return new MavenPeers(build(home, "mvn", err), java);
  }

  /**
   * @param maven its program
   * @return the folder of what was built
   */
  static Path build(Path home, String maven, PrintStream err) {
    Path pom = home.resolve(SOURCES).resolve("pom.xml");
    if (!Files.isRegularFile(pom)) {
      throw new InputException(
          "bench: --maven-peers finds no " + pom + "; it needs a checkout of Deixis");
    }
    Path folder = home.resolve("target").resolve("peers");
    Path stamp = folder.resolve(BUILT);
    try {
      if (Files.exists(stamp) && newest(pom.getParent()).compareTo(modified(stamp)) < 0) {
        return folder;
      }
      Files.createDirectories(folder);
      Path log = folder.resolve("build.log");
      err.println("deixis: building the peers; the first time fetches some 200 MB");
      ProcessBuilder builder =
          new ProcessBuilder(maven, "-B", "-f", pom.toString(), "process-classes")
              .redirectErrorStream(true)
              .redirectOutput(log.toFile());
      if (run(builder, maven) != 0) {
        throw new InputException(
            "bench: the peers could not be built: %s; the log is %s".formatted(error(log), log));
      }
      Files.writeString(stamp, "");
      return folder;
    } catch (IOException e) {
      throw new InputException("bench: cannot build the peers in " + folder + ": " + e, e);
    }
  }

  private static int run(ProcessBuilder builder, String maven) {
    Process process;
    try {
      process = builder.start();
    } catch (IOException e) {
      throw new InputException(
          "bench: cannot run %s, which builds the peers; install Maven".formatted(maven), e);
    }
    try {
      process.getOutputStream().close();
      return process.waitFor();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (InterruptedException e) {
      process.destroy();
      Thread.currentThread().interrupt();
      throw new InputException("interrupted while the peers were built");
    }
  }

  private static FileTime newest(Path sources) throws IOException {
    FileTime newest = FileTime.fromMillis(0);
    try (Stream<Path> files = Files.walk(sources)) {
      for (Path file : files.filter(Files::isRegularFile).toList()) {
        FileTime time = modified(file);
        newest = time.compareTo(newest) > 0 ? time : newest;
      }
    }
    return newest;
  }

  private static FileTime modified(Path file) throws IOException {
    return Files.getLastModifiedTime(file);
  }

  /** Maven's first error. */
  private static String error(Path log) throws IOException {
    String mark = "[ERROR] ";
    return Files.readAllLines(log).stream()
        .filter(line -> line.startsWith(mark))
        .map(line -> line.substring(mark.length()).strip())
        .findFirst()
        .orElse("Maven says no more");
  }

  PeerProcess onnxRuntime() {
    return start(Row.ONNX_RUNTIME_JAVA, "org.deixis.peers.OnnxRuntimePeer", Map.of());
  }

  /**
   * LibTorch's operations spin in OpenMP's threads, and its products in those of the OpenBLAS that
   * the bindings bring. With each other's defaults they take each other's cores: a product of
   * 3136×384×128 took 8.3 ms on two, and 1.8 ms so. Everything else is quicker with the defaults.
   *
   * @param products whether it is asked for products
   */
  PeerProcess libTorch(boolean products) {
    return start(
        Row.LIBTORCH_JAVA,
        "org.deixis.peers.LibTorchPeer",
        products ? Map.of("GOMP_SPINCOUNT", "1000", "OPENBLAS_THREAD_TIMEOUT", "4") : Map.of());
  }

  private PeerProcess start(String name, String main, Map<String, String> environment) {
    List<String> command = new ArrayList<>();
    command.add(java.toString());
    if (Runtime.version().feature() >= 22) {
      command.add("--enable-native-access=ALL-UNNAMED");
    }
    // As Deixis runs itself: else JavaCPP reads the process's memory at every allocation.
    command.add("-Dorg.bytedeco.javacpp.maxPhysicalBytes=0");
    command.add("-Dorg.bytedeco.javacpp.maxBytes=0");
    command.add("-cp");
    command.add(
        folder.resolve("classes") + File.pathSeparator + folder.resolve("lib").resolve("*"));
    command.add(main);
    return new PeerProcess(name, command, environment, "cpu", true);
  }
}
