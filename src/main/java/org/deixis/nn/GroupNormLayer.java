package org.deixis.nn;

import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * Group normalisation of maps (N, …, C), channels last; weight and bias (C) stay in fp32 in every
 * precision.
 */
public final class GroupNormLayer extends Module {
  private final Parameter weight;
  private final Parameter bias;
  private final int groups;

  public GroupNormLayer(ParameterSource source, int groups, int channels) {
    if (groups <= 0 || channels % groups != 0) {
      throw new IllegalArgumentException(
          channels + " channels do not divide into " + groups + " groups");
    }
    this.groups = groups;
    weight = register("weight", source.parameter("weight", Shape.of(channels), Init.ones()));
    bias = register("bias", source.parameter("bias", Shape.of(channels), Init.zeros()));
  }

  public Tensor forward(Tensor x) {
    return x.groupNorm(groups, weight.tensor(), bias.tensor(), 1e-5);
  }

  @Override
  public void precision(DType dtype) {
    // Computed in fp32 whatever the input's type, as LayerNormLayer.
  }
}
