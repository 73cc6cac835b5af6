package org.deixis.model.swin;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Scope;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.ParameterSource;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;

/** A stage: patch merging (not in the first one), then its blocks. */
final class SwinStage extends Module {
  private final LayerNormLayer norm;
  private final LinearLayer reduction;
  private final List<SwinBlock> blocks = new ArrayList<>();

  SwinStage(
      ParameterSource source, SwinConfig config, int stage, Windows built, RandomState random) {
    if (stage > 0) {
      int from = config.width(stage - 1);
      ParameterSource downsample = source.part("downsample");
      norm =
          register("downsample.norm", new LayerNormLayer(downsample.part("norm"), 4 * from, 1e-5));
      reduction =
          register(
              "downsample.reduction",
              SwinBlock.linear(downsample.part("reduction"), 4 * from, 2 * from, false));
    } else {
      norm = null;
      reduction = null;
    }
    int before = config.depths().subList(0, stage).stream().mapToInt(Integer::intValue).sum();
    for (int i = 0; i < config.depths().get(stage); i++) {
      String name = "blocks." + i;
      double drop =
          config.blocks() == 1 ? 0 : config.dropPath() * (before + i) / (config.blocks() - 1);
      blocks.add(
          register(name, new SwinBlock(source.part(name), config, stage, i, built, drop, random)));
    }
  }

  /** (B, H, W, C) of the stage before, or of the patches, to this stage's map. */
  Tensor forward(Tensor input, Windows windows, Tensor rows) {
    try (Scope scope = Scope.open()) {
      Tensor x = norm == null ? input : within("downsample", () -> merge(input));
      Tensor pending = null;
      for (int i = 0; i < blocks.size(); i++) {
        SwinBlock block = blocks.get(i);
        Tensor stream = x;
        Tensor toAdd = pending;
        Tensor[] both = within("blocks." + i, () -> block.forward(stream, toAdd, windows, rows));
        x = both[0];
        pending = both[1];
      }
      return x.add(pending).keep(scope);
    }
  }

  private Tensor merge(Tensor x) {
    try (Scope scope = Scope.open()) {
      return reduction.forward(norm.forward(x.mergePatches())).keep(scope);
    }
  }
}
