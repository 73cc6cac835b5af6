package org.deixis.backend;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;

/**
 * What a device must be able to do: the service-provider interface under the operations.
 *
 * <p>Rules for every implementation:
 *
 * <ul>
 *   <li>Arguments were checked above; a kernel may assume shapes and types that its javadoc names.
 *   <li>Results are written into arrays that the caller allocated; they never alias an input unless
 *       the javadoc says so. Kernels allocate nothing that outlives the call.
 *   <li>Calls may be asynchronous but take effect in order; only {@link #download(Array,
 *       ByteBuffer)}, {@link Download#get} and {@link #synchronize} wait. No kernel reads a result
 *       back, so that a sequence of calls can be captured and replayed.
 *   <li>Floating arrays of one call have one dtype (F32, or F16/BF16 stored, or F64 where
 *       supported) unless said otherwise; sums are carried in at least fp32. Statistics, norms' and
 *       losses' side outputs (marked F32) stay F32 with half inputs, and F64 with F64 inputs.
 *   <li>The same inputs give the same bits: no unordered atomics. Any thread may call.
 *   <li>An array may be empty (an extent 0): then nothing is done to it; sums over nothing are 0.
 * </ul>
 *
 * Layouts: pictures and maps are channels-last (N, H, W, C); "rows" means the product of all axes
 * but the last.
 */
public interface Backend extends AutoCloseable {

  /** Name that {@code --device} takes, for example "cpu". */
  String name();

  /** The device in words, for reports. */
  default String deviceName() {
    return name();
  }

  Memory memory();

  /**
   * True for types that kernels compute with; indices are I32, bitmaps and pictures U8 everywhere.
   */
  boolean supports(DType dtype);

  /** Uninitialised array owned by the current scope. */
  default Array allocate(Shape shape, DType dtype) {
    return new Array(
        memory().allocate(Math.multiplyExact(shape.size(), dtype.bytes())), 0, shape, dtype);
  }

  /**
   * Copies little-endian elements from the host, from the source's position on (which stays where
   * it is); the source may be reused when the call returns.
   */
  void upload(ByteBuffer source, Array target);

  /**
   * Waits for what was asked before, then copies to the host, little-endian, from the target's
   * position on (which stays where it is).
   */
  void download(Array source, ByteBuffer target);

  /**
   * Begins a copy to the host, in order with all other calls; the source may be overwritten or
   * released afterwards. Ask for its bytes once they are needed, and do ask: until then it holds
   * memory.
   */
  default Download download(Array source) {
    ByteBuffer bytes =
        ByteBuffer.allocate(Math.toIntExact(source.bytes())).order(ByteOrder.LITTLE_ENDIAN);
    download(source, bytes);
    return () -> bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN);
  }

  /** Waits until everything asked for is done. */
  void synchronize();

  /** Recording and replay of calls, or null where the device has none. */
  default Graphs graphs() {
    return null;
  }

  /**
   * Whether {@link #freeze} prepares products of F32 activations with weights of this type, of
   * which F32 itself is always one. Where it does not, a model casts its weights and activations.
   *
   * @throws InputException when this device has no gain from that type at all; says why
   */
  default boolean freezes(DType products) {
    return products == DType.F32;
  }

  /**
   * Promises that an F32 array's values stay as they are until its buffer is freed, so that the
   * backend may keep copies of a weight laid out for its products, rounded to {@code products}. A
   * later call that writes into the buffer is an error where copies are kept. A hint: results keep
   * their meaning, and what does not read the array as a product's or convolution's weight sees it
   * unrounded.
   */
  default void freeze(Array weight, DType products) {}

  @Override
  void close();

  // ---- moving and filling

  void fill(Array y, double value);

  /** Same number of elements; converts between floating types, rounding to nearest even. */
  void copy(Array x, Array y);

  /** y = x with axes permuted: y's axis i is x's axis permutation[i]. */
  void transpose(Array x, int[] permutation, Array y);

  /**
   * Columns: for each of {@code rows} rows copies {@code columns} elements from x at row·xStride +
   * xOffset to y at row·yStride + yOffset; adds instead of overwriting when {@code accumulate}.
   */
  void copyColumns(
      int rows,
      int columns,
      Array x,
      int xOffset,
      int xStride,
      Array y,
      int yOffset,
      int yStride,
      boolean accumulate);

  /** y[o][i][n] = x[o][n] for i in [0, times); x is (outer, inner), y (outer, times, inner). */
  void repeat(int outer, int times, int inner, Array x, Array y);

  /**
   * y[o][n] = fold over i of x[o][i][n]; x is (outer, axis, inner). MEAN divides by axis; of an
   * empty axis SUM and MEAN are 0, MAX is −∞.
   */
  void reduce(Reduction kind, int outer, int axis, int inner, Array x, Array y);

  // ---- elementwise

  void unary(Unary kind, Array x, Array y);

  /**
   * dx = dy · f'(x); y = f(x) is at hand too: a kernel reads what suits it. Of RELU and the forms
   * of GELU, whose derivatives want x, y may be null. dx may alias dy. RELU's derivative at 0 is 0.
   */
  void unaryBackward(Unary kind, Array x, Array y, Array dy, Array dx);

  /**
   * y[o][i][n] = a[o][i][n] ∘ b[…], where b is (outer, middle, inner) with any of the three extents
   * replaced by 1. y may alias a. Flags say which extents b has.
   */
  void binary(
      Binary kind,
      int outer,
      int middle,
      int inner,
      boolean bOuter,
      boolean bMiddle,
      boolean bInner,
      Array a,
      Array b,
      Array y);

  /** y = alpha·x + beta·y; with beta 0, y is not read. */
  void axpby(double alpha, Array x, double beta, Array y);

  // ---- products

  /**
   * Matrix product; {@code bias} is (n) or null. With an activation, {@code preActivation} (like c,
   * or null) receives the argument of the activation, which backward needs. bias and preActivation
   * go with beta 0 only.
   */
  void gemm(Gemm spec, Array a, Array b, Array bias, Array preActivation, Array c);

  /**
   * What goes back through a product and the activation before it, at one go where the device can:
   * C = (op(A) op(B)) ⊙ activation′(preActivation), {@code preActivation} like c and no alias of
   * it, beta 0. Only for activations whose derivative needs their argument alone, which all of
   * {@link Activation} are.
   */
  default void gemmBackwardActivation(Gemm spec, Array a, Array b, Array preActivation, Array c) {
    gemm(spec.activated(Activation.NONE), a, b, null, null, c);
    unaryBackward(spec.activation().unary(), preActivation, null, c, c);
  }

  /**
   * The gradients that a linear layer's parameters get, from one reading of dy (rows, out) where
   * the device can: dWeight (out, in) = dyᵀ x of x (rows, in), and dBias (out), or null, the sums
   * of dy's columns.
   */
  default void linearBackwardWeight(
      int rows, int in, int out, Array x, Array dy, Array dWeight, Array dBias) {
    gemm(Gemm.of(out, in, rows, true, false), dy, x, null, null, dWeight);
    if (dBias != null) {
      reduce(Reduction.SUM, 1, rows, out, dy, dBias);
    }
  }

  /** y, x and weight as in {@link Conv2d}; bias (outChannels) or null. */
  void conv2d(Conv2d spec, Array x, Array weight, Array bias, Array y);

  void conv2dBackwardData(Conv2d spec, Array weight, Array dy, Array dx);

  void conv2dBackwardWeight(Conv2d spec, Array x, Array dy, Array dWeight);

  // ---- normalisation

  /** Over the last axis of {@code columns}. */
  void softmax(int rows, int columns, Array x, Array y);

  /** dx = y · (dy − Σ dy·y). dx may alias dy. */
  void softmaxBackward(int rows, int columns, Array y, Array dy, Array dx);

  /**
   * sum = x + residual; y = (sum − mean)·rstd·gamma + beta over the last axis (Ba et al., 2016),
   * biased variance. residual and sum are both null or both given; gamma and beta both null or both
   * given, of x's type or F32; their gradients are like them. {@code stats} is F32 (rows, 2): mean
   * and reciprocal standard deviation.
   */
  void layerNorm(
      int rows,
      int columns,
      double eps,
      Array x,
      Array residual,
      Array gamma,
      Array beta,
      Array sum,
      Array y,
      Array stats);

  /**
   * Gradients of y = layerNorm(x); {@code extra} (or null) is added to dx, for the residual stream.
   * dGamma and dBeta (columns) are null together with gamma.
   */
  void layerNormBackward(
      int rows,
      int columns,
      Array x,
      Array gamma,
      Array stats,
      Array dy,
      Array extra,
      Array dx,
      Array dGamma,
      Array dBeta);

  /**
   * x is (batch, pixels, channels); each of {@code groups} groups of adjacent channels of a picture
   * is normalised (Wu and He, ECCV 2018). gamma, beta (channels, of x's type or F32) or both null.
   * {@code stats} is F32 (batch, groups, 2).
   */
  void groupNorm(
      int batch,
      int pixels,
      int channels,
      int groups,
      double eps,
      Array x,
      Array gamma,
      Array beta,
      Array y,
      Array stats);

  void groupNormBackward(
      int batch,
      int pixels,
      int channels,
      int groups,
      Array x,
      Array gamma,
      Array stats,
      Array dy,
      Array dx,
      Array dGamma,
      Array dBeta);

  // ---- attention

  /**
   * {@code bias} is the projection's bias (3C) that padded positions take, or null where the spec
   * has no padding; {@code table} the relative-position table. {@code lse} is F32 (B, windows,
   * heads, windowH·windowW): log-sum-exp of each query's scores by frame position (of a padded
   * query, whatever suits the backend), kept for backward; null when no gradient is wanted.
   */
  void windowAttention(
      WindowAttention spec, Array qkv, Array bias, Array table, Array y, Array lse);

  /**
   * {@code dBias} (3C, what padded positions contribute to the projection's bias) is null together
   * with bias.
   */
  void windowAttentionBackward(
      WindowAttention spec,
      Array qkv,
      Array bias,
      Array table,
      Array y,
      Array lse,
      Array dy,
      Array dqkv,
      Array dBias,
      Array dTable);

  /**
   * {@code mask} is I32 (B, Tk), 0 = padding, or null; each row of it has at least one token.
   * {@code lse} is F32 (B, heads, Tq) or null.
   */
  void attention(Attention spec, Array q, Array k, Array v, Array mask, Array y, Array lse);

  /**
   * dq, dk, dv are laid out as q, k, v and may be the same packed array; only their own columns are
   * written.
   */
  void attentionBackward(
      Attention spec,
      Array q,
      Array k,
      Array v,
      Array mask,
      Array y,
      Array lse,
      Array dy,
      Array dq,
      Array dk,
      Array dv);

  /**
   * Region-image attention, one head: map = softmax(scale · q kᵀ) over pixels, y = map · v. q is
   * (batch, regions, dim), k and v (batch, pixels, dim), map (batch, regions, pixels).
   */
  void regionAttention(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array q,
      Array k,
      Array v,
      Array y,
      Array map);

  /** {@code dMap} is the gradient that reaches the map from elsewhere, or null. */
  void regionAttentionBackward(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array q,
      Array k,
      Array v,
      Array map,
      Array dy,
      Array dMap,
      Array dq,
      Array dk,
      Array dv);

  // ---- lookup and geometry

  /** y[i] = table[ids[i]]; ids I32, checked above. */
  void embedding(Array ids, Array table, Array y);

  /** dTable = Σ dy over equal ids, rows without one 0; deterministic. */
  void embeddingBackward(Array ids, Array dy, Array dTable);

  /** x is floating (B, 3, H, W), or U8 (B, H, W, 3). */
  void patchGather(PatchGather spec, Array x, Array y);

  /** Gradient of the floating form. */
  void patchScatter(PatchGather spec, Array dy, Array dx);

  /**
   * Swin's patch merging: y (B, ⌈H/2⌉, ⌈W/2⌉, 4C) holds the pixels (2i, 2j), (2i+1, 2j), (2i,
   * 2j+1), (2i+1, 2j+1) of x (B, H, W, C), beyond the edge 0.
   */
  void mergeGather(int batch, int height, int width, int channels, Array x, Array y);

  void mergeScatter(int batch, int height, int width, int channels, Array dy, Array dx);

  /**
   * Bilinear, align_corners = false, no anti-aliasing (PyTorch's F.interpolate): x (N, h, w, C) to
   * y (N, H, W, C); adds to y when {@code accumulate}.
   */
  void resize(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      boolean accumulate,
      Array x,
      Array y);

  void resizeBackward(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      Array dy,
      Array dx);

  /**
   * Mean of each cell of a rows×columns grid over x (N, H, W), floating or U8, into y (N,
   * rows·columns): adaptive average pooling, cell i spanning ⌊iH/rows⌋ to ⌈(i+1)H/rows⌉.
   */
  void regionPool(int batch, int height, int width, int rows, int columns, Array x, Array y);

  void regionPoolBackward(
      int batch, int height, int width, int rows, int columns, Array dy, Array dx);

  // ---- losses

  /**
   * {@code loss} F32 (B); {@code dLogits} (F32, shaped as the logits, or null) the gradient of each
   * picture's own loss. {@code mask} is U8 (0 or 1) or floating, taken as it is.
   */
  void maskLoss(MaskLoss spec, Array logits, Array mask, Array loss, Array dLogits);

  /**
   * Elementwise binary cross-entropy with logits, or with {@code focal}
   * alpha·(1−exp(−bce))^gamma·bce; {@code loss} and {@code dx} (its derivative; or null) are F32,
   * shaped as x.
   */
  void binaryLoss(
      boolean focal, float alpha, float gamma, Array x, Array target, Array loss, Array dx);

  /**
   * Softmax cross-entropy of x (rows, classes) against targets I32 (rows): loss (1) = Σ w[t]·nll /
   * Σ w[t], without rows 0; weight (classes) or null for ones. {@code dx} (or null) is the gradient
   * of that loss; both are F32.
   */
  void crossEntropy(
      int rows, int classes, Array x, Array target, Array weight, Array loss, Array dx);

  // ---- recurrent, random

  /**
   * One gated recurrent unit step (Cho et al., 2014, PyTorch's form): gi and gh are (B, 3H) in the
   * order r, z, n; r = σ(gi_r+gh_r), z = σ(gi_z+gh_z), n = tanh(gi_n + r·gh_n), y = (1−z)·n + z·h.
   */
  void gruCell(int batch, int hidden, Array gi, Array gh, Array h, Array y);

  /** dh is what reaches h directly; what reaches it through gh is the caller's product. */
  void gruCellBackward(
      int batch, int hidden, Array gi, Array gh, Array h, Array dy, Array dgi, Array dgh, Array dh);

  /**
   * Element i is kept when a uniform draw in [0, 1) is at least p, and scaled by 1/(1−p); blocks of
   * {@code block} adjacent elements share a draw (drop-path drops whole samples). The draw for
   * block j is word (offset+j) mod 4 of Philox(seed, stream, (offset+j) div 4), top 24 bits; {@code
   * rng} is I64 (2): seed and stream, on the device, so that a replayed step draws anew. Its own
   * backward, with dy for x. y may alias x.
   */
  void dropout(double p, long block, long offset, Array rng, Array x, Array y);

  // ---- optimisation; control is F32 (AdamW.SLOTS)

  /**
   * Global norm of all gradients: NORM = √Σg² / SCALE, OVERFLOW = 1 if that is not finite else 0,
   * CLIP = min(1, maxNorm / (NORM + 1e-6)) / SCALE; maxNorm 0 means no clipping.
   */
  void gradientNorm(List<Array> gradients, double maxNorm, Array control);

  /**
   * With g = CLIP · gradient, rate = LR · rateFactor and t = STEP + 1: p −= rate·weightDecay·p; m,
   * v moments; p −= rate · (m/(1−β1ᵗ)) / (√(v/(1−β2ᵗ)) + eps). Does nothing when OVERFLOW is set.
   */
  void adamW(AdamW spec, List<AdamW.Slot> slots, Array control);

  /**
   * After the parameters: on OVERFLOW SCALE is halved (not below 1), GOOD = 0, SKIPPED grows;
   * otherwise STEP and GOOD grow, and when GOOD reaches {@code growthInterval} (0: never) SCALE
   * doubles and GOOD = 0.
   */
  void advance(int growthInterval, Array control);
}
