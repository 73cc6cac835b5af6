package org.deixis.nn;

import org.deixis.autograd.Tape;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * Multi-head attention (Vaswani et al., 2017) with the parameters of PyTorch's
 * nn.MultiheadAttention: in_proj_weight (3C, C) and in_proj_bias (3C) for queries, keys and values
 * in this order, and out_proj. The projections of one input are one product.
 *
 * <p>Where no gradient is recorded and many queries meet few keys, as a picture's pixels do a
 * phrase's words, the projections of the queries and of the result are folded into the keys and the
 * values, which is the same sum in another order: with q = Wq x + bq a score is q·k = x·(Wqᵀk) +
 * bq·k, and the output Wo Σ p v + bo is Σ p (Wo v) + bo. A query then costs 2·H·T·C multiply-adds
 * and none of its own 2·C².
 */
public final class MultiHeadAttention extends Module {
  /** Below every score, and a number in fp16 too. */
  private static final double EXCLUDED = -3e4;

  private final Parameter weight;
  private final Parameter bias;
  private final LinearLayer out;
  private final int width;
  private final int heads;

  public MultiHeadAttention(ParameterSource source, int width, int heads) {
    if (heads < 1 || width % heads != 0) {
      throw new IllegalArgumentException(heads + " heads do not divide a width of " + width);
    }
    this.width = width;
    this.heads = heads;
    weight =
        register(
            "in_proj_weight",
            source.parameter(
                "in_proj_weight", Shape.of(3 * width, width), Init.xavier(width, 3 * width)));
    bias =
        register(
            "in_proj_bias", source.parameter("in_proj_bias", Shape.of(3 * width), Init.zeros()));
    out =
        register(
            "out_proj",
            new LinearLayer(
                source.part("out_proj"), width, width, true, Init.fanIn(width), Init.zeros()));
  }

  /** x (B, T, C) attends to itself; mask I32 (B, T), 0 = padding, or null. Result (B, T, C). */
  public Tensor self(Tensor x, Tensor mask) {
    Tensor qkv = x.linear(weight.tensor(), bias.tensor());
    return out(qkv.selfAttention(mask, heads));
  }

  /** x (B, Tq, C) attends to {@code memory} (B, Tk, C); mask I32 (B, Tk) or null. */
  public Tensor cross(Tensor x, Tensor memory, Tensor mask) {
    Tensor w = weight.tensor();
    Tensor b = bias.tensor();
    if (!Tape.records(
            x.variable(), memory.variable(), w.variable(), out.weight().tensor().variable())
        && folds(x.dim(1), memory.dim(1))) {
      return folded(x, memory, mask);
    }
    Tensor q = x.linear(w.slice(0, width), b.slice(0, width));
    Tensor kv = memory.linear(w.slice(width, 3 * width), b.slice(width, 3 * width));
    return out(q.crossAttention(kv, mask, heads));
  }

  /**
   * Whether folding saves products. Beside what the queries cost, every key and value, T of them,
   * is multiplied with a projection more.
   */
  boolean folds(int queries, int keys) {
    long usual = (long) queries * (2L * width + 2L * keys);
    long folded = 2L * queries * heads * keys + 2L * keys * width;
    return usual > folded + folded / 2; // scores are written and read more often
  }

  private Tensor folded(Tensor x, Tensor memory, Tensor mask) {
    try (Scope scope = Scope.open()) {
      int b = x.dim(0);
      int n = x.dim(1);
      int t = memory.dim(1);
      int d = width / heads;
      Tensor w = weight.tensor();
      Tensor shift = bias.tensor();
      Tensor kv =
          memory
              .linear(w.slice(width, 3 * width), shift.slice(width, 3 * width))
              .reshape(b * t, 2 * heads, d)
              .transpose(1, 0, 2); // (2H, B·T, d): keys of all heads, then values
      Tensor keys = kv.slice(0, heads);
      Tensor values = kv.slice(heads, 2 * heads);
      float scale = (float) (1 / Math.sqrt(d));
      Tensor wq = w.slice(0, width).reshape(heads, d, width);
      Tensor bq = shift.slice(0, width).reshape(heads, d, 1);
      Tensor foldedKeys = byPhrase(keys.matmul(wq).scale(scale), b, t);
      Tensor offsets = byPhrase(keys.matmul(bq).scale(scale), b, t).reshape(b, heads, t);
      if (mask != null) {
        offsets = offsets.add(excluded(mask, x.dtype()));
      }
      Tensor wo = out.weight().tensor().reshape(width, heads, d).transpose(1, 0, 2);
      // A head's probabilities sum to one, so that the bias may go into the values.
      Tensor bo = out.bias().tensor().scale(1.0 / heads);
      Tensor foldedValues = byPhrase(values.matmul(wo, false, true).add(bo), b, t);
      Tensor scores = x.matmul(foldedKeys, false, true).add(offsets.reshape(b, 1, heads * t));
      Tensor probabilities = scores.reshape(b, n, heads, t).softmax().reshape(b, n, heads * t);
      return probabilities.matmul(foldedValues).keep(scope);
    }
  }

  /** (H, B·T, n) as (B, H·T, n). */
  private Tensor byPhrase(Tensor x, int b, int t) {
    int n = x.dim(2);
    return x.reshape(heads, b, t, n).transpose(1, 0, 2, 3).reshape(b, heads * t, n);
  }

  /** (B, 1, T): what a score is lowered by, 0 for a key that counts. */
  private static Tensor excluded(Tensor mask, DType dtype) {
    Tensor table = Tensor.zeros(mask.backend(), dtype, 2, 1);
    mask.backend().fill(table.array().slice(0, 1), EXCLUDED);
    return mask.embedding(table).reshape(mask.dim(0), 1, mask.dim(1));
  }

  private Tensor out(Tensor gathered) {
    return within("out_proj", () -> out.forward(gathered));
  }
}
