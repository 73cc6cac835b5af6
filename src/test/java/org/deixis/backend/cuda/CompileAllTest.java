package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Stream;
import org.bytedeco.javacpp.BytePointer;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** All kernels compiled ahead. */
@Tag("cuda-host")
class CompileAllTest {
  @TempDir Path cache;

  @BeforeAll
  static void driver() {
    assumeTrue(CudaHost.available(), "SKIPPED: g++ is missing");
    CudaHost.backend();
  }

  private static CudaBackend backend(KernelCompiler compiler) {
    return new CudaBackend(compiler, false, false, false);
  }

  @Test
  void everyFileIsCompiledForEveryType() throws IOException {
    Set<String> wanted = new TreeSet<>();
    try (Stream<Path> all = Files.list(Path.of("cuda"))) {
      all.map(f -> f.getFileName().toString())
          .filter(f -> f.endsWith(".cu"))
          .forEach(
              f -> {
                for (int type = 0; type < 3; type++) {
                  wanted.add(f.substring(0, f.length() - 3) + " " + type + " 90");
                }
              });
    }
    ConcurrentLinkedQueue<String> seen = new ConcurrentLinkedQueue<>();
    try (CudaBackend backend =
        backend(
            (file, type, capability) -> {
              seen.add(file + " " + type + " " + capability);
              return new BytePointer(new byte[1]);
            })) {
      assertEquals(wanted.size(), backend.compileKernels(4));
    }
    assertEquals(List.copyOf(wanted), seen.stream().sorted().toList());
  }

  @Test
  void whatDoesNotCompileIsSaid() {
    try (CudaBackend backend =
        backend(
            (file, type, capability) -> {
              throw new IllegalStateException(file + ".cu does not compile");
            })) {
      IllegalStateException e =
          assertThrows(IllegalStateException.class, () -> backend.compileKernels(2));
      assertEquals(Kernels.FILES.get(0) + ".cu does not compile", e.getMessage());
    }
  }

  /** NVRTC, where it is at hand, by several threads; a second time there is nothing to do. */
  @Test
  void severalThreadsFillTheCache() throws IOException {
    String missing = NvrtcCompiler.missing();
    assumeTrue(missing == null, "SKIPPED: " + missing);
    Set<String> quick = Set.of("loss", "move"); // the test of NVRTC goes through all files
    NvrtcCompiler nvrtc = new NvrtcCompiler(cache);
    try (CudaBackend backend =
        backend(
            (file, type, capability) ->
                quick.contains(file)
                    ? nvrtc.compile(file, type, capability)
                    : new BytePointer(new byte[1]))) {
      backend.compileKernels(4);
      List<Path> first = kept();
      assertEquals(3 * quick.size(), first.size());
      Files.setLastModifiedTime(first.get(0), FileTime.fromMillis(1000));
      backend.compileKernels(4);
      assertEquals(first, kept());
      assertEquals(1000, Files.getLastModifiedTime(first.get(0)).toMillis(), "compiled again");
    }
  }

  private List<Path> kept() throws IOException {
    try (Stream<Path> files = Files.list(cache)) {
      return files.sorted().toList();
    }
  }
}
