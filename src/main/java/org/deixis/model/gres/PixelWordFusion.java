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
 * A level's pixels attend to the words; what they read multiplies a gate of the pixel (as LAVT's
 * pixel-word attention does: Yang et al., CVPR 2022, section 3.2), then residual and norm.
 */
public final class PixelWordFusion extends Module {
  private final MultiHeadAttention attention;
  private final LinearLayer gate;
  private final LayerNormLayer norm;

  public PixelWordFusion(ParameterSource source, int width, int heads) {
    attention = register("attn", new MultiHeadAttention(source.part("attn"), width, heads));
    gate = register("gate", new LinearLayer(source.part("gate"), width, width));
    norm = register("norm", new LayerNormLayer(source.part("norm"), width, 1e-5));
  }

  /** map (B, h, w, D), words (B, T, D), mask I32 (B, T). Result like map. */
  public Tensor forward(Tensor map, Tensor words, Tensor mask) {
    try (Scope scope = Scope.open()) {
      int b = map.dim(0);
      Tensor z = map.reshape(b, map.dim(1) * map.dim(2), map.dim(3));
      Tensor read = within("attn", () -> attention.cross(z, words, mask));
      Tensor told = gate.forward(z, Activation.GELU).mul(read);
      return norm.forward(told, z)[1].reshape(map.shape().dims()).keep(scope);
    }
  }
}
