package org.deixis.model.swin;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.deixis.autograd.Checkpointing;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.nn.Init;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.Module;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;

/**
 * The Swin Transformer (Liu et al., "Swin Transformer: Hierarchical Vision Transformer using
 * Shifted Windows", ICCV 2021) as an encoder: it gives the map of every stage, channels last.
 * Parameter names and numerics are timm's SwinTransformer; its final norm and head, which no map
 * goes through, are left out.
 *
 * <p>It takes pictures of any size. Under {@link WindowRule#SHRINK} the bias tables belong to the
 * windows of the size it was built for. At another size windows follow the same rule but grow no
 * larger than those; where they are smaller, each reads the rows of its distances out of the table.
 * Padding rules use the full table at every size.
 */
public final class Swin extends Module {
  private final SwinConfig config;
  private final Backend backend;
  private final RandomState random;
  private final Parameter patchWeight;
  private final Parameter patchBias;
  private final LayerNormLayer patchNorm;
  private final List<SwinStage> stages = new ArrayList<>();
  private final List<Windows> built = new ArrayList<>();
  private final Map<List<Windows>, Tensor> subTables = new HashMap<>();
  private DType dtype = DType.F32;

  /**
   * @param height rows of the pictures that the weights were trained on, in pixels
   * @param random where drop-path draws from
   */
  public Swin(
      ParameterSource source, SwinConfig config, int height, int width, RandomState random) {
    this.config = config;
    this.backend = source.backend();
    this.random = random;
    ParameterSource patch = source.part("patch_embed");
    int inputs = 3 * SwinConfig.PATCH * SwinConfig.PATCH;
    int c = config.embedDim();
    patchWeight =
        register(
            "patch_embed.proj.weight",
            patch.parameter(
                "proj.weight",
                Shape.of(c, 3, SwinConfig.PATCH, SwinConfig.PATCH),
                Init.fanIn(inputs)));
    patchBias =
        register(
            "patch_embed.proj.bias", patch.parameter("proj.bias", Shape.of(c), Init.fanIn(inputs)));
    patchNorm = register("patch_embed.norm", new LayerNormLayer(patch.part("norm"), c, 1e-5));
    for (int i = 0; i < config.stages(); i++) {
      String name = "layers." + i;
      Windows windows = Windows.built(config, patches(height), patches(width), i);
      built.add(windows);
      stages.add(register(name, new SwinStage(source.part(name), config, i, windows, random)));
    }
  }

  private static int patches(int pixels) {
    return (pixels + SwinConfig.PATCH - 1) / SwinConfig.PATCH;
  }

  public SwinConfig config() {
    return config;
  }

  /**
   * Maps (B, ⌈H/4⌉, ⌈W/4⌉, C), (B, ⌈H/8⌉, ⌈W/8⌉, 2C), … of all stages.
   *
   * @param images (B, 3, H, W) normalised floats, or (B, H, W, 3) bytes, which are normalised with
   *     ImageNet's statistics
   */
  public List<Tensor> forward(Tensor images) {
    boolean bytes = images.dtype() == DType.U8;
    if (images.shape().rank() != 4 || images.dim(bytes ? 3 : 1) != 3) {
      throw new InputException(
          "pictures are (B, 3, H, W) floats or (B, H, W, 3) bytes, not " + images.array());
    }
    int gridH = patches(images.dim(bytes ? 1 : 2));
    int gridW = patches(images.dim(bytes ? 2 : 3));
    Tensor x = within("patch_embed", () -> embed(bytes ? images : images.cast(dtype)));
    List<Tensor> maps = new ArrayList<>();
    for (int i = 0; i < stages.size(); i++) {
      int stage = i;
      Tensor input = x;
      Windows windows = built.get(i).at(config, gridH, gridW, i);
      Tensor rows = windows.sameSize(built.get(i)) ? null : rows(windows, built.get(i));
      x = within("layers." + i, () -> run(stages.get(stage), input, windows, rows));
      maps.add(x);
    }
    return maps;
  }

  private Tensor run(SwinStage stage, Tensor input, Windows windows, Tensor rows) {
    if (!config.checkpointing()) {
      return stage.forward(input, windows, rows);
    }
    long draws = random.offset();
    return Tensor.of(
        Checkpointing.run(
            input.variable(),
            x -> random.from(draws, () -> stage.forward(Tensor.of(x), windows, rows).variable())));
  }

  private Tensor embed(Tensor images) {
    try (Scope scope = Scope.open()) {
      Tensor patches = images.patches(SwinConfig.PATCH, dtype);
      Tensor weight = patchWeight.tensor().reshape(config.embedDim(), patches.dim(3));
      return patchNorm.forward(patches.linear(weight, patchBias.tensor())).keep(scope);
    }
  }

  /** Made once for each pair of windows, then kept: a forward uploads nothing. */
  private Tensor rows(Windows windows, Windows table) {
    synchronized (subTables) {
      return subTables.computeIfAbsent(
          List.of(windows, table),
          key -> {
            try (Scope scope = Scope.open()) {
              int[] ids = windows.rowsWithin(table);
              Tensor made = Tensor.ints(backend, ids, ids.length);
              Scope.detach(made.array());
              return made;
            }
          });
    }
  }

  @Override
  public void precision(DType wanted) {
    super.precision(wanted);
    dtype = wanted;
  }

  @Override
  public void close() {
    super.close();
    synchronized (subTables) {
      subTables.values().forEach(rows -> rows.array().release());
      subTables.clear();
    }
  }
}
