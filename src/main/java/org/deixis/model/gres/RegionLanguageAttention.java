package org.deixis.model.gres;

import org.deixis.backend.Activation;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.MultiHeadAttention;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/**
 * RLA: regions look at each other and at the words; an MLP joins the three (Liu et al., CVPR 2023,
 * section 4).
 */
final class RegionLanguageAttention extends Module {
  private final MultiHeadAttention selfAttention;
  private final MultiHeadAttention crossAttention;
  private final LinearLayer first;
  private final LinearLayer second;

  RegionLanguageAttention(ParameterSource source, int dim, int heads) {
    selfAttention =
        register("self_attn", new MultiHeadAttention(source.part("self_attn"), dim, heads));
    crossAttention =
        register("cross_attn", new MultiHeadAttention(source.part("cross_attn"), dim, heads));
    first = register("mlp.0", new LinearLayer(source.part("mlp.0"), 3 * dim, dim));
    second = register("mlp.2", new LinearLayer(source.part("mlp.2"), dim, dim));
  }

  /** regions (B, P, D), words (B, T, D), mask I32 (B, T); result (B, P, D). */
  Tensor forward(Tensor regions, Tensor words, Tensor mask) {
    Tensor own = within("self_attn", () -> selfAttention.self(regions, null));
    Tensor text = within("cross_attn", () -> crossAttention.cross(regions, words, mask));
    return second.forward(first.forward(Tensor.concat(regions, own, text), Activation.GELU));
  }
}
