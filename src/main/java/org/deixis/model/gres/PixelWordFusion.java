package org.deixis.model.gres;

import org.deixis.backend.Activation;
import org.deixis.backend.Scope;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.MultiHeadAttention;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/**
 * One level's pixels read the words; what they read multiplies a gate of the pixel (as in LAVT,
 * Yang et al., CVPR 2022), with a residual and LayerNorm.
 */
final class PixelWordFusion extends Module {
  private final MultiHeadAttention attention;
  private final LinearLayer gate;
  private final LayerNormLayer norm;

  PixelWordFusion(ParameterSource source, int dim, int heads) {
    attention = register("attn", new MultiHeadAttention(source.part("attn"), dim, heads));
    gate = register("gate", new LinearLayer(source.part("gate"), dim, dim));
    norm = register("norm", new LayerNormLayer(source.part("norm"), dim, 1e-5));
  }

  /** z (B, N, D), words (B, T, D), mask I32 (B, T); result (B, N, D). */
  Tensor forward(Tensor z, Tensor words, Tensor mask) {
    try (Scope scope = Scope.open()) {
      Tensor read = within("attn", () -> attention.cross(z, words, mask));
      Tensor gated = gate.forward(z, Activation.GELU).mul(read);
      return norm.forward(gated, z)[1].keep(scope);
    }
  }
}
