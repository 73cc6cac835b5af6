package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.bytedeco.javacpp.BytePointer;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The compiler of the real device, where its library is at hand; it needs no GPU. */
@Tag("cuda-host")
class NvrtcTest {
  private static final List<Integer> CAPABILITIES = List.of(75, 80, 86, 89, 90, 100);

  @TempDir Path cache;

  @BeforeAll
  static void library() {
    CudaHost.require();
    CudaHost.backend(); // NVRTC's bindings want a libcuda.so.1 in the process
    String missing = NvrtcCompiler.missing();
    assumeTrue(missing == null, "SKIPPED: " + missing);
  }

  @Test
  void everyKernelFileCompilesForEveryArchitecture() throws IOException {
    List<String> files;
    try (Stream<Path> all = Files.list(Path.of("cuda"))) {
      files =
          all.map(f -> f.getFileName().toString())
              .filter(f -> f.endsWith(".cu"))
              .map(f -> f.substring(0, f.length() - 3))
              .sorted()
              .toList();
    }
    assertTrue(files.size() > 5, files.toString());
    NvrtcCompiler compiler = new NvrtcCompiler(cache);
    for (String file : files) {
      for (int capability : CAPABILITIES) {
        // All types on one architecture, and one type on all: what differs is the conversions.
        for (int type = capability == 90 ? 0 : 2; type < 3; type++) {
          try (BytePointer image = compiler.compile(file, type, capability)) {
            assertEquals("\177ELF", image.getString().substring(0, 4), file + " sm_" + capability);
          }
        }
      }
    }
  }

  @Test
  void whatWasCompiledIsKept() throws IOException {
    NvrtcCompiler compiler = new NvrtcCompiler(cache);
    byte[] first = bytes(compiler.compile("elementwise", 0, 90));
    try (Stream<Path> kept = Files.list(cache)) {
      Path one = kept.findFirst().orElseThrow();
      DiskCache.seal(one, new byte[] {1, 2, 3}); // shows that the second call reads it
      assertEquals(3, bytes(compiler.compile("elementwise", 0, 90)).length);
      assertTrue(
          bytes(compiler.compile("elementwise", 1, 90)).length > 3, "another type is another key");
      Files.write(one, new byte[] {1, 2, 3}); // what a full disk may leave
      assertArrayEquals(first, bytes(compiler.compile("elementwise", 0, 90)));
      assertArrayEquals(first, DiskCache.sealed(one));
    }
  }

  private static byte[] bytes(BytePointer image) {
    try (image) {
      byte[] bytes = new byte[Math.toIntExact(image.capacity())];
      image.get(bytes);
      return bytes;
    }
  }

  @Test
  void anErrorNamesFileAndLine() throws IOException {
    List<String> headers = new ArrayList<>();
    for (String header : NvrtcCompiler.HEADERS) {
      headers.add(Files.readString(Path.of("cuda", header)));
    }
    IllegalStateException e =
        assertThrows(
            IllegalStateException.class,
            () ->
                NvrtcCompiler.build(
                    "broken.cu",
                    "#include \"common.cuh\"\nKERNEL void f(T* y) {\n  y[0] = nothing;\n}\n",
                    headers,
                    List.of("--gpu-architecture=sm_90"),
                    true));
    assertTrue(e.getMessage().contains("broken.cu(3)"), e.getMessage());
    assertTrue(e.getMessage().contains("nothing"), e.getMessage());
  }
}
