package org.deixis.export;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import java.util.function.UnaryOperator;
import org.deixis.backend.Activation;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.io.OnnxGraph;
import org.deixis.nn.Parameter;

/**
 * Layers as standard ONNX operators, with a model's parameters by name. Values are in the graph's
 * compute type, F32 or F16; norms and softmax are in F32 either way, as in the engine.
 */
final class Layers {
  private static final int LAYER_NORM_OPSET = 17;

  /**
   * Added to the score of a word that is padding: its exp is 0 in F32, and it is a number in F16,
   * which a runtime that fuses the softmax may compute with.
   */
  private static final float PADDING = -1e4f;

  private final OnnxGraph graph;
  private final Map<String, Parameter> parameters;
  private final DType dtype;

  /**
   * @param dtype F32 or F16
   */
  Layers(OnnxGraph graph, Map<String, Parameter> parameters, DType dtype) {
    this.graph = graph;
    this.parameters = parameters;
    this.dtype = dtype;
  }

  OnnxGraph graph() {
    return graph;
  }

  <T> T within(String part, Supplier<T> body) {
    return graph.within(part, body);
  }

  String node(String operator, String... inputs) {
    return graph.node(operator, inputs);
  }

  /** The same layers of the same graph, computed in F32. */
  Layers inSingle() {
    return new Layers(graph, parameters, DType.F32);
  }

  /** x from a value of type F32, where that is not the compute type already. */
  String compute(String x) {
    return dtype == DType.F32 ? x : cast(x, dtype);
  }

  /** x of the compute type as F32. */
  String single(String x) {
    return dtype == DType.F32 ? x : cast(x, DType.F32);
  }

  String cast(String x, DType to) {
    return graph.node("Cast", OnnxGraph.attributes().with("to", OnnxGraph.type(to)), x);
  }

  String reshape(String x, long... shape) {
    return node("Reshape", x, graph.longs(shape));
  }

  String transpose(String x, long... axes) {
    return graph.node("Transpose", OnnxGraph.attributes().with("perm", axes), x);
  }

  /** x[..., from:to, ...] of one axis. */
  String slice(String x, int axis, long from, long to) {
    return node("Slice", x, graph.longs(from), graph.longs(to), graph.longs(axis));
  }

  String concat(int axis, String... parts) {
    return graph.node("Concat", OnnxGraph.attributes().with("axis", axis), parts);
  }

  String relu(String x) {
    return node("Relu", x);
  }

  String activation(String x, Activation kind) {
    return switch (kind) {
      case NONE -> x;
      case RELU -> relu(x);
      case GELU -> gelu(x);
      case GELU_TANH -> geluTanh(x);
    };
  }

  /** 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))). */
  private String geluTanh(String x) {
    double root = Math.sqrt(2 / Math.PI);
    String square = node("Mul", node("Mul", x, x), scalar((float) (0.044715 * root)));
    String inner = node("Mul", x, node("Add", square, scalar((float) root)));
    return node("Mul", node("Mul", x, node("Add", node("Tanh", inner), scalar(1))), scalar(0.5f));
  }

  /** x · Φ(x), by erf. */
  String gelu(String x) {
    String erf = node("Erf", node("Mul", x, scalar((float) Math.sqrt(0.5))));
    return node("Mul", node("Mul", x, node("Add", erf, scalar(1))), scalar(0.5f));
  }

  /** A number in the compute type. */
  String scalar(float value) {
    return graph.scalar(value, dtype);
  }

  private Parameter parameter(String full) {
    Parameter p = parameters.get(full);
    if (p == null) {
      throw new IllegalStateException("the model has no parameter " + full);
    }
    return p;
  }

  /** A parameter of the module at hand as a constant of the compute type. */
  String constant(String name) {
    return constant(name, dtype);
  }

  /** A parameter of the module at hand as a constant in its own shape. */
  String constant(String name, DType type) {
    String full = graph.path(name);
    Parameter p = parameter(full);
    return graph.has(full)
        ? full
        : graph.initializer(full, type, p.shape(), () -> bytes(full, p.toFloats(), type));
  }

  /**
   * Rows {@code from} to {@code to} of a parameter as a constant.
   *
   * @param shape of the result; all but the rows' number is the parameter's own
   */
  String rows(String name, int from, int to, Shape shape, DType type) {
    String full = graph.path(name);
    Parameter p = parameter(full);
    int row = Math.toIntExact(shape.size() / (to - from));
    return graph.initializer(
        full + "[" + from + ":" + to + "]",
        type,
        shape,
        () -> bytes(full, Arrays.copyOfRange(p.toFloats(), from * row, to * row), type));
  }

  /** Rows {@code from} to {@code to} of a weight (out, in), transposed for MatMul: (in, rows). */
  private String transposed(String name, int from, int to) {
    String full = graph.path(name);
    Parameter p = parameter(full);
    boolean whole = from == 0 && to == p.shape().dim(0);
    int in = p.shape().dim(1);
    return graph.initializer(
        full + (whole ? "" : "[" + from + ":" + to + "]") + ".T",
        dtype,
        Shape.of(in, to - from),
        () -> bytes(full, transpose(p.toFloats(), from, to, in), dtype));
  }

  private static float[] transpose(float[] weight, int from, int to, int in) {
    int out = to - from;
    float[] made = new float[in * out];
    int block = 32; // both sides stay in the cache
    for (int r0 = 0; r0 < out; r0 += block) {
      for (int c0 = 0; c0 < in; c0 += block) {
        for (int r = r0; r < Math.min(r0 + block, out); r++) {
          for (int c = c0; c < Math.min(c0 + block, in); c++) {
            made[c * out + r] = weight[(from + r) * in + c];
          }
        }
      }
    }
    return made;
  }

  private static ByteBuffer bytes(String name, float[] values, DType type) {
    ByteBuffer bytes = OnnxGraph.floats(values, type);
    if (type == DType.F16) {
      for (float v : values) {
        if (Math.abs(v) >= 65_520) { // rounds to infinity
          throw new InputException(
              "parameter " + name + " holds " + v + ", more than fp16 can; export as fp32");
        }
      }
    }
    return bytes;
  }

  /** x Wᵀ + b of the part {@code name}, whose bias may not exist. */
  String linear(String x, String name) {
    return within(
        name,
        () -> {
          int out = parameter(graph.path("weight")).shape().dim(0);
          boolean biased = parameters.containsKey(graph.path("bias"));
          return linearRows(x, "weight", biased ? "bias" : null, 0, out);
        });
  }

  /** x Wᵀ + b with some rows of W and b, parameters of the module at hand. */
  String linearRows(String x, String weight, String bias, int from, int to) {
    String product = node("MatMul", x, transposed(weight, from, to));
    if (bias == null) {
      return product;
    }
    boolean whole = parameter(graph.path(bias)).shape().dim(0) == to - from;
    return node(
        "Add", product, whole ? constant(bias) : rows(bias, from, to, Shape.of(to - from), dtype));
  }

  /** LayerNorm over the last axis with the parameters of the part {@code name}. */
  String layerNorm(String x, String name, double eps) {
    String in = within(name, () -> single(x));
    String normed = layerNormSingle(in, name, eps);
    return within(name, () -> compute(normed));
  }

  /** As {@link #layerNorm}, of an F32 value and giving one. */
  String layerNormSingle(String x, String name, double eps) {
    return within(
        name,
        () -> {
          String scale = constant("weight", DType.F32);
          String shift = constant("bias", DType.F32);
          if (graph.opset() >= LAYER_NORM_OPSET) {
            var attributes = OnnxGraph.attributes().with("axis", -1).with("epsilon", (float) eps);
            return graph.node("LayerNormalization", attributes, x, scale, shift);
          }
          return node("Add", node("Mul", standardised(x, eps), scale), shift);
        });
  }

  /** (x − mean) / √(variance + eps) over the last axis, in F32. */
  String standardised(String x, double eps) {
    String centred = node("Sub", x, mean(x, -1, true));
    String variance = mean(node("Mul", centred, centred), -1, true);
    String deviation = node("Sqrt", node("Add", variance, graph.scalar((float) eps, DType.F32)));
    return node("Div", centred, deviation);
  }

  String mean(String x, int axis, boolean keep) {
    var attributes =
        OnnxGraph.attributes().with("axes", new long[] {axis}).with("keepdims", keep ? 1 : 0);
    return graph.node("ReduceMean", attributes, x);
  }

  /** Softmax over the last axis, in F32. */
  String softmax(String scores) {
    return graph.node("Softmax", OnnxGraph.attributes().with("axis", -1), scores);
  }

  /**
   * Multi-head attention of q (B, Tq, C) and k, v (B, Tk, C), both sizes free: (B, Tq, C).
   *
   * @param biased what is added to the scores (B, heads, Tq, Tk), which are F32
   */
  String attention(
      String q, String k, String v, int heads, int width, UnaryOperator<String> biased) {
    int each = width / heads;
    // 0 keeps an extent, so that neither batch nor length needs to be known.
    String queries = transpose(reshape(q, 0, 0, heads, each), 0, 2, 1, 3);
    String keys = transpose(reshape(k, 0, 0, heads, each), 0, 2, 3, 1);
    String values = transpose(reshape(v, 0, 0, heads, each), 0, 2, 1, 3);
    // Queries are scaled, not scores, which might not fit F16 before.
    String scaled = node("Mul", queries, scalar((float) (1 / Math.sqrt(each))));
    String scores = biased.apply(single(node("MatMul", scaled, keys)));
    String read = node("MatMul", compute(softmax(scores)), values);
    return reshape(transpose(read, 0, 2, 1, 3), 0, 0, width);
  }

  /** What attention to words adds to its scores: F32 (B, 1, 1, T) of a mask I64 (B, T). */
  String paddingBias(String mask) {
    String padding = node("Equal", mask, graph.longs(0));
    String bias =
        node("Where", padding, graph.scalar(PADDING, DType.F32), graph.scalar(0, DType.F32));
    return node("Unsqueeze", bias, graph.longs(1, 2));
  }

  /** PyTorch's nn.MultiheadAttention of the part {@code name}; bias as paddingBias, or null. */
  String multiHead(String x, String memory, String name, int heads, int width, String bias) {
    return within(
        name,
        () -> {
          UnaryOperator<String> biased = s -> bias == null ? s : node("Add", s, bias);
          String w = "in_proj_weight";
          String b = "in_proj_bias";
          String gathered;
          if (x.equals(memory)) {
            var qkv = split(linearRows(x, w, b, 0, 3 * width), 3);
            gathered = attention(qkv.get(0), qkv.get(1), qkv.get(2), heads, width, biased);
          } else {
            String q = linearRows(x, w, b, 0, width);
            var kv = split(linearRows(memory, w, b, width, 3 * width), 2);
            gathered = attention(q, kv.get(0), kv.get(1), heads, width, biased);
          }
          return linear(gathered, "out_proj");
        });
  }

  /** Equal parts of the last axis. */
  List<String> split(String x, int parts) {
    return graph.nodes("Split", parts, OnnxGraph.attributes().with("axis", -1), x);
  }
}
