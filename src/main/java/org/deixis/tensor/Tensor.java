package org.deixis.tensor;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.deixis.autograd.Variable;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Binary;
import org.deixis.backend.Reduction;
import org.deixis.backend.Scope;
import org.deixis.backend.Unary;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.ops.AttentionOp;
import org.deixis.ops.BinaryOp;
import org.deixis.ops.Convolution;
import org.deixis.ops.Dropout;
import org.deixis.ops.Embedding;
import org.deixis.ops.FeedForward;
import org.deixis.ops.GroupNorm;
import org.deixis.ops.GruCell;
import org.deixis.ops.LayerNorm;
import org.deixis.ops.Layout;
import org.deixis.ops.Linear;
import org.deixis.ops.Losses;
import org.deixis.ops.MatMul;
import org.deixis.ops.Patches;
import org.deixis.ops.Reduce;
import org.deixis.ops.RegionAttention;
import org.deixis.ops.RegionPool;
import org.deixis.ops.Resize;
import org.deixis.ops.Scale;
import org.deixis.ops.Softmax;
import org.deixis.ops.UnaryOp;
import org.deixis.ops.WindowAttentionOp;

/**
 * The fluent face of the operations: one line a method; formulas, layouts and errors are with the
 * operation. Its memory belongs to the {@link Scope} it was made in.
 */
public final class Tensor {
  private final Variable variable;

  private Tensor(Variable variable) {
    this.variable = variable;
  }

  public static Tensor of(Variable variable) {
    return new Tensor(variable);
  }

  /** A constant over an existing array. */
  public static Tensor of(Array array) {
    return new Tensor(Variable.constant(array));
  }

  public static Tensor floats(Backend backend, float[] values, int... dims) {
    return of(backend.allocate(sized(values.length, dims), DType.F32)).set(values);
  }

  public static Tensor ints(Backend backend, int[] values, int... dims) {
    return of(backend.allocate(sized(values.length, dims), DType.I32)).set(values);
  }

  public static Tensor longs(Backend backend, long[] values, int... dims) {
    ByteBuffer bytes = host(values.length, DType.I64);
    bytes.asLongBuffer().put(values);
    return of(backend.allocate(sized(values.length, dims), DType.I64)).upload(bytes, DType.I64);
  }

  public static Tensor bytes(Backend backend, byte[] values, int... dims) {
    return of(backend.allocate(sized(values.length, dims), DType.U8)).set(values);
  }

  /** Overwrites all values of this F32 tensor; returns it. */
  public Tensor set(float[] values) {
    ByteBuffer bytes = host(values.length, DType.F32);
    bytes.asFloatBuffer().put(values);
    return upload(bytes, DType.F32);
  }

  /** Overwrites all values of this I32 tensor; returns it. */
  public Tensor set(int[] values) {
    ByteBuffer bytes = host(values.length, DType.I32);
    bytes.asIntBuffer().put(values);
    return upload(bytes, DType.I32);
  }

  /** Overwrites all values of this U8 tensor; returns it. */
  public Tensor set(byte[] values) {
    return upload(ByteBuffer.wrap(values), DType.U8);
  }

  private static ByteBuffer host(int length, DType dtype) {
    return ByteBuffer.allocate(Math.multiplyExact(length, (int) dtype.bytes()))
        .order(ByteOrder.LITTLE_ENDIAN);
  }

  private Tensor upload(ByteBuffer bytes, DType dtype) {
    if (dtype() != dtype || bytes.remaining() != array().bytes()) {
      throw new IllegalArgumentException(
          bytes.remaining() + " bytes of " + dtype + " for a tensor " + array());
    }
    backend().upload(bytes, array());
    return this;
  }

  private static Shape sized(int length, int... dims) {
    Shape shape = Shape.of(dims);
    if (shape.size() != length) {
      throw new IllegalArgumentException(length + " values for the shape " + shape);
    }
    return shape;
  }

  public static Tensor zeros(Backend backend, DType dtype, int... dims) {
    Array array = backend.allocate(Shape.of(dims), dtype);
    backend.fill(array, 0);
    return of(array);
  }

  // ---- what it is

  public Variable variable() {
    return variable;
  }

  public Array array() {
    return variable.array();
  }

  public Backend backend() {
    return variable.backend();
  }

  public Shape shape() {
    return variable.shape();
  }

  public int dim(int axis) {
    return variable.shape().dim(axis);
  }

  public DType dtype() {
    return variable.dtype();
  }

  /** Lets the scope around {@code scope} own it too. */
  public Tensor keep(Scope scope) {
    scope.keep(array());
    return this;
  }

  /** The same values, cut off from the tape. */
  public Tensor detach() {
    return of(array());
  }

  /** The values on the host as floats; waits for the device. Floating types only. */
  public float[] toFloats() {
    if (dtype() != DType.F32) {
      try (Scope scope = Scope.open()) {
        Array f32 = backend().allocate(shape(), DType.F32);
        backend().copy(array(), f32);
        return of(f32).toFloats();
      }
    }
    ByteBuffer bytes = download();
    float[] values = new float[bytes.capacity() / 4];
    bytes.asFloatBuffer().get(values);
    return values;
  }

  private ByteBuffer download() {
    ByteBuffer bytes =
        ByteBuffer.allocate(Math.toIntExact(array().bytes())).order(ByteOrder.LITTLE_ENDIAN);
    backend().download(array(), bytes);
    bytes.clear();
    return bytes;
  }

  /** The only value of a one-element tensor; waits for the device. */
  public float item() {
    if (shape().size() != 1) {
      throw new IllegalStateException("item of a tensor " + shape());
    }
    return toFloats()[0];
  }

  // ---- elementwise

  public Tensor gelu() {
    return of(UnaryOp.apply(Unary.GELU, variable));
  }

  public Tensor geluTanh() {
    return of(UnaryOp.apply(Unary.GELU_TANH, variable));
  }

  public Tensor relu() {
    return of(UnaryOp.apply(Unary.RELU, variable));
  }

  public Tensor sigmoid() {
    return of(UnaryOp.apply(Unary.SIGMOID, variable));
  }

  public Tensor tanh() {
    return of(UnaryOp.apply(Unary.TANH, variable));
  }

  public Tensor exp() {
    return of(UnaryOp.apply(Unary.EXP, variable));
  }

  public Tensor square() {
    return of(UnaryOp.apply(Unary.SQUARE, variable));
  }

  public Tensor add(Tensor other) {
    return of(BinaryOp.apply(Binary.ADD, variable, other.variable));
  }

  public Tensor sub(Tensor other) {
    return of(BinaryOp.apply(Binary.SUB, variable, other.variable));
  }

  public Tensor mul(Tensor other) {
    return of(BinaryOp.apply(Binary.MUL, variable, other.variable));
  }

  public Tensor div(Tensor other) {
    return of(BinaryOp.apply(Binary.DIV, variable, other.variable));
  }

  public Tensor scale(double factor) {
    return of(Scale.apply(variable, factor));
  }

  // ---- folding

  public Tensor sum(int from, int to) {
    return of(Reduce.apply(Reduction.SUM, variable, from, to));
  }

  public Tensor mean(int from, int to) {
    return of(Reduce.apply(Reduction.MEAN, variable, from, to));
  }

  /** Mean of all elements, a scalar. */
  public Tensor mean() {
    return mean(0, shape().rank());
  }

  /** Sum of all elements, a scalar. */
  public Tensor sum() {
    return sum(0, shape().rank());
  }

  public Tensor max(int from, int to) {
    return of(Reduce.apply(Reduction.MAX, variable, from, to));
  }

  // ---- products

  public Tensor linear(Tensor weight, Tensor bias, Activation activation) {
    return of(Linear.apply(variable, weight.variable, variable(bias), activation));
  }

  public Tensor linear(Tensor weight, Tensor bias) {
    return linear(weight, bias, Activation.NONE);
  }

  /** Two linear layers and what lies between them: activation(x W1ᵀ + b1) W2ᵀ + b2. */
  public Tensor feedForward(
      Tensor weight1, Tensor bias1, Activation activation, Tensor weight2, Tensor bias2) {
    return of(
        FeedForward.apply(
            variable,
            weight1.variable,
            variable(bias1),
            activation,
            weight2.variable,
            variable(bias2)));
  }

  public Tensor matmul(Tensor other) {
    return of(MatMul.apply(variable, other.variable, false, false, 1));
  }

  public Tensor matmul(Tensor other, boolean transA, boolean transB) {
    return of(MatMul.apply(variable, other.variable, transA, transB, 1));
  }

  public Tensor conv2d(Tensor weight, Tensor bias, int stride, int padding) {
    return of(Convolution.apply(variable, weight.variable, variable(bias), stride, padding));
  }

  // ---- normalisation

  public Tensor softmax() {
    return of(Softmax.apply(variable));
  }

  public Tensor layerNorm(Tensor gamma, Tensor beta, double eps) {
    return of(LayerNorm.apply(variable, variable(gamma), variable(beta), eps));
  }

  /** {sum, norm(sum)} with sum = this + residual. */
  public Tensor[] addLayerNorm(Tensor residual, Tensor gamma, Tensor beta, double eps) {
    Variable[] out =
        LayerNorm.withResidual(variable, residual.variable, variable(gamma), variable(beta), eps);
    return new Tensor[] {of(out[0]), of(out[1])};
  }

  public Tensor groupNorm(int groups, Tensor gamma, Tensor beta, double eps) {
    return of(GroupNorm.apply(variable, groups, variable(gamma), variable(beta), eps));
  }

  // ---- attention

  public Tensor windowAttention(
      Tensor bias,
      Tensor table,
      int heads,
      int windowH,
      int windowW,
      int shiftH,
      int shiftW,
      boolean padFirst) {
    return of(
        WindowAttentionOp.apply(
            variable,
            variable(bias),
            table.variable,
            heads,
            windowH,
            windowW,
            shiftH,
            shiftW,
            padFirst));
  }

  /** Of a packed qkv projection. */
  public Tensor selfAttention(Tensor mask, int heads) {
    return of(AttentionOp.self(variable, variable(mask), heads));
  }

  /** Of queries to a packed key-value projection. */
  public Tensor crossAttention(Tensor keyValue, Tensor mask, int heads) {
    return of(AttentionOp.cross(variable, keyValue.variable, variable(mask), heads));
  }

  /** {gathered, map} of region queries over pixels. */
  public Tensor[] regionAttention(Tensor key, Tensor value) {
    Variable[] out = RegionAttention.apply(variable, key.variable, value.variable);
    return new Tensor[] {of(out[0]), of(out[1])};
  }

  // ---- lookup and geometry

  /** Rows of {@code table} by these I32 ids. */
  public Tensor embedding(Tensor table) {
    return of(Embedding.apply(variable, table.variable));
  }

  /** The same, where row {@code padding} of the table gets no gradient. */
  public Tensor embedding(Tensor table, int padding) {
    return of(Embedding.apply(variable, table.variable, padding));
  }

  public Tensor patches(int patch, DType dtype) {
    return of(Patches.gather(variable, patch, dtype));
  }

  public Tensor mergePatches() {
    return of(Patches.merge(variable));
  }

  public Tensor resize(int height, int width) {
    return of(Resize.apply(variable, height, width));
  }

  /**
   * This lateral map, repeated {@code share} times a picture, plus the resized coarse map (or
   * null).
   */
  public Tensor upsampleAdd(Tensor coarse, int share) {
    return of(Resize.add(variable, variable(coarse), share));
  }

  public Tensor regionPool(int rows, int columns, DType dtype) {
    return of(RegionPool.apply(variable, rows, columns, dtype));
  }

  // ---- losses

  public Tensor maskLoss(Tensor mask, Losses.Focal focal, float diceWeight) {
    return of(Losses.mask(variable, mask.variable, focal, diceWeight));
  }

  public Tensor binaryLoss(Tensor target, Losses.Focal focal) {
    return of(Losses.binary(variable, target.variable, focal));
  }

  public Tensor crossEntropy(Tensor target, Tensor weight) {
    return of(Losses.crossEntropy(variable, target.variable, variable(weight)));
  }

  // ---- recurrent, random

  public static Tensor gruCell(Tensor gi, Tensor gh, Tensor h) {
    return of(GruCell.apply(gi.variable, gh.variable, h.variable));
  }

  public Tensor dropout(double p, long block, Tensor rng, long offset) {
    return of(Dropout.apply(variable, p, block, rng.variable, offset));
  }

  // ---- layout

  public Tensor reshape(int... dims) {
    return of(Layout.reshape(variable, Shape.of(dims)));
  }

  public Tensor slice(int from, int to) {
    return of(Layout.slice(variable, from, to));
  }

  public static Tensor concat(Tensor... parts) {
    Variable[] variables = new Variable[parts.length];
    for (int i = 0; i < parts.length; i++) {
      variables[i] = parts[i].variable;
    }
    return of(Layout.concat(variables));
  }

  public Tensor repeat(int times) {
    return of(Layout.repeat(variable, times));
  }

  public Tensor transpose(int... permutation) {
    return of(Layout.transpose(variable, permutation));
  }

  public Tensor cast(DType dtype) {
    return of(Layout.cast(variable, dtype));
  }

  private static Variable variable(Tensor t) {
    return t == null ? null : t.variable;
  }

  @Override
  public String toString() {
    return "Tensor " + variable.array();
  }
}
