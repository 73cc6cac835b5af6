package org.deixis.peers;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.BoolOptional;
import org.bytedeco.pytorch.InferenceMode;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorOptional;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;

/**
 * Single operations in LibTorch, through the bindings that Maven Central has ({@code
 * org.bytedeco:pytorch}), forward and with backward. Tasks are those of {@code
 * bench/peer_operations.py}. AdamW is missing: the bindings have no fused one.
 */
public final class LibTorchPeer {
  private LibTorchPeer() {}

  /** Serves {@code deixis bench}: {@code serve --threads N}. */
  public static void main(String[] arguments) throws IOException {
    try {
      torch.set_num_threads(PeerProtocol.threads(arguments));
      torch.manual_seed(1);
    } catch (LinkageError | IllegalArgumentException e) {
      System.err.println(e);
      System.exit(1);
    }
    String version = Tensor.class.getPackage().getImplementationVersion();
    PeerProtocol.serve(
        Map.of("libtorch_java", version == null ? "unknown" : version), LibTorchPeer::prepare);
  }

  /** An operation on its operands, whose handles it leaves alone. */
  private interface Operation {
    Tensor apply();
  }

  private static PeerProtocol.Work prepare(JsonNode task) {
    Operands operands = new Operands(task);
    try {
      Operation operation = operation(task, operands);
      if (operation == null) {
        operands.close();
        return null;
      }
      return operands.backward ? new Both(operation, operands) : new Forward(operation, operands);
    } catch (RuntimeException e) {
      operands.close();
      throw e;
    }
  }

  /** Null for what has no twin here. */
  private static Operation operation(JsonNode task, Operands operands) {
    long rows = task.path("rows").asLong();
    long columns = task.path("columns").asLong();
    switch (task.path("kind").asText()) {
      case "linear":
        {
          Tensor x = operands.add(task.get("m").asLong(), task.get("k").asLong());
          Tensor w = operands.add(task.get("n").asLong(), task.get("k").asLong());
          TensorOptional b = operands.optional(operands.add(task.get("n").asLong()));
          if (!task.get("gelu").asBoolean()) {
            return () -> torch.linear(x, w, b);
          }
          return () -> {
            try (Tensor y = torch.linear(x, w, b)) {
              return torch.gelu(y);
            }
          };
        }
      case "softmax":
        {
          Tensor x = operands.add(rows, columns);
          return () -> torch.softmax(x, -1);
        }
      case "layer_norm":
        {
          Tensor x = operands.add(rows, columns);
          TensorOptional w = operands.optional(operands.add(columns));
          TensorOptional b = operands.optional(operands.add(columns));
          long[] normalised = {columns};
          return () -> torch.layer_norm(x, normalised, w, b, 1e-5, true);
        }
      case "gelu":
        {
          Tensor x = operands.add(rows, columns);
          return () -> torch.gelu(x);
        }
      case "bias_residual":
        {
          Tensor x = operands.add(rows, columns);
          Tensor r = operands.add(rows, columns);
          Tensor b = operands.add(columns);
          return () -> {
            try (Tensor y = x.add(r)) {
              return y.add(b);
            }
          };
        }
      default:
        return null;
    }
  }

  /** Random operands of a task, freed together. */
  private static final class Operands implements AutoCloseable {
    private final boolean backward;
    private final torch.ScalarType type;
    private final List<Tensor> leaves = new ArrayList<>();
    private final List<Pointer> others = new ArrayList<>();

    Operands(JsonNode task) {
      backward = task.path("backward").asBoolean();
      type = type(task.path("dtype").asText("f32"));
    }

    private static torch.ScalarType type(String name) {
      return switch (name) {
        case "f32" -> torch.ScalarType.Float;
        case "f16" -> torch.ScalarType.Half;
        case "bf16" -> torch.ScalarType.BFloat16;
        default -> throw new IllegalArgumentException("unknown type '" + name + "'");
      };
    }

    /** Drawn from N(0, ½²); a vector from N(0, 1). */
    Tensor add(long... shape) {
      try (Tensor drawn = torch.randn(shape);
          Scalar scale = new Scalar(shape.length > 1 ? 0.5 : 1.0)) {
        drawn.mul_(scale); // answers the same handle
        Tensor leaf = drawn.to(type);
        leaves.add(leaf);
        leaf.set_requires_grad(backward);
        return leaf;
      }
    }

    TensorOptional optional(Tensor tensor) {
      return keep(new TensorOptional(tensor));
    }

    <P extends Pointer> P keep(P pointer) {
      others.add(pointer);
      return pointer;
    }

    @Override
    public void close() {
      others.forEach(Pointer::close);
      leaves.forEach(Pointer::close);
    }
  }

  private record Forward(Operation operation, Operands operands) implements PeerProtocol.Work {
    @Override
    public void call() {
      try (InferenceMode mode = new InferenceMode(true)) {
        operation.apply().close();
      }
    }

    @Override
    public void close() {
      operands.close();
    }
  }

  /** Forward and the gradients of all operands. */
  private static final class Both implements PeerProtocol.Work {
    private final Operation operation;
    private final Operands operands;
    private final TensorVector leaves;
    private final TensorVector upstream;
    private final BoolOptional retainGraph;

    Both(Operation operation, Operands operands) {
      this.operation = operation;
      this.operands = operands;
      leaves = operands.keep(new TensorVector(operands.leaves.toArray(Tensor[]::new)));
      try (Tensor y = operation.apply();
          Scalar half = new Scalar(0.5);
          Tensor up = torch.full_like(y, half)) {
        upstream = operands.keep(new TensorVector(up));
      }
      retainGraph = operands.keep(new BoolOptional());
    }

    @Override
    public void call() {
      try (Tensor y = operation.apply();
          TensorVector outputs = new TensorVector(y);
          TensorVector gradients =
              torch.grad(outputs, leaves, upstream, retainGraph, false, false)) {
        if (gradients.size() != leaves.size()) {
          throw new IllegalStateException(gradients.size() + " gradients");
        }
      }
    }

    @Override
    public void close() {
      operands.close();
    }
  }
}
