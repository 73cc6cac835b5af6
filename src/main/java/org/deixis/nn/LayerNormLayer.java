package org.deixis.nn;

import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * Layer normalisation with parameters weight and bias (width), which stay in fp32 in every
 * precision.
 */
public final class LayerNormLayer extends Module {
  private final Parameter weight;
  private final Parameter bias;
  private final double eps;

  public LayerNormLayer(ParameterSource source, int width, double eps) {
    weight = register("weight", source.parameter("weight", Shape.of(width), Init.ones()));
    bias = register("bias", source.parameter("bias", Shape.of(width), Init.zeros()));
    this.eps = eps;
  }

  public Tensor forward(Tensor x) {
    return x.layerNorm(weight.tensor(), bias.tensor(), eps);
  }

  /** {x + residual, norm(x + residual)}. */
  public Tensor[] forward(Tensor x, Tensor residual) {
    return x.addLayerNorm(residual, weight.tensor(), bias.tensor(), eps);
  }

  @Override
  public void precision(DType dtype) {
    // Its sums are carried in fp32 whatever the input's type: a half copy would only lose digits.
  }
}
