package org.deixis.nn;

import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * Convolution of channels-last maps (N, H, W, in); parameters weight (out, in, kernel, kernel), as
 * PyTorch shapes it, and unless left out bias (out).
 */
public final class ConvLayer extends Module {
  private final Parameter weight;
  private final Parameter bias;
  private final int stride;
  private final int padding;

  public ConvLayer(
      ParameterSource source,
      int in,
      int out,
      int kernel,
      int stride,
      int padding,
      boolean withBias) {
    ParameterSource.Init init = Init.fanIn(in * kernel * kernel);
    weight =
        register("weight", source.parameter("weight", Shape.of(out, in, kernel, kernel), init));
    bias = withBias ? register("bias", source.parameter("bias", Shape.of(out), init)) : null;
    this.stride = stride;
    this.padding = padding;
  }

  public Tensor forward(Tensor x) {
    return x.conv2d(weight.tensor(), bias == null ? null : bias.tensor(), stride, padding);
  }
}
