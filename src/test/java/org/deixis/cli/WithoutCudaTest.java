package org.deixis.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.bytedeco.cuda.global.cudart;
import org.deixis.testing.CommandProcess;
import org.deixis.testing.CommandProcess.Answer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * The command line where there is no GPU, in processes of its own: what other tests loaded into
 * this one must not count. A machine that has a GPU hides it.
 */
class WithoutCudaTest {
  @TempDir Path folder;

  private Answer run(List<String> jvm, String... arguments)
      throws IOException, InterruptedException {
    return CommandProcess.run(folder, jvm, Map.of("CUDA_VISIBLE_DEVICES", ""), arguments);
  }

  @ParameterizedTest
  @ValueSource(strings = {"--help", "predict --help", "train --help", "bench --help"})
  void helpLoadsNothingOfCuda(String arguments) throws IOException, InterruptedException {
    Path loaded = folder.resolve("loaded");
    Answer a = run(List.of("-Xlog:class+load:file=" + loaded), arguments.split(" "));
    assertEquals(0, a.code(), a.err().toString());
    assertTrue(a.out().stream().anyMatch(l -> l.contains("Usage: deixis")), a.out().toString());
    List<String> classes = Files.readAllLines(loaded);
    assertTrue(
        classes.stream().anyMatch(l -> l.contains("org.deixis.cli.Main ")),
        "the log has no classes of ours");
    List<String> foreign =
        classes.stream()
            .filter(l -> l.contains(" org.bytedeco.") || l.contains("org.deixis.backend.cuda."))
            .toList();
    assertEquals(List.of(), foreign);
  }

  @Test
  void askingForItIsOneLine() throws IOException, InterruptedException {
    Answer a = run(List.of(), "bench", "--device", "cuda", "--out", folder.resolve("b").toString());
    assertEquals(2, a.code(), a.err().toString());
    assertEquals(1, a.err().size(), a.err().toString());
    assertTrue(
        a.err().get(0).startsWith("deixis: device 'cuda' cannot be used: the CUDA driver"),
        a.err().get(0));
  }

  @Test
  void doctorListsEachLibraryFoundOrNot() throws IOException, InterruptedException {
    Answer a = run(List.of(), "doctor");
    assertEquals(0, a.code(), a.err().toString());
    String cuda = "so." + cudart.CUDA_VERSION / 1000;
    for (String library :
        List.of(
            "libcuda.so.1",
            "libcudart." + cuda,
            "libnvrtc." + cuda,
            "libcublasLt." + cuda,
            "libcublas." + cuda,
            "libcudnn_cnn.so.9",
            "libcudnn_ops.so.9",
            "libcudnn_adv.so.9",
            "libcudnn_graph.so.9")) {
      List<String> said =
          a.out().stream().filter(l -> l.matches("library +" + library + " .*")).toList();
      assertEquals(1, said.size(), library + ": " + a.out());
      assertTrue(said.get(0).matches(".* (/.*|not found; .+)"), said.get(0));
    }
    assertFalse(a.out().stream().anyMatch(l -> l.contains("device    cuda       can be used")));
  }
}
