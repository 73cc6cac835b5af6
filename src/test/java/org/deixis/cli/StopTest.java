package org.deixis.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.deixis.io.HostTensor;
import org.deixis.io.Safetensors;
import org.deixis.testing.CommandProcess;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.DisabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;

/** A run that is told to stop, as Ctrl-C does it, in a process of its own. */
@DisabledOnOs(value = OS.WINDOWS, disabledReason = "stopping a process is killing it there")
class StopTest {
  @TempDir Path dir;

  private static Map<String, HostTensor> checkpoint(Path run, int step) {
    return Safetensors.read(run.resolve("checkpoints/step-%08d.safetensors".formatted(step)))
        .tensors();
  }

  @Test
  void endsWithACheckpointThatEqualsARunOfAsManySteps() throws IOException, InterruptedException {
    Path model = TestCommand.model(dir.resolve("model"));
    Path data = TestCommand.scenes(dir.resolve("scenes"));
    Path run = dir.resolve("run");
    String[] arguments =
        TestCommand.trainArguments(
            model,
            data,
            run,
            1_000_000,
            "--set",
            "schedule=constant",
            "--set",
            "logEvery=1",
            "--save-every",
            "1000000");
    List<String> loud = new java.util.ArrayList<>(List.of(arguments));
    loud.remove("--quiet");
    Path err = dir.resolve("err");
    Process process =
        new ProcessBuilder(CommandProcess.java(List.of(), loud.toArray(String[]::new)))
            .redirectErrorStream(true)
            .redirectOutput(err.toFile())
            .start();
    try {
      Path log = run.resolve("metrics.jsonl");
      while (process.isAlive() && !(Files.exists(log) && Files.readAllLines(log).size() > 2)) {
        TimeUnit.MILLISECONDS.sleep(50);
      }
      process.destroy(); // a signal that it may answer
      assertTrue(process.waitFor(2, TimeUnit.MINUTES), "it does not stop");
    } finally {
      process.destroyForcibly();
    }
    List<String> said = Files.readAllLines(err);
    String last = said.get(said.size() - 1);
    assertTrue(
        last.matches("stopped after \\d+ steps: .*; go on with --resume.*"), said.toString());
    int steps = Integer.parseInt(last.split(" ")[2]);
    assertTrue(steps >= 3, last);

    Path whole = dir.resolve("whole");
    String[] again = arguments.clone();
    for (int i = 0; i < again.length; i++) {
      again[i] = again[i].equals(run.toString()) ? whole.toString() : again[i];
      again[i] = again[i].equals("1000000") ? Integer.toString(steps) : again[i];
    }
    assertEquals(0, TestCommand.run(again).code());
    Map<String, HostTensor> stopped = checkpoint(run, steps);
    Map<String, HostTensor> unbroken = checkpoint(whole, steps);
    assertEquals(unbroken.keySet(), stopped.keySet());
    unbroken.forEach((name, t) -> assertEquals(t.bytes(), stopped.get(name).bytes(), name));
  }
}
