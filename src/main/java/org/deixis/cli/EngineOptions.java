package org.deixis.cli;

import java.io.PrintStream;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.model.gres.JsonRecord;
import picocli.CommandLine.Option;

/** Where and with how many threads to compute. */
final class EngineOptions {
  /**
   * What "auto" takes. Asking for a GPU loads CUDA's libraries, which a process that never uses one
   * should not wait for; and no card has run the cuda backend's tests yet.
   */
  private static final String AUTO = "cpu";

  @Option(
      names = "--device",
      paramLabel = "NAME",
      defaultValue = "auto",
      description =
          "auto (the cpu), cpu, cuda (an NVIDIA GPU), or reference (slow; the oracle of the"
              + " tests). Default: ${DEFAULT-VALUE}.")
  private String device;

  @Option(
      names = "--threads",
      paramLabel = "N",
      description = "Threads of the cpu device. Default: all cores.")
  private Integer threads;

  /** The device that was asked for; "auto" says on {@code err} what it took. */
  Backend backend(PrintStream err) {
    return Backends.get(device(err));
  }

  String device(PrintStream err) {
    if (threads != null) {
      if (threads < 1) {
        throw new InputException("--threads: " + threads + " is below 1");
      }
      System.setProperty("deixis.threads", Integer.toString(threads));
    }
    List<String> names = new ArrayList<>();
    Backends.providers().forEach(p -> names.add(p.name()));
    if (device.equals("auto")) {
      err.println("deixis: device auto takes " + AUTO);
      return AUTO;
    }
    if (!names.contains(device)) {
      names.add("auto");
      throw new InputException(
          "--device: '"
              + device
              + "' is unknown; did you mean "
              + JsonRecord.nearest(device, names)
              + "?");
    }
    return device;
  }

  /** The element type that {@code --precision} names. */
  static DType precision(String name) {
    return switch (name.toLowerCase(Locale.ROOT)) {
      case "fp32" -> DType.F32;
      case "fp16" -> DType.F16;
      case "bf16" -> DType.BF16;
      default ->
          throw new InputException(
              "--precision: '" + name + "' is unknown; give fp32, fp16 or bf16");
    };
  }
}
