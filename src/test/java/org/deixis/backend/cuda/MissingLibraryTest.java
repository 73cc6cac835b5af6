package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.bytedeco.javacpp.Loader;
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
    CudaHost.require();
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
            && note.contains("put libcudnn_cnn.so.9, "),
        note);
    String absent = library(a, "libcudnn_cnn.so.9");
    assertTrue(
        absent.contains("cannot be loaded (") && absent.contains("convolutions as products"),
        absent);
    String there = library(a, "libcuda.so.1");
    assertTrue(there.endsWith(" " + libraries.resolve("libcuda.so.1")), there);
    // Where CUDA is installed, the bindings' own loader takes its other libraries before ours.
    for (String name : List.of("cudart", "nvrtc", "cublas", "cublasLt")) {
      String found = library(a, "lib" + name + ".so." + Driver.CUDA);
      assertTrue(found.matches(".* /.*/lib" + name + "\\.so\\." + Driver.CUDA + ".*"), found);
    }
    Answer chosen = run(Map.of("DEIXIS_CONV", "im2col"), "doctor");
    assertFalse(chosen.out().toString().contains("im2col: cuDNN"), chosen.out().toString());
  }

  /** What doctor says of a library. */
  private static String library(Answer a, String name) {
    return a.out().stream()
        .filter(l -> l.matches("library +" + name + " .*"))
        .findFirst()
        .orElseThrow(() -> new AssertionError(name + " is not in " + a.out()));
  }

  @Test
  void allThatBindingsAskForAreListed() throws IOException, InterruptedException {
    Answer a = run(Map.of(), "doctor");
    long listed = a.out().stream().filter(l -> l.startsWith("library ")).count();
    assertEquals(needed().size(), listed, needed() + " against " + a.out());
    needed().forEach(name -> library(a, name));
  }

  /** Of CUDA, as the headers of the bindings' own libraries have it. */
  private static Set<String> needed() throws IOException {
    Set<String> names = new TreeSet<>();
    for (String part : List.of("cudart", "nvrtc", "cublas", "cudnn")) {
      String resource = "/org/bytedeco/cuda/" + Loader.getPlatform() + "/libjni" + part + ".so";
      try (InputStream in = MissingLibraryTest.class.getResourceAsStream(resource)) {
        String text = new String(in.readAllBytes(), StandardCharsets.ISO_8859_1);
        Matcher name = Pattern.compile("\0(lib(cu|nv)[A-Za-z_]+\\.so\\.[0-9]+)\0").matcher(text);
        for (int at = 0; name.find(at); at = name.end() - 1) {
          names.add(name.group(1));
        }
      }
    }
    return names;
  }

  /** With CUDA 13: of 12.4. */
  @Test
  void aDriverThatEndsBeforeThisBuildIsOneLine() throws IOException, InterruptedException {
    int before = Driver.CUDA - 1;
    Map<String, String> old = Map.of("DEIXIS_HOST_DRIVER", before + "040");
    String line =
        "the CUDA driver ends at CUDA "
            + before
            + ".4, and this build is for CUDA "
            + Driver.CUDA
            + (before == 12 ? ": set DEIXIS_CUDA=12, or" : ":")
            + " install a newer driver";
    Answer asked = run(old, "bench", "--device", "cuda", "--out", bench());
    assertEquals(2, asked.code(), asked.err().toString());
    assertEquals(List.of("deixis: device 'cuda' cannot be used: " + line), asked.err());
    Answer a = run(old, "doctor");
    assertEquals(0, a.code(), a.err().toString());
    assertTrue(a.out().contains("device    cuda       cannot: " + line), a.out().toString());
    // Newer ones run what was built for an older CUDA.
    Answer newer = run(Map.of("DEIXIS_HOST_DRIVER", Driver.CUDA + 1 + "000"), "doctor");
    assertTrue(newer.out().contains("device    cuda       can be used"), newer.out().toString());
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
