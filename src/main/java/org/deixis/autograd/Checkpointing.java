package org.deixis.autograd;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import org.deixis.backend.Array;
import org.deixis.backend.Scope;

/**
 * Activation checkpointing (Chen et al., "Training deep nets with sublinear memory cost", 2016):
 * runs a segment without keeping its inner values, and runs it again when backward needs them.
 */
public final class Checkpointing {
  private Checkpointing() {}

  /**
   * {@code segment(input)}, its inner values recomputed in backward. The segment must compute the
   * same again: its random draws must not depend on state that forward advances. Parameters it
   * reads get their gradients as usual.
   *
   * @param input must require a gradient for the segment to be recorded; otherwise it simply runs
   */
  public static Variable run(Variable input, Function<Variable, Variable> segment) {
    if (!Tape.records(input)) {
      return segment.apply(input);
    }
    Variable result;
    try (Scope scope = Scope.open();
        Tape paused = Tape.pause()) {
      result = segment.apply(input);
      scope.keep(result.array());
    }
    return Tape.record(
        "checkpoint",
        new Variable[] {input},
        result.array(),
        new Array[] {input.array()},
        context -> {
          Variable again = Variable.leaf(context.saved(0));
          try (Scope scope = Scope.open();
              Tape tape = Tape.open()) {
            Variable output = segment.apply(again);
            tape.backward(List.of(output), new ArrayList<>(List.of(context.gradient(0))));
          }
          try {
            if (context.needs(0) && again.gradient() != null) {
              context.give(0, again.gradient());
            }
          } finally {
            again.clearGradient();
          }
        });
  }
}
