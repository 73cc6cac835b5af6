package org.deixis.io;

import ai.onnx.proto.OnnxMl.AttributeProto;
import ai.onnx.proto.OnnxMl.GraphProto;
import ai.onnx.proto.OnnxMl.NodeProto;
import ai.onnx.proto.OnnxMl.TensorProto;
import ai.onnx.proto.OnnxMl.TensorShapeProto;
import ai.onnx.proto.OnnxMl.TypeProto;
import ai.onnx.proto.OnnxMl.ValueInfoProto;
import com.google.protobuf.ByteString;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Supplier;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Shape;

/**
 * An ONNX graph in the making. Values go by name; a node's name is the path of the module it
 * belongs to, a slash and its operator, {@code vision.layers.2.blocks.5.attn/MatMul}, with a number
 * where a module has several, and its result bears the same name. It knows no model.
 *
 * <p>Initialisers give their bytes when the file is written, one after the other, so that a graph
 * never holds all weights at once.
 */
public final class OnnxGraph {
  /** Bytes of one constant; made when the file is written. */
  record Initializer(String name, DType dtype, Shape shape, Supplier<ByteBuffer> data) {
    long bytes() {
      return shape.size() * dtype.bytes();
    }
  }

  private final String name;
  private final int opset;
  private final GraphProto.Builder nodes = GraphProto.newBuilder();
  private final Map<String, Initializer> initializers = new LinkedHashMap<>();
  private final Map<String, Integer> taken = new HashMap<>();
  private final List<String> path = new ArrayList<>();

  /**
   * @param name of the graph, shown by viewers
   * @param opset version of the standard operators that nodes mean
   */
  public OnnxGraph(String name, int opset) {
    this.name = name;
    this.opset = opset;
  }

  /** Version of the standard operators. */
  public int opset() {
    return opset;
  }

  /** Attributes of a node, by name. */
  public static final class Attributes {
    private final List<AttributeProto> list = new ArrayList<>();

    /** A whole number. */
    public Attributes with(String name, long value) {
      return add(
          AttributeProto.newBuilder()
              .setName(name)
              .setType(AttributeProto.AttributeType.INT)
              .setI(value));
    }

    /** A list of whole numbers. */
    public Attributes with(String name, long[] values) {
      AttributeProto.Builder made =
          AttributeProto.newBuilder().setName(name).setType(AttributeProto.AttributeType.INTS);
      Arrays.stream(values).forEach(made::addInts);
      return add(made);
    }

    /** A number. */
    public Attributes with(String name, float value) {
      return add(
          AttributeProto.newBuilder()
              .setName(name)
              .setType(AttributeProto.AttributeType.FLOAT)
              .setF(value));
    }

    /** A word. */
    public Attributes with(String name, String value) {
      return add(
          AttributeProto.newBuilder()
              .setName(name)
              .setType(AttributeProto.AttributeType.STRING)
              .setS(ByteString.copyFromUtf8(value)));
    }

    private Attributes add(AttributeProto.Builder made) {
      list.add(made.build());
      return this;
    }
  }

  /** No attributes yet. */
  public static Attributes attributes() {
    return new Attributes();
  }

  /** Runs {@code body} with {@code part} (which may have dots) on the module path. */
  public <T> T within(String part, Supplier<T> body) {
    path.add(part);
    try {
      return body.get();
    } finally {
      path.remove(path.size() - 1);
    }
  }

  /** The module path with {@code name} behind it. */
  public String path(String name) {
    return path.isEmpty() ? name : String.join(".", path) + "." + name;
  }

  /**
   * Declares an input.
   *
   * @param dims extents as whole numbers, or as names where they vary from run to run
   * @return its name
   */
  public String input(String name, DType dtype, Object... dims) {
    claim(name);
    nodes.addInput(valueInfo(name, dtype, dims));
    return name;
  }

  /** Declares {@code value} as the output {@code name}, of the type and extents given. */
  public void output(String value, String name, DType dtype, Object... dims) {
    claim(name);
    add("Identity", name, List.of(name), attributes(), value);
    nodes.addOutput(valueInfo(name, dtype, dims));
  }

  /**
   * A constant under its own name. The same name twice is a fault, unless {@link #has} was asked.
   *
   * @param data little-endian bytes of the shape's size; asked once, when the file is written
   */
  public String initializer(String name, DType dtype, Shape shape, Supplier<ByteBuffer> data) {
    claim(name);
    initializers.put(name, new Initializer(name, dtype, shape, data));
    return name;
  }

  /** Whether there is a constant of that name. */
  public boolean has(String name) {
    return initializers.containsKey(name);
  }

  /**
   * A constant list of I64, for operators that take shapes and axes as inputs; equal ones are one.
   */
  public String longs(long... values) {
    String name =
        "const/i64" + Arrays.toString(values).replaceAll("[\\[\\],]", "").replaceAll("^| ", "_");
    if (!has(name)) {
      initializer(
          name,
          DType.I64,
          Shape.of(values.length),
          () -> HostTensor.ofLongs(name, Shape.of(values.length), values).bytes());
    }
    return name;
  }

  /** A whole number without extents, I64; equal ones are one. */
  public String whole(long value) {
    String name = "const/i64_scalar_" + value;
    if (!has(name)) {
      Shape shape = Shape.of();
      initializer(
          name,
          DType.I64,
          shape,
          () -> HostTensor.ofLongs(name, shape, new long[] {value}).bytes());
    }
    return name;
  }

  /** A constant without extents, F32 or F16; equal ones are one. */
  public String scalar(float value, DType dtype) {
    String name = "const/" + dtype.name().toLowerCase(Locale.ROOT) + "_" + value;
    if (!has(name)) {
      initializer(name, dtype, Shape.of(), () -> floats(new float[] {value}, dtype));
    }
    return name;
  }

  /** Floats as the bytes of an F32 or F16 constant. */
  public static ByteBuffer floats(float[] values, DType dtype) {
    ByteBuffer bytes =
        ByteBuffer.allocate(Math.multiplyExact(values.length, dtype.bytes()))
            .order(ByteOrder.LITTLE_ENDIAN);
    if (dtype == DType.F32) {
      bytes.asFloatBuffer().put(values);
      return bytes;
    }
    for (float v : values) {
      bytes.putShort(Half.fromFloat(dtype, v));
    }
    return bytes.flip();
  }

  /** A node of one result; an input that is left out is "". Its result's name. */
  public String node(String operator, Attributes attributes, String... inputs) {
    String made = fresh(operator);
    add(operator, made, List.of(made), attributes, inputs);
    return made;
  }

  /** A node without attributes. */
  public String node(String operator, String... inputs) {
    return node(operator, attributes(), inputs);
  }

  /** A node of several results; their names, in order. */
  public List<String> nodes(String operator, int results, Attributes attributes, String... inputs) {
    String made = fresh(operator);
    List<String> names = new ArrayList<>();
    for (int i = 0; i < results; i++) {
      names.add(made + "." + i);
    }
    add(operator, made, names, attributes, inputs);
    return names;
  }

  private void add(
      String operator, String made, List<String> results, Attributes attributes, String... inputs) {
    nodes.addNode(
        NodeProto.newBuilder()
            .setOpType(operator)
            .setName(made)
            .addAllInput(List.of(inputs))
            .addAllOutput(results)
            .addAllAttribute(attributes.list));
  }

  private String fresh(String operator) {
    String base = (path.isEmpty() ? "graph" : String.join(".", path)) + "/" + operator;
    int count = taken.merge(base, 1, Integer::sum);
    return count == 1 ? base : base + "_" + (count - 1);
  }

  private void claim(String name) {
    if (taken.putIfAbsent(name, 1) != null) {
      throw new IllegalStateException("two values of one graph are called " + name);
    }
  }

  private static ValueInfoProto valueInfo(String name, DType dtype, Object... dims) {
    TensorShapeProto.Builder shape = TensorShapeProto.newBuilder();
    for (Object d : dims) {
      if (d instanceof String symbol) {
        shape.addDimBuilder().setDimParam(symbol);
      } else {
        shape.addDimBuilder().setDimValue(((Number) d).longValue());
      }
    }
    return ValueInfoProto.newBuilder()
        .setName(name)
        .setType(
            TypeProto.newBuilder()
                .setTensorType(
                    TypeProto.Tensor.newBuilder().setElemType(type(dtype)).setShape(shape)))
        .build();
  }

  /** ONNX's number of an element type. */
  public static int type(DType dtype) {
    return switch (dtype) {
      case F64 -> TensorProto.DataType.DOUBLE_VALUE;
      case F32 -> TensorProto.DataType.FLOAT_VALUE;
      case F16 -> TensorProto.DataType.FLOAT16_VALUE;
      case BF16 -> TensorProto.DataType.BFLOAT16_VALUE;
      case I64 -> TensorProto.DataType.INT64_VALUE;
      case I32 -> TensorProto.DataType.INT32_VALUE;
      case I16 -> TensorProto.DataType.INT16_VALUE;
      case I8 -> TensorProto.DataType.INT8_VALUE;
      case U8 -> TensorProto.DataType.UINT8_VALUE;
      case BOOL -> TensorProto.DataType.BOOL_VALUE;
    };
  }

  /** The graph without its constants. */
  GraphProto skeleton() {
    return nodes.clone().setName(name).build();
  }

  /** The constants, in the order they were made. */
  List<Initializer> initializers() {
    return List.copyOf(initializers.values());
  }
}
