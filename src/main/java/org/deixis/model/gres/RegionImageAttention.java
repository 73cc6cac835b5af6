package org.deixis.model.gres;

import org.deixis.autograd.Tape;
import org.deixis.backend.Scope;
import org.deixis.core.Shape;
import org.deixis.nn.Init;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/**
 * Region-image attention of ReLA (Liu et al., "GRES", CVPR 2023, section 4.1): learnt queries, one
 * a region, gather features of the picture with a single head.
 */
public final class RegionImageAttention extends Module {
  private final Parameter queries;
  private final LinearLayer key;
  private final LinearLayer value;
  private final int most;
  private final int width;

  /**
   * @param most rows of the queries' parameter, the largest number of regions
   */
  public RegionImageAttention(ParameterSource source, int width, int most) {
    this.width = width;
    this.most = most;
    queries =
        register(
            "region_queries",
            source.parameter("region_queries", Shape.of(1, most, width), Init.normal(1)));
    key = register("proj_k", new LinearLayer(source.part("proj_k"), width, width));
    value = register("proj_v", new LinearLayer(source.part("proj_v"), width, width));
  }

  /**
   * @param pixels (B, N, D)
   * @param previous the regions so far (B, P, D), added to the queries, or null
   * @param regions P, at most {@code most}: the first P queries are used
   * @return gathered features (B, P, D) and the attention map (B, P, N)
   */
  public Tensor[] forward(Tensor pixels, Tensor previous, int regions) {
    Tensor learnt = queries.tensor();
    if (regions < most) {
      learnt = learnt.reshape(most, width).slice(0, regions).reshape(1, regions, width);
    }
    Tensor q = previous == null ? learnt.repeat(pixels.dim(0)) : previous.add(learnt);
    if (Tape.records(q.variable(), pixels.variable(), key.weight().tensor().variable())) {
      return q.regionAttention(key.forward(pixels), value.forward(pixels));
    }
    try (Scope scope = Scope.open()) {
      Tensor[] both = folded(q, pixels);
      return new Tensor[] {both[0].keep(scope), both[1].keep(scope)};
    }
  }

  /**
   * The same without a projection of any pixel: q·(Wk x + bk) is (Wkᵀq)·x and a number that all
   * pixels share, which the softmax does not see; and a map's rows sum to one, so that Σ p (Wv x +
   * bv) is Wv Σ p x + bv. Training keeps the usual form, in which bk has a gradient, 0 though it
   * is.
   */
  private Tensor[] folded(Tensor q, Tensor pixels) {
    int b = q.dim(0);
    int p = q.dim(1);
    Tensor turned = q.reshape(b * p, width).matmul(key.weight().tensor()).reshape(b, p, width);
    Tensor[] both = turned.regionAttention(pixels, pixels);
    return new Tensor[] {value.forward(both[0]), both[1]};
  }
}
