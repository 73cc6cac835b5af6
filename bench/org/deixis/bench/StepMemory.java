package org.deixis.bench;

import java.util.List;
import java.util.Locale;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.model.gres.GresConfig;

/**
 * The program that does nothing but a training step, some times over, and prints the highest
 * resident set that it had, in MiB: with the virtual machine, its heap and its libraries.
 */
public final class StepMemory {
  static final String DEMO = "demo";
  static final String SWIN_T = "swin-t";

  private StepMemory() {}

  /**
   * @param args which step, and the floating type
   */
  public static void main(String[] args) {
    Backend backend = Backends.get("cpu");
    DType dtype = DType.valueOf(args[1].toUpperCase(Locale.ROOT));
    boolean demo = args[0].equals(DEMO);
    try (Steps steps =
        demo
            ? Steps.demo(backend, dtype)
            : Steps.classifier(backend, dtype, GresConfig.of("guide-swin-t").swin(), 4, 224)) {
      // Enough for the heap to have filled and been collected, and for the compiler to be done.
      for (int i = 0; i < (demo ? 30 : 4); i++) {
        steps.run();
      }
      backend.synchronize();
    }
    System.out.println(Machine.peakResidentMib());
  }

  /** Runs this program and returns what it prints. */
  static double measure(String which, DType dtype) {
    String answer =
        JavaProcess.run(
                List.of(StepMemory.class.getName(), which, dtype.name().toLowerCase(Locale.ROOT)))
            .output()
            .strip();
    try {
      return Double.parseDouble(answer.substring(answer.lastIndexOf('\n') + 1));
    } catch (NumberFormatException e) {
      throw new InputException("the step's own process says '" + answer + "', no number", e);
    }
  }
}
