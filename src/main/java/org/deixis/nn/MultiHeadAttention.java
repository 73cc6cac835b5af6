package org.deixis.nn;

import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * Multi-head attention (Vaswani et al., 2017) with the parameters of PyTorch's
 * nn.MultiheadAttention: in_proj_weight (3C, C) and in_proj_bias (3C) for queries, keys and values
 * in this order, and out_proj. The projections of one input are one product.
 */
public final class MultiHeadAttention extends Module {
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
    Tensor q = x.linear(w.slice(0, width), b.slice(0, width));
    Tensor kv = memory.linear(w.slice(width, 3 * width), b.slice(width, 3 * width));
    return out(q.crossAttention(kv, mask, heads));
  }

  private Tensor out(Tensor gathered) {
    return within("out_proj", () -> out.forward(gathered));
  }
}
