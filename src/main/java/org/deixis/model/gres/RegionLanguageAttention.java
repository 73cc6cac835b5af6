package org.deixis.model.gres;

import org.deixis.backend.Activation;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.MultiHeadAttention;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/**
 * Region-language attention of ReLA (Liu et al., CVPR 2023, section 4.2): regions attend to each
 * other and to the words; a perceptron fuses both with the regions themselves.
 */
public final class RegionLanguageAttention extends Module {
  private final MultiHeadAttention self;
  private final MultiHeadAttention cross;
  private final LinearLayer inner;
  private final LinearLayer outer;

  public RegionLanguageAttention(ParameterSource source, int width, int heads) {
    self = register("self_attn", new MultiHeadAttention(source.part("self_attn"), width, heads));
    cross = register("cross_attn", new MultiHeadAttention(source.part("cross_attn"), width, heads));
    inner = register("mlp.0", new LinearLayer(source.part("mlp.0"), 3 * width, width));
    outer = register("mlp.2", new LinearLayer(source.part("mlp.2"), width, width));
  }

  /** regions (B, P, D), words (B, T, D), mask I32 (B, T), 0 = padding. Result (B, P, D). */
  public Tensor forward(Tensor regions, Tensor words, Tensor mask) {
    Tensor among = within("self_attn", () -> self.self(regions, null));
    Tensor read = within("cross_attn", () -> cross.cross(regions, words, mask));
    return within(
        "mlp", () -> inner.forward(Tensor.concat(regions, among, read), Activation.GELU, outer));
  }
}
