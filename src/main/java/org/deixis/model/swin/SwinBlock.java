package org.deixis.model.swin;

import org.deixis.backend.Activation;
import org.deixis.backend.Scope;
import org.deixis.core.Shape;
import org.deixis.nn.DropoutLayer;
import org.deixis.nn.Init;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;

/**
 * One Swin block: x += attention(norm1(x)); x += mlp(norm2(x)). A block hands on its stream and the
 * MLP's result not yet added, so that the next block's norm takes the sum in the same pass.
 */
final class SwinBlock extends Module {
  /** timm draws weights from a normal cut at ±2, which at this width is no cut at all. */
  static final ParameterSource.Init WEIGHTS = Init.normal(0.02);

  private static final int MLP_RATIO = 4;
  private static final double EPS = 1e-5;

  private final int heads;
  private final boolean shifted;
  private final boolean padFirst;
  private final Activation activation;
  private final LayerNormLayer norm1;
  private final LayerNormLayer norm2;
  private final LinearLayer qkv;
  private final LinearLayer proj;
  private final LinearLayer fc1;
  private final LinearLayer fc2;
  private final Parameter table;
  private final DropoutLayer dropPath;

  SwinBlock(
      ParameterSource source,
      SwinConfig config,
      int stage,
      int index,
      Windows built,
      double drop,
      RandomState random) {
    int width = config.width(stage);
    heads = config.heads().get(stage);
    shifted = index % 2 == 1;
    padFirst = config.windowRule() == WindowRule.PAD_FIRST;
    activation = config.activation();
    norm1 = register("norm1", new LayerNormLayer(source.part("norm1"), width, EPS));
    ParameterSource attention = source.part("attn");
    table =
        register(
            "attn.relative_position_bias_table",
            attention.parameter(
                "relative_position_bias_table", Shape.of(built.tableRows(), heads), WEIGHTS));
    qkv = register("attn.qkv", linear(attention.part("qkv"), width, 3 * width, true));
    proj = register("attn.proj", linear(attention.part("proj"), width, width, true));
    norm2 = register("norm2", new LayerNormLayer(source.part("norm2"), width, EPS));
    int inner = MLP_RATIO * width;
    fc1 = register("mlp.fc1", linear(source.part("mlp.fc1"), width, inner, true));
    fc2 = register("mlp.fc2", linear(source.part("mlp.fc2"), inner, width, true));
    dropPath = register("drop_path", DropoutLayer.samples(drop, random));
  }

  static LinearLayer linear(ParameterSource source, int in, int out, boolean bias) {
    return new LinearLayer(source, in, out, bias, WEIGHTS, Init.zeros());
  }

  /**
   * @param x (B, H, W, C)
   * @param pending what the block before has yet to add to x, or null
   * @param rows ids of the table's rows that belong to {@code windows}, or null for all in order
   * @return the stream and what is yet to be added to it
   */
  Tensor[] forward(Tensor x, Tensor pending, Windows windows, Tensor rows) {
    try (Scope scope = Scope.open()) {
      Tensor stream = x;
      Tensor normed;
      if (pending == null) {
        normed = within("norm1", () -> norm1.forward(x));
      } else {
        Tensor[] both = within("norm1", () -> norm1.forward(pending, x));
        stream = both[0];
        normed = both[1];
      }
      Tensor attended = within("attn", () -> attend(normed, windows, rows));
      Tensor skip = stream;
      Tensor[] both = within("norm2", () -> norm2.forward(dropPath.forward(attended), skip));
      Tensor mlp = within("mlp", () -> fc1.forward(both[1], activation, fc2));
      return new Tensor[] {both[0].keep(scope), dropPath.forward(mlp).keep(scope)};
    }
  }

  private Tensor attend(Tensor x, Windows windows, Tensor rows) {
    Tensor bias = table.tensor();
    Tensor packed = qkv.forward(x);
    boolean padded = !windows.cover(x.dim(1), x.dim(2));
    Tensor gathered =
        packed.windowAttention(
            padded ? qkv.bias().tensor() : null,
            rows == null ? bias : rows.embedding(bias),
            heads,
            windows.height(),
            windows.width(),
            shifted ? windows.shiftH() : 0,
            shifted ? windows.shiftW() : 0,
            padFirst);
    return proj.forward(gathered);
  }
}
