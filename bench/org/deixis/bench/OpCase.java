package org.deixis.bench;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import org.deixis.autograd.Variable;
import org.deixis.core.Shape;

/**
 * One operation on operands of certain shapes, declared once: conformance tests, gradient checks,
 * memory checks and benches are made from it.
 *
 * @param op the operation's registered name
 * @param label what is special about this case
 * @param inputs the operands, in order
 * @param run applies the operation and returns its outputs
 */
public record OpCase(
    String op, String label, List<Input> inputs, Function<Variable[], Variable[]> run) {

  /** What an operand holds. */
  public enum Kind {
    /** Normal values times {@code scale}. */
    FLOATS,
    /** 0 or 1 as floats, for targets. */
    BITS,
    /** I32 in [0, scale). */
    INTS,
    /**
     * A mask I32 (B, T) whose rows start with at least one 1; benches fill {@code scale} of the
     * shortest row.
     */
    MASK,
    /**
     * A mask I32 (B, T) with runs of 64 zeros: of every three runs, from 0 on, one has ones (the
     * second in the first row, the first in the next, then the third), and there one of five is 0.
     */
    GAPS,
    /** U8 0 or 1. */
    BITMAP,
    /** U8 in [0, 255]. */
    PICTURE,
    /** I64 (2): seed and stream. */
    RNG
  }

  /**
   * @param gradient whether a gradient is asked for and compared
   */
  public record Input(Kind kind, Shape shape, double scale, boolean gradient) {}

  @Override
  public String toString() {
    return op + " [" + label + "]";
  }

  /** Starts a case. */
  public static Builder op(String name, String label) {
    return new Builder(name, label);
  }

  /** Collects the operands. */
  public static final class Builder {
    private final String op;
    private final String label;
    private final List<Input> inputs = new ArrayList<>();

    private Builder(String op, String label) {
      this.op = op;
      this.label = label;
    }

    /** A floating operand whose gradient is compared. */
    public Builder in(int... dims) {
      return scaled(1, dims);
    }

    public Builder scaled(double scale, int... dims) {
      inputs.add(new Input(Kind.FLOATS, Shape.of(dims), scale, true));
      return this;
    }

    /** An operand of another kind, without gradient. */
    public Builder in(Kind kind, double scale, int... dims) {
      inputs.add(new Input(kind, Shape.of(dims), scale, false));
      return this;
    }

    public OpCase run(Function<Variable[], Variable> f) {
      return runs(v -> new Variable[] {f.apply(v)});
    }

    public OpCase runs(Function<Variable[], Variable[]> f) {
      return new OpCase(op, label, List.copyOf(inputs), f);
    }
  }
}
