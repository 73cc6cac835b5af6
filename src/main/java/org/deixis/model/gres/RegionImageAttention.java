package org.deixis.model.gres;

import org.deixis.core.Shape;
import org.deixis.nn.Init;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/**
 * RIA: P learnt queries gather picture features, one head (Liu et al., "GRES", CVPR 2023, section
 * 4).
 */
final class RegionImageAttention extends Module {
  private final Parameter queries;
  private final LinearLayer key;
  private final LinearLayer value;
  private final int dim;

  RegionImageAttention(ParameterSource source, int dim, int regions) {
    this.dim = dim;
    queries =
        register(
            "region_queries",
            source.parameter("region_queries", Shape.of(1, regions, dim), Init.normal(1)));
    key = register("proj_k", new LinearLayer(source.part("proj_k"), dim, dim));
    value = register("proj_v", new LinearLayer(source.part("proj_v"), dim, dim));
  }

  /**
   * @param pixels (B, N, D)
   * @param previous (B, P, D), or null in the first layer
   * @param regions how many of the learnt queries are used, from the first on
   * @return gathered features (B, P, D) and the attention map (B, P, N)
   */
  Tensor[] forward(Tensor pixels, Tensor previous, int regions) {
    Tensor own = queries.tensor().reshape(queries.shape().dim(1), dim).slice(0, regions);
    Tensor q =
        previous == null
            ? own.reshape(1, regions * dim)
                .repeat(pixels.dim(0))
                .reshape(pixels.dim(0), regions, dim)
            : previous.add(own);
    return q.regionAttention(key.forward(pixels), value.forward(pixels));
  }
}
