package org.deixis.nn;

import org.deixis.backend.Activation;
import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/** y = activation(x Wᵀ + b); parameters weight (out, in) and, unless left out, bias (out). */
public final class LinearLayer extends Module {
  private final Parameter weight;
  private final Parameter bias;

  public LinearLayer(ParameterSource source, int in, int out) {
    this(source, in, out, true, Init.fanIn(in), Init.fanIn(in));
  }

  public LinearLayer(
      ParameterSource source,
      int in,
      int out,
      boolean withBias,
      ParameterSource.Init weightInit,
      ParameterSource.Init biasInit) {
    weight = register("weight", source.parameter("weight", Shape.of(out, in), weightInit));
    bias = withBias ? register("bias", source.parameter("bias", Shape.of(out), biasInit)) : null;
  }

  public Tensor forward(Tensor x) {
    return forward(x, Activation.NONE);
  }

  public Tensor forward(Tensor x, Activation activation) {
    return x.linear(weight.tensor(), bias == null ? null : bias.tensor(), activation);
  }

  /** The two layers of a feed-forward part: {@code next} of this layer's activated result. */
  public Tensor forward(Tensor x, Activation activation, LinearLayer next) {
    return x.feedForward(
        weight.tensor(),
        bias == null ? null : bias.tensor(),
        activation,
        next.weight.tensor(),
        next.bias == null ? null : next.bias.tensor());
  }

  public Parameter weight() {
    return weight;
  }

  public Parameter bias() {
    return bias;
  }
}
