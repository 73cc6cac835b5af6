package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.deixis.testing.CommandProcess;
import org.deixis.testing.CommandProcess.Answer;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A machine whose driver is there and one library is not: the stand-ins in a process of its own,
 * where a file that is no library takes the missing one's place, so that a real one is not found.
 */
@Tag("cuda-host")
class MissingLibraryTest {
  @TempDir static Path libraries;

  @TempDir Path folder;

  @BeforeAll
  static void standIns() throws IOException {
    assertTrue(CudaHost.available(), "g++ is missing: the cuda backend cannot be tested");
    CudaHost.backend();
    Path built = Path.of("target/cuda-host").toAbsolutePath();
    Path empty = built.resolve("libcudart.so." + Driver.CUDA);
    for (String name : List.of("cudart", "cublas", "cublasLt")) {
      String file = "lib" + name + ".so." + Driver.CUDA;
      Files.copy(built.resolve(file), libraries.resolve(file));
    }
    Files.copy(built.resolve("libcuda.so.1"), libraries.resolve("libcuda.so.1"));
    Files.copy(empty, libraries.resolve("libnvrtc.so." + Driver.CUDA));
    Files.createFile(libraries.resolve("libcudnn_cnn.so.9"));
  }

  private Answer run(Map<String, String> environment, String... arguments)
      throws IOException, InterruptedException {
    Map<String, String> all = new HashMap<>(environment);
    all.put("LD_LIBRARY_PATH", libraries.toString());
    return CommandProcess.run(folder, List.of(), all, arguments);
  }

  private String bench() {
    return folder.resolve("bench").toString();
  }

  @Test
  void doctorSaysWhatTheMissingOneCosts() throws IOException, InterruptedException {
    Answer a = run(Map.of(), "doctor");
    assertEquals(0, a.code(), a.err().toString());
    int device = a.out().indexOf("device    cuda       can be used");
    assertTrue(device > 0, a.out().toString());
    String note = a.out().get(device + 1);
    assertTrue(
        note.contains("convolutions by im2col: cuDNN cannot be loaded (")
            && note.contains("libcudnn.so.9"),
        note);
    Answer chosen = run(Map.of("DEIXIS_CONV", "im2col"), "doctor");
    assertFalse(chosen.out().toString().contains("cuDNN"), chosen.out().toString());
  }

  @Test
  void askingForTheMissingOneIsOneLine() throws IOException, InterruptedException {
    Answer a = run(Map.of("DEIXIS_CONV", "cudnn"), "bench", "--device", "cuda", "--out", bench());
    assertEquals(2, a.code(), a.err().toString());
    assertEquals(1, a.err().size(), a.err().toString());
    assertTrue(
        a.err().get(0).startsWith("deixis: device 'cuda' cannot be used: cuDNN cannot be loaded ("),
        a.err().get(0));
    assertTrue(a.err().get(0).contains("DEIXIS_CONV=im2col"), a.err().get(0));
  }

  @Test
  void aMisspeltChoiceIsOneLine() throws IOException, InterruptedException {
    Answer a =
        run(Map.of("DEIXIS_CONV", "winograd"), "bench", "--device", "cuda", "--out", bench());
    assertEquals(2, a.code(), a.err().toString());
    assertEquals(List.of("deixis: DEIXIS_CONV is 'winograd': give cudnn or im2col"), a.err());
  }
}
