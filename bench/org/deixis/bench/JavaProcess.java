package org.deixis.bench;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.deixis.core.Env;
import org.deixis.core.InputException;

/** Another virtual machine with this one's flags and class path. */
final class JavaProcess {
  /**
   * @param seconds from its start to its end
   */
  record Result(String output, double seconds) {}

  private JavaProcess() {}

  /** Runs a main class with arguments; an error if it fails. */
  static Result run(List<String> classAndArguments) {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    for (String flag : ManagementFactory.getRuntimeMXBean().getInputArguments()) {
      if (!flag.startsWith("-agentlib") && !flag.startsWith("-javaagent")) {
        command.add(flag);
      }
    }
    command.add("-Ddeixis.threads=" + Env.threads());
    command.addAll(List.of("-cp", System.getProperty("java.class.path")));
    command.addAll(classAndArguments);
    Path errors = null;
    try {
      errors = Files.createTempFile("deixis-bench", ".log");
      long start = System.nanoTime();
      Process process = new ProcessBuilder(command).redirectError(errors.toFile()).start();
      process.getOutputStream().close();
      String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      int code = process.waitFor();
      double seconds = (System.nanoTime() - start) / 1e9;
      if (code != 0) {
        throw new InputException(
            "%s ended with %d: %s"
                .formatted(
                    String.join(" ", classAndArguments), code, Files.readString(errors).strip()));
      }
      return new Result(output, seconds);
    } catch (IOException e) {
      throw new InputException("cannot run " + command.get(0) + ": " + e.getMessage(), e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new InputException("interrupted while " + classAndArguments.get(0) + " ran");
    } finally {
      if (errors != null) {
        errors.toFile().delete();
      }
    }
  }
}
