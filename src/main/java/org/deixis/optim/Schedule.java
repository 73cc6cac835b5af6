package org.deixis.optim;

import java.util.Arrays;
import org.deixis.core.InputException;

/**
 * How the learning rate goes over a run, as a factor of its peak: linear warm-up from 0, then the
 * chosen decline. Steps count from 0.
 */
public sealed interface Schedule {
  /** The factor for {@code step} of a run. */
  double factor(long step);

  /**
   * After warm-up ½(1 + cos πt), t from 0 at the first step to 1 at the last (Loshchilov and
   * Hutter, ICLR 2017).
   */
  record Cosine(long steps, long warmup) implements Schedule {
    @Override
    public double factor(long step) {
      return Schedule.warm(step, warmup)
          * 0.5
          * (1 + Math.cos(Math.PI * Schedule.progress(step, steps)));
    }
  }

  /** (1 − t)^power: what Detectron2 and ReLA train with at power 0.9. */
  record Polynomial(long steps, long warmup, double power) implements Schedule {
    @Override
    public double factor(long step) {
      return Schedule.warm(step, warmup) * Math.pow(1 - Schedule.progress(step, steps), power);
    }
  }

  /** Times {@code gamma} at each milestone, a share of the run in (0, 1). */
  record MultiStep(long steps, long warmup, double gamma, double... milestones)
      implements Schedule {
    @Override
    public double factor(long step) {
      long passed = Arrays.stream(milestones).filter(m -> step >= m * steps).count();
      return Schedule.warm(step, warmup) * Math.pow(gamma, passed);
    }
  }

  /** The peak throughout. */
  record Constant(long warmup) implements Schedule {
    @Override
    public double factor(long step) {
      return Schedule.warm(step, warmup);
    }
  }

  /** (step + 1)/warmup up to 1; the first step already moves. */
  private static double warm(long step, long warmup) {
    return warmup <= 0 ? 1 : Math.min(1, (step + 1.0) / warmup);
  }

  private static double progress(long step, long steps) {
    return steps <= 0 ? 1 : Math.min(1, (double) step / steps);
  }

  /**
   * The schedule of that name: cosine, polynomial (power 0.9), multistep (×0.1 at 70 % and 90 %),
   * constant.
   */
  static Schedule of(String name, long steps, long warmup) {
    return switch (name) {
      case "cosine" -> new Cosine(steps, warmup);
      case "polynomial" -> new Polynomial(steps, warmup, 0.9);
      case "multistep" -> new MultiStep(steps, warmup, 0.1, 0.7, 0.9);
      case "constant" -> new Constant(warmup);
      default ->
          throw new InputException(
              "schedule: '"
                  + name
                  + "' is unknown; give cosine, polynomial, multistep or constant");
    };
  }
}
