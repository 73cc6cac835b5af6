package org.deixis.testing;

import java.util.ArrayList;
import java.util.List;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.bench.OpCase;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Rng;

/**
 * Runs an {@link OpCase} on a backend in an element type: its outputs, and the gradients of a
 * random upstream gradient.
 */
public final class CaseRun {
  /** Outputs and gradients (null where none is asked for), as doubles. */
  public record Result(List<double[]> outputs, List<double[]> gradients) {}

  private CaseRun() {}

  /**
   * The operands' values, the same for every backend; floats are rounded to {@code dtype} so that
   * all see one number.
   */
  public static List<double[]> operands(OpCase c, DType dtype, long seed) {
    List<double[]> values = new ArrayList<>();
    for (int i = 0; i < c.inputs().size(); i++) {
      OpCase.Input in = c.inputs().get(i);
      Rng rng = new Rng(seed, i);
      double[] v = new double[Math.toIntExact(in.shape().size())];
      for (int j = 0; j < v.length; j++) {
        v[j] =
            switch (in.kind()) {
              case FLOATS -> round(rng.nextGaussian() * in.scale(), dtype);
              case BITS, BITMAP -> rng.nextInt(10) < 3 ? 1 : 0;
              case INTS -> rng.nextInt((int) in.scale());
              case MASK -> j % in.shape().dim(1) <= (j / in.shape().dim(1)) * 3 ? 1 : 0;
              case GAPS -> gap(j / in.shape().dim(1), j % in.shape().dim(1)) ? 0 : 1;
              case PICTURE -> rng.nextInt(256);
              case RNG -> j == 0 ? 1234567 : 42;
            };
      }
      values.add(v);
    }
    return values;
  }

  private static boolean gap(int row, int token) {
    return (token / 64 + row) % 3 != 1 || token % 5 == 4;
  }

  static double round(double v, DType dtype) {
    return dtype.isHalf() ? Half.toFloat(dtype, Half.fromFloat(dtype, (float) v)) : (float) v;
  }

  private static DType type(OpCase.Kind kind, DType dtype) {
    return switch (kind) {
      case FLOATS, BITS -> dtype;
      case INTS, MASK, GAPS -> DType.I32;
      case BITMAP, PICTURE -> DType.U8;
      case RNG -> DType.I64;
    };
  }

  /** Forward and backward. */
  public static Result run(
      OpCase c, Backend backend, DType dtype, List<double[]> operands, long seed) {
    List<Variable> inputs = new ArrayList<>();
    try (Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      for (int i = 0; i < operands.size(); i++) {
        OpCase.Input in = c.inputs().get(i);
        Array a = Host.upload(backend, operands.get(i), in.shape(), type(in.kind(), dtype));
        inputs.add(in.gradient() ? Variable.leaf(a) : Variable.constant(a));
      }
      Variable[] outputs = c.run().apply(inputs.toArray(new Variable[0]));
      List<double[]> values = new ArrayList<>();
      List<Array> upstream = new ArrayList<>();
      for (int i = 0; i < outputs.length; i++) {
        values.add(Host.download(outputs[i].array()));
        upstream.add(
            Host.upload(
                backend,
                upstream(values.get(i).length, seed, i, dtype),
                outputs[i].shape(),
                outputs[i].dtype()));
      }
      tape.backward(List.of(outputs), upstream);
      List<double[]> gradients = new ArrayList<>();
      for (int i = 0; i < inputs.size(); i++) {
        Variable v = inputs.get(i);
        gradients.add(
            !c.inputs().get(i).gradient()
                ? null
                : v.gradient() == null
                    ? new double[operands.get(i).length]
                    : Host.download(v.gradient()));
      }
      return new Result(values, gradients);
    } finally {
      inputs.forEach(Variable::clearGradient);
    }
  }

  /** Σ upstream · output, forward alone: what finite differences are taken of. */
  public static double objective(OpCase c, Backend backend, List<double[]> operands, long seed) {
    try (Scope scope = Scope.open()) {
      Variable[] inputs = new Variable[operands.size()];
      for (int i = 0; i < inputs.length; i++) {
        OpCase.Input in = c.inputs().get(i);
        inputs[i] =
            Variable.constant(
                Host.upload(backend, operands.get(i), in.shape(), type(in.kind(), DType.F64)));
      }
      Variable[] outputs = c.run().apply(inputs);
      double sum = 0;
      for (int i = 0; i < outputs.length; i++) {
        double[] y = Host.download(outputs[i].array());
        double[] u = upstream(y.length, seed, i, DType.F64);
        for (int j = 0; j < y.length; j++) {
          sum += y[j] * u[j];
        }
      }
      return sum;
    }
  }

  private static double[] upstream(int n, long seed, int output, DType dtype) {
    Rng rng = new Rng(seed + 1, 100 + output);
    double[] u = new double[n];
    for (int i = 0; i < n; i++) {
      u[i] = round(rng.nextGaussian(), dtype);
    }
    return u;
  }
}
