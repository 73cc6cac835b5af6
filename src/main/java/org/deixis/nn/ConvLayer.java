package org.deixis.nn;

import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * A square convolution of channels-last maps with stride 1 and padding that keeps the size; weight
 * (out, in, k, k).
 */
public final class ConvLayer extends Module {
  private final Parameter weight;
  private final Parameter bias;
  private final int kernel;

  public ConvLayer(ParameterSource source, int in, int out, int kernel, boolean withBias) {
    this.kernel = kernel;
    int fanIn = in * kernel * kernel;
    weight =
        register(
            "weight",
            source.parameter("weight", Shape.of(out, in, kernel, kernel), Init.fanIn(fanIn)));
    bias =
        withBias
            ? register("bias", source.parameter("bias", Shape.of(out), Init.fanIn(fanIn)))
            : null;
  }

  public Tensor forward(Tensor x) {
    return x.conv2d(weight.tensor(), bias == null ? null : bias.tensor(), 1, kernel / 2);
  }
}
