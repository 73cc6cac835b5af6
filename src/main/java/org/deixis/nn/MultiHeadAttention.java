package org.deixis.nn;

import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * Multi-head attention with the parameters of PyTorch's {@code nn.MultiheadAttention}:
 * in_proj_weight (3D, D), in_proj_bias (3D), out_proj. Queries, keys and values have one width.
 */
public final class MultiHeadAttention extends Module {
  private final Parameter inWeight;
  private final Parameter inBias;
  private final LinearLayer out;
  private final int dim;
  private final int heads;

  public MultiHeadAttention(ParameterSource source, int dim, int heads) {
    if (heads <= 0 || dim % heads != 0) {
      throw new IllegalArgumentException(
          "width " + dim + " does not divide into " + heads + " heads");
    }
    this.dim = dim;
    this.heads = heads;
    inWeight =
        register(
            "in_proj_weight",
            source.parameter("in_proj_weight", Shape.of(3 * dim, dim), Init.xavier(dim, 3 * dim)));
    inBias =
        register("in_proj_bias", source.parameter("in_proj_bias", Shape.of(3 * dim), Init.zeros()));
    out =
        register(
            "out_proj",
            new LinearLayer(
                source.part("out_proj"), dim, dim, true, Init.fanIn(dim), Init.zeros()));
  }

  /** x (B, T, D) attends to itself. */
  public Tensor self(Tensor x, Tensor mask) {
    return out.forward(x.linear(inWeight.tensor(), inBias.tensor()).selfAttention(mask, heads));
  }

  /** x (B, Tq, D) attends to {@code words} (B, Tk, D); mask I32 (B, Tk), 0 = padding, or null. */
  public Tensor cross(Tensor x, Tensor words, Tensor mask) {
    Tensor weight = inWeight.tensor();
    Tensor bias = inBias.tensor();
    Tensor q = x.linear(weight.slice(0, dim), bias.slice(0, dim));
    Tensor kv = words.linear(weight.slice(dim, 3 * dim), bias.slice(dim, 3 * dim));
    return out.forward(q.crossAttention(kv, mask, heads));
  }
}
