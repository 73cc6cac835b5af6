package org.deixis.model.swin;

import org.deixis.backend.Activation;
import org.deixis.backend.Scope;
import org.deixis.core.Shape;
import org.deixis.model.swin.SwinConfig.WindowRule;
import org.deixis.nn.Init;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/** One block: x + attention(norm1(x)), then + mlp(norm2(·)). Maps are (B, H, W, C). */
final class SwinBlock extends Module {
  private static final double EPS = 1e-5;
  private static final int MLP_RATIO = 4;

  private final LayerNormLayer norm1;
  private final Attention attention;
  private final LayerNormLayer norm2;
  private final LinearLayer fc1;
  private final LinearLayer fc2;

  /**
   * @param mapHeight size of the map the table is built for
   */
  SwinBlock(
      ParameterSource source,
      SwinConfig config,
      int stage,
      boolean shifted,
      int mapHeight,
      int mapWidth) {
    int c = config.width(stage);
    norm1 = register("norm1", new LayerNormLayer(source.part("norm1"), c, EPS));
    attention =
        register(
            "attn",
            new Attention(source.part("attn"), config, stage, shifted, mapHeight, mapWidth));
    norm2 = register("norm2", new LayerNormLayer(source.part("norm2"), c, EPS));
    fc1 = register("mlp.fc1", linear(source.part("mlp.fc1"), c, MLP_RATIO * c));
    fc2 = register("mlp.fc2", linear(source.part("mlp.fc2"), MLP_RATIO * c, c));
  }

  static LinearLayer linear(ParameterSource source, int in, int out) {
    return new LinearLayer(source, in, out, true, Init.truncatedNormal(0.02), Init.zeros());
  }

  Tensor forward(Tensor x) {
    try (Scope scope = Scope.open()) {
      Tensor a = within("attn", () -> attention.forward(norm1.forward(x)));
      Tensor[] sum = norm2.forward(a, x);
      Tensor hidden = within("mlp", () -> fc1.forward(sum[1], Activation.GELU));
      return within("mlp", () -> fc2.forward(hidden)).add(sum[0]).keep(scope);
    }
  }

  /** Windowed attention with its projections and position table. */
  static final class Attention extends Module {
    private final LinearLayer qkv;
    private final LinearLayer proj;
    private final Parameter table;
    private final int heads;
    private final int windowH;
    private final int windowW;
    private final int shiftH;
    private final int shiftW;
    private final boolean padFirst;

    Attention(
        ParameterSource source,
        SwinConfig config,
        int stage,
        boolean shifted,
        int mapHeight,
        int mapWidth) {
      int c = config.width(stage);
      heads = config.heads()[stage];
      int window = config.window();
      boolean shrink = config.rule() == WindowRule.SHRINK;
      padFirst = config.rule() == WindowRule.PAD_FIRST;
      windowH = shrink ? Math.min(window, mapHeight) : window;
      windowW = shrink ? Math.min(window, mapWidth) : window;
      shiftH = !shifted || shrink && mapHeight <= window ? 0 : window / 2;
      shiftW = !shifted || shrink && mapWidth <= window ? 0 : window / 2;
      table =
          register(
              "relative_position_bias_table",
              source.parameter(
                  "relative_position_bias_table",
                  Shape.of((2 * windowH - 1) * (2 * windowW - 1), heads),
                  Init.truncatedNormal(0.02)));
      qkv = register("qkv", linear(source.part("qkv"), c, 3 * c));
      proj = register("proj", linear(source.part("proj"), c, c));
    }

    Tensor forward(Tensor x) {
      boolean padded = x.dim(1) % windowH != 0 || x.dim(2) % windowW != 0;
      Tensor packed = qkv.forward(x);
      return proj.forward(
          packed.windowAttention(
              padded ? qkv.bias().tensor() : null,
              table.tensor(),
              heads,
              windowH,
              windowW,
              shiftH,
              shiftW,
              padFirst));
    }
  }
}
