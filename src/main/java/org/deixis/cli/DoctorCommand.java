package org.deixis.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.deixis.backend.Backends;
import org.deixis.core.Env;
import picocli.CommandLine.Command;

@Command(
    name = "doctor",
    description =
        "Says what this machine has, which devices can be used, and how to get what is missing.")
final class DoctorCommand extends BaseCommand {
  private static final List<String> GPU_LIBRARIES =
      List.of("libcuda.so.1", "libcudart.so", "libnvrtc.so", "libcublasLt.so", "libcudnn.so");

  @Override
  public Integer call() {
    out.printf(
        "java      %s, %s%n",
        System.getProperty("java.vm.version"), System.getProperty("java.home"));
    out.printf(
        "system    %s %s, %d cores, %d threads to compute with%n",
        System.getProperty("os.name"),
        System.getProperty("os.arch"),
        Runtime.getRuntime().availableProcessors(),
        Env.threads());
    boolean vector = ModuleLayer.boot().findModule("jdk.incubator.vector").isPresent();
    out.printf(
        "vector    %s%n",
        vector
            ? "the JDK's Vector API is there"
            : "missing: start java with --add-modules jdk.incubator.vector");
    String omp = System.getenv("OMP_NUM_THREADS");
    out.printf(
        "openmp    %s%n",
        "1".equals(omp)
            ? "OMP_NUM_THREADS is 1, as it should be"
            : "OMP_NUM_THREADS is "
                + omp
                + "; set it to 1, or oneDNN's threads get in the way of ours");
    for (Backends.Provider p : Backends.providers()) {
      String missing = p.missing();
      out.printf(
          "device    %-10s %s%n", p.name(), missing == null ? "can be used" : "cannot: " + missing);
      String note = missing == null ? p.note() : null;
      if (note != null) {
        out.printf("device    %-10s %s%n", "", note);
      }
    }
    for (String library : GPU_LIBRARIES) {
      Path found = find(library);
      out.printf("gpu       %-16s %s%n", library, found == null ? "not found" : found);
    }
    return 0;
  }

  /**
   * Looks where the system's loader would: the library path, CUDA's folder, and the usual places.
   */
  private static Path find(String library) {
    List<String> places = new ArrayList<>();
    String path = System.getenv("LD_LIBRARY_PATH");
    if (path != null) {
      places.addAll(List.of(path.split(":")));
    }
    for (String variable : new String[] {"CUDA_PATH", "CUDA_HOME"}) {
      if (System.getenv(variable) != null) {
        places.add(System.getenv(variable) + "/lib64");
      }
    }
    places.addAll(
        List.of(
            "/usr/local/cuda/lib64",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib64",
            "/usr/lib/aarch64-linux-gnu",
            "/usr/lib"));
    for (String place : places) {
      Path folder = Path.of(place);
      if (place.isBlank() || !Files.isDirectory(folder)) {
        continue;
      }
      try (Stream<Path> files = Files.list(folder)) {
        Path hit =
            files
                .filter(f -> f.getFileName().toString().startsWith(library))
                .findFirst()
                .orElse(null);
        if (hit != null) {
          return hit;
        }
      } catch (IOException e) {
        continue; // a folder that may not be read holds nothing for us either
      }
    }
    return null;
  }
}
