package org.deixis.nn;

import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * Group normalisation of channels-last maps with parameters weight and bias (channels), which stay
 * in fp32.
 */
public final class GroupNormLayer extends Module {
  private final Parameter weight;
  private final Parameter bias;
  private final int groups;
  private final double eps;

  public GroupNormLayer(ParameterSource source, int groups, int channels, double eps) {
    weight = register("weight", source.parameter("weight", Shape.of(channels), Init.ones()));
    bias = register("bias", source.parameter("bias", Shape.of(channels), Init.zeros()));
    this.groups = groups;
    this.eps = eps;
  }

  public Tensor forward(Tensor x) {
    return x.groupNorm(groups, weight.tensor(), bias.tensor(), eps);
  }

  @Override
  public void precision(DType dtype) {
    // As in LayerNormLayer: the norm is computed in fp32 whatever the input's type.
  }
}
