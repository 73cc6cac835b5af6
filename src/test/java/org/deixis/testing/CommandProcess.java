package org.deixis.testing;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** The command line in a process of its own: what tests loaded into theirs does not count there. */
public final class CommandProcess {
  /**
   * @param err without what the JVM itself warns of
   */
  public record Answer(int code, List<String> out, List<String> err) {}

  private CommandProcess() {}

  /**
   * @param kib no file that it writes may become larger
   * @param folder for the two streams
   */
  public static Answer runWithLargestFile(int kib, Path folder, String... arguments)
      throws IOException, InterruptedException {
    List<String> command =
        new ArrayList<>(List.of("bash", "-c", "ulimit -f " + kib + " && exec \"$@\"", "limited"));
    command.addAll(java(List.of("-XX:-UsePerfData"), arguments)); // whose file is larger
    return run(folder, command, Map.of());
  }

  /**
   * @param folder for the two streams
   * @param jvm options of the JVM
   * @param environment added to this process's
   */
  public static Answer run(
      Path folder, List<String> jvm, Map<String, String> environment, String... arguments)
      throws IOException, InterruptedException {
    return run(folder, java(jvm, arguments), environment);
  }

  /** The command line that runs ours. */
  public static List<String> java(List<String> jvm, String... arguments) {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(List.of("--add-modules", "jdk.incubator.vector", "-Xmx512m"));
    if (Runtime.version().feature() >= 22) {
      // As the launcher does: newer JDKs ask before native libraries load, over several lines.
      command.addAll(
          List.of("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"));
    }
    command.addAll(jvm);
    command.addAll(List.of("-cp", System.getProperty("java.class.path"), "org.deixis.cli.Main"));
    command.addAll(List.of(arguments));
    return command;
  }

  private static Answer run(Path folder, List<String> command, Map<String, String> environment)
      throws IOException, InterruptedException {
    Path out = folder.resolve("out");
    Path err = folder.resolve("err");
    ProcessBuilder builder =
        new ProcessBuilder(command).redirectOutput(out.toFile()).redirectError(err.toFile());
    builder.environment().put("OMP_NUM_THREADS", "1");
    builder.environment().putAll(environment);
    Process process = builder.start();
    if (!process.waitFor(2, TimeUnit.MINUTES)) {
      process.destroyForcibly();
      throw new IllegalStateException(command + " does not end");
    }
    List<String> complaints =
        Files.readAllLines(err).stream().filter(l -> !l.startsWith("WARNING:")).toList();
    return new Answer(process.exitValue(), Files.readAllLines(out), complaints);
  }
}
