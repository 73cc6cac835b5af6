package org.deixis.backend.cuda;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.Pointer;
import org.deixis.backend.Backends.NativeLibrary;

/** The libraries that the bindings are linked with, by the names they ask the loader for. */
final class CudaLibraries {
  /** Of cuDNN, all in one package. */
  static final List<String> CUDNN =
      List.of("libcudnn_cnn.so.9", "libcudnn_ops.so.9", "libcudnn_adv.so.9", "libcudnn_graph.so.9");

  private static final String NO_DEVICE = "device cuda cannot be used";
  private static final Path MAPS = Path.of("/proc/self/maps");
  private static final String ABSENT = "No such file";

  private CudaLibraries() {}

  /**
   * Each of them, loaded if it can be. The bindings are to have been loaded before, or tried: what
   * they found beyond the library path counts as found.
   */
  static List<NativeLibrary> all() {
    List<NativeLibrary> all = new ArrayList<>();
    if (!Files.exists(MAPS)) {
      return all; // another system, with other names: what fails to load names itself
    }
    Loader.load(Pointer.class); // what loadGlobal is in
    for (String driver : List.of("libcuda.so.1", "libcudart.so." + Driver.CUDA)) {
      all.add(probe(driver, NO_DEVICE));
    }
    all.add(probe("libnvrtc.so." + Driver.CUDA, NO_DEVICE + ": it compiles the kernels"));
    for (String products : List.of("libcublasLt.so.", "libcublas.so.")) {
      all.add(
          probe(
              products + Driver.CUDA,
              "no cuBLASLt: " + NO_DEVICE + " but by DEIXIS_GEMM=plain, with slower products"));
    }
    for (String part : CUDNN) {
      all.add(probe(part, "no cuDNN: convolutions as products with patches, which is slower"));
    }
    return all;
  }

  private static NativeLibrary probe(String name, String cost) {
    try {
      Loader.loadGlobal(name); // one that is loaded already is found by its name
      return new NativeLibrary(name, path(name), null);
    } catch (UnsatisfiedLinkError e) {
      String reason = Driver.reason(e);
      return new NativeLibrary(
          name,
          null,
          (reason.contains(ABSENT) ? "not found; " : "cannot be loaded (" + reason + "); ") + cost);
    }
  }

  /** Of the file that was loaded by that name, whose own may go on: libcuda.so.580.1. */
  private static String path(String name) {
    String stem = "/" + name.substring(0, name.indexOf(".so") + 3);
    try {
      return Files.readAllLines(MAPS).stream()
          .map(line -> line.substring(Math.max(0, line.indexOf('/'))))
          .filter(file -> file.startsWith(stem, file.lastIndexOf('/')))
          .findFirst()
          .orElse("found");
    } catch (IOException e) {
      throw new IllegalStateException("cannot read " + MAPS, e);
    }
  }
}
