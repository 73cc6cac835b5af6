package org.deixis.autograd;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Array;
import org.deixis.backend.Scope;

/**
 * Records operations of its thread while it is the innermost open tape, and plays them back in
 * reverse. A saved value is freed as soon as backward has used it; {@link #close} frees whatever is
 * left.
 */
public final class Tape implements AutoCloseable {
  private static final ThreadLocal<Tape> CURRENT = new ThreadLocal<>();

  private final Tape parent;
  private final boolean recording;
  private final List<Node> nodes = new ArrayList<>();

  private Tape(Tape parent, boolean recording) {
    this.parent = parent;
    this.recording = recording;
  }

  /** Starts recording on this thread. */
  public static Tape open() {
    return push(true);
  }

  /** Stops recording on this thread until closed: what is computed meanwhile has no gradient. */
  public static Tape pause() {
    return push(false);
  }

  private static Tape push(boolean recording) {
    Tape tape = new Tape(CURRENT.get(), recording);
    CURRENT.set(tape);
    return tape;
  }

  /**
   * Whether an operation on these inputs will be recorded, so that it should keep what backward
   * needs.
   */
  public static boolean records(Variable... inputs) {
    Tape tape = CURRENT.get();
    if (tape == null || !tape.recording) {
      return false;
    }
    for (Variable v : inputs) {
      if (v != null && v.requiresGradient()) {
        return true;
      }
    }
    return false;
  }

  /**
   * The outputs of an operation as variables, recorded when {@link #records} says so.
   *
   * @param saved arrays that backward reads; entries may be null
   * @param backward null for an operation that has none: then an input that requires a gradient is
   *     an error
   */
  public static Variable[] record(
      String name, Variable[] inputs, Array[] outputs, Array[] saved, Backward backward) {
    boolean recorded = records(inputs);
    if (recorded && backward == null) {
      throw new IllegalStateException(name + " has no backward, and an input requires a gradient");
    }
    Variable[] out = new Variable[outputs.length];
    for (int i = 0; i < out.length; i++) {
      out[i] = Variable.output(outputs[i], recorded);
    }
    if (recorded) {
      CURRENT.get().nodes.add(new Node(name, inputs, out, saved, backward));
    }
    return out;
  }

  /** {@link #record} for one output. */
  public static Variable record(
      String name, Variable[] inputs, Array output, Array[] saved, Backward backward) {
    return record(name, inputs, new Array[] {output}, saved, backward)[0];
  }

  /** Back-propagates from a scalar, with gradient 1. */
  public void backward(Variable loss) {
    if (loss.shape().size() != 1) {
      throw new IllegalArgumentException("backward starts at a scalar, not at " + loss.shape());
    }
    try (Scope scope = Scope.open()) {
      Array one = loss.backend().allocate(loss.shape(), loss.dtype());
      loss.backend().fill(one, 1);
      backward(List.of(loss), List.of(one));
    }
  }

  /**
   * Back-propagates from several variables, each with the gradient given for it. The tape is empty
   * afterwards.
   */
  public void backward(List<Variable> outputs, List<Array> gradients) {
    for (int i = 0; i < outputs.size(); i++) {
      if (!gradients.get(i).shape().equals(outputs.get(i).shape())) {
        throw new IllegalArgumentException(
            "gradient " + gradients.get(i) + " for an output " + outputs.get(i).array());
      }
      if (outputs.get(i).requiresGradient()) {
        outputs.get(i).accumulate(gradients.get(i));
      }
    }
    try (Tape paused = pause()) {
      for (int n = nodes.size() - 1; n >= 0; n--) {
        Node node = nodes.remove(n);
        try {
          if (reached(node)) {
            try (Scope scope = Scope.open()) {
              node.backward.run(new NodeContext(node));
            }
          }
        } finally {
          node.release();
        }
      }
    }
  }

  private static boolean reached(Node node) {
    for (Variable output : node.outputs) {
      if (output.gradient() != null) {
        return true;
      }
    }
    return false;
  }

  private record NodeContext(Node node) implements Backward.Context {
    @Override
    public Array gradient(int i) {
      return node.outputs[i].gradient();
    }

    @Override
    public boolean needs(int i) {
      return node.inputs[i] != null && node.inputs[i].requiresGradient();
    }

    @Override
    public void give(int i, Array gradient) {
      Variable input = node.inputs[i];
      if (!gradient.shape().equals(input.shape()) || gradient.dtype() != input.dtype()) {
        throw new IllegalStateException(
            node.name + " gave input " + i + " " + input.array() + " a gradient " + gradient);
      }
      input.accumulate(gradient);
    }

    @Override
    public Array saved(int i) {
      return node.saved[i];
    }
  }

  @Override
  public void close() {
    if (CURRENT.get() != this) {
      throw new IllegalStateException(
          "tapes close innermost first, on the thread that opened them");
    }
    if (parent == null) {
      CURRENT.remove();
    } else {
      CURRENT.set(parent);
    }
    for (int n = nodes.size() - 1; n >= 0; n--) {
      nodes.get(n).release();
    }
    nodes.clear();
  }
}
