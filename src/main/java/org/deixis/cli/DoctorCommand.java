package org.deixis.cli;

import org.deixis.backend.Backends;
import org.deixis.core.Env;
import picocli.CommandLine.Command;

@Command(
    name = "doctor",
    description =
        "Says what this machine has, which devices can be used, and how to get what is missing.")
final class DoctorCommand extends BaseCommand {
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
    for (Backends.Provider p : Backends.providers()) {
      for (Backends.NativeLibrary library : p.libraries()) {
        out.printf(
            "library   %-20s %s%n",
            library.name(), library.path() == null ? library.problem() : library.path());
      }
    }
    return 0;
  }
}
