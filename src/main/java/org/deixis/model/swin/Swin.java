package org.deixis.model.swin;

import java.util.ArrayList;
import java.util.List;
import org.deixis.autograd.Checkpointing;
import org.deixis.core.Shape;
import org.deixis.nn.Init;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/**
 * The vision encoder: pictures of any size to one map a stage, strides 4, 8, 16, 32, channels last.
 * Parameter names are timm's ({@code layers.1.downsample.reduction.weight}).
 */
public final class Swin extends Module {
  private final SwinConfig config;
  private final Parameter patchWeight;
  private final Parameter patchBias;
  private final LayerNormLayer patchNorm;
  private final List<Stage> stages = new ArrayList<>();

  public Swin(ParameterSource source, SwinConfig config) {
    this.config = config;
    int c = config.embedDim();
    int p = SwinConfig.PATCH;
    ParameterSource projection = source.part("patch_embed").part("proj");
    patchWeight =
        register(
            "patch_embed.proj.weight",
            projection.parameter("weight", Shape.of(c, 3, p, p), Init.fanIn(3 * p * p)));
    patchBias =
        register(
            "patch_embed.proj.bias",
            projection.parameter("bias", Shape.of(c), Init.fanIn(3 * p * p)));
    patchNorm =
        register(
            "patch_embed.norm",
            new LayerNormLayer(source.part("patch_embed").part("norm"), c, 1e-5));
    // timm halves rounding down when it builds windows, though an odd map is merged rounding up.
    int h = (config.imageHeight() + p - 1) / p;
    int w = (config.imageWidth() + p - 1) / p;
    for (int i = 0; i < config.stages(); i++) {
      if (i > 0) {
        h = Math.max(1, h / 2);
        w = Math.max(1, w / 2);
      }
      stages.add(register("layers." + i, new Stage(source.part("layers." + i), config, i, h, w)));
    }
  }

  public SwinConfig config() {
    return config;
  }

  /**
   * @param image floats (I, 3, H, W), normalised, or bytes (I, H, W, 3)
   * @return a map (I, ⌈H/4·2ⁱ⌉, …, width(i)) for each stage
   */
  public List<Tensor> forward(Tensor image) {
    List<Tensor> maps = new ArrayList<>();
    Tensor x =
        within(
            "patch_embed",
            () -> {
              Tensor weight = patchWeight.tensor();
              Tensor rows =
                  image
                      .patches(SwinConfig.PATCH, weight.dtype())
                      .linear(
                          weight.reshape(weight.dim(0), 3 * SwinConfig.PATCH * SwinConfig.PATCH),
                          patchBias.tensor());
              return patchNorm.forward(rows);
            });
    for (int i = 0; i < stages.size(); i++) {
      Stage stage = stages.get(i);
      Tensor in = x;
      x =
          within(
              "layers." + i,
              () ->
                  config.checkpointing()
                      ? Tensor.of(
                          Checkpointing.run(
                              in.variable(), v -> stage.forward(Tensor.of(v)).variable()))
                      : stage.forward(in));
      maps.add(x);
    }
    return maps;
  }

  /** Patch merging (but in the first stage), then the blocks. */
  private static final class Stage extends Module {
    private final LayerNormLayer norm;
    private final LinearLayer reduction;
    private final List<SwinBlock> blocks = new ArrayList<>();

    Stage(ParameterSource source, SwinConfig config, int stage, int mapHeight, int mapWidth) {
      int c = config.width(stage);
      if (stage > 0) {
        ParameterSource down = source.part("downsample");
        norm = register("downsample.norm", new LayerNormLayer(down.part("norm"), 2 * c, 1e-5));
        reduction =
            register(
                "downsample.reduction",
                new LinearLayer(
                    down.part("reduction"), 2 * c, c, false, Init.truncatedNormal(0.02), null));
      } else {
        norm = null;
        reduction = null;
      }
      for (int i = 0; i < config.depths()[stage]; i++) {
        blocks.add(
            register(
                "blocks." + i,
                new SwinBlock(
                    source.part("blocks." + i), config, stage, i % 2 == 1, mapHeight, mapWidth)));
      }
    }

    Tensor forward(Tensor x) {
      Tensor y =
          norm == null
              ? x
              : within("downsample", () -> reduction.forward(norm.forward(x.mergePatches())));
      for (int i = 0; i < blocks.size(); i++) {
        SwinBlock block = blocks.get(i);
        Tensor in = y;
        y = within("blocks." + i, () -> block.forward(in));
      }
      return y;
    }
  }
}
