package org.deixis.model.gres;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Activation;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.model.bert.TextEncoder;
import org.deixis.model.swin.Swin;
import org.deixis.nn.ConvLayer;
import org.deixis.nn.GroupNormLayer;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/**
 * Generalised referring-expression segmentation in the manner of GRES/ReLA (Liu et al., CVPR 2023):
 * Swin sees, BERT reads, a feature pyramid whose pixels read the words, and stacked region-image
 * and region-language attention.
 *
 * <p>Several expressions of one picture share its encoding: with I pictures and B expressions,
 * expressions b·B/I … belong to picture b.
 */
public final class GuideModel extends Module {
  private static final int LEVELS = 4;

  private final GresConfig config;
  private final Backend backend;
  private final Swin vision;
  private final TextEncoder text;
  private final LinearLayer textProjection;
  private final List<LinearLayer> lateral = new ArrayList<>();
  private final PixelWordFusion[] fusion = new PixelWordFusion[LEVELS];
  private final ConvLayer maskConv;
  private final GroupNormLayer maskNorm;
  private final List<RegionImageAttention> ria = new ArrayList<>();
  private final List<RegionLanguageAttention> rla = new ArrayList<>();
  private final List<LayerNormLayer> riaNorm = new ArrayList<>();
  private final List<LayerNormLayer> rlaNorm = new ArrayList<>();
  private final LinearLayer regionHead;
  private final LinearLayer maskEmbed0;
  private final LinearLayer maskEmbed2;
  private final LinearLayer noTarget0;
  private final LinearLayer noTarget2;

  public GuideModel(ParameterSource source, GresConfig config) {
    this.config = config;
    this.backend = source.backend();
    int d = config.dim();
    vision = register("vision", new Swin(source.part("vision"), config.vision()));
    text = register("text", new TextEncoder(source.part("text"), config.text()));
    textProjection =
        register(
            "text_proj", new LinearLayer(source.part("text_proj"), config.text().hiddenSize(), d));
    for (int i = 0; i < LEVELS; i++) {
      String name = "lateral." + i;
      lateral.add(register(name, new LinearLayer(source.part(name), config.vision().width(i), d)));
    }
    for (int level : config.fusionLevels()) {
      String name = "fusion." + level;
      fusion[level] = register(name, new PixelWordFusion(source.part(name), d, config.heads()));
    }
    maskConv =
        register(
            "mask_conv", new ConvLayer(source.part("mask_conv"), d, config.maskDim(), 3, false));
    maskNorm =
        register(
            "mask_norm",
            new GroupNormLayer(source.part("mask_norm"), config.normGroups(), config.maskDim()));
    for (int i = 0; i < config.layers(); i++) {
      ria.add(
          register(
              "ria." + i, new RegionImageAttention(source.part("ria." + i), d, config.regions())));
      rla.add(
          register(
              "rla." + i, new RegionLanguageAttention(source.part("rla." + i), d, config.heads())));
      riaNorm.add(
          register("ria_norm." + i, new LayerNormLayer(source.part("ria_norm." + i), d, 1e-5)));
      rlaNorm.add(
          register("rla_norm." + i, new LayerNormLayer(source.part("rla_norm." + i), d, 1e-5)));
    }
    regionHead = linear(source, "region_head", d, 1);
    maskEmbed0 = linear(source, "mask_embed.0", d, d);
    maskEmbed2 = linear(source, "mask_embed.2", d, config.maskDim());
    noTarget0 = linear(source, "no_target_head.0", d, d);
    noTarget2 = linear(source, "no_target_head.2", d, 1);
  }

  private LinearLayer linear(ParameterSource source, String name, int in, int out) {
    return register(name, new LinearLayer(source.part(name), in, out));
  }

  public GresConfig config() {
    return config;
  }

  public Backend backend() {
    return backend;
  }

  /** What pictures look like to the model: computed once, used by all their expressions. */
  public record PictureEncoding(List<Tensor> lateral, int images) {
    PictureEncoding keep(Scope scope) {
      lateral.forEach(t -> t.keep(scope));
      return this;
    }
  }

  /**
   * Pictures (I, 3, H, W) normalised floats, or (I, H, W, 3) bytes, to lateral maps (I, h, w, D),
   * finest first.
   */
  public PictureEncoding encodePictures(Tensor image) {
    return within(
        "model",
        () -> {
          try (Scope scope = Scope.open()) {
            List<Tensor> maps = within("vision", () -> vision.forward(image));
            List<Tensor> out = new ArrayList<>();
            for (int i = 0; i < LEVELS; i++) {
              int level = i;
              out.add(within("lateral." + i, () -> lateral.get(level).forward(maps.get(level))));
            }
            return new PictureEncoding(out, image.dim(0)).keep(scope);
          }
        });
  }

  /** Tokens (B·T) row-major to words (B, T, D). */
  private Tensor encodeText(int[] ids, int[] mask, Tensor maskTensor) {
    try (Scope scope = Scope.open()) {
      Tensor read = within("text", () -> text.forward(backend, ids, mask, maskTensor));
      return within("text_proj", () -> textProjection.forward(read)).keep(scope);
    }
  }

  public Prediction forward(Tensor image, int[] ids, int[] mask, int tokens) {
    return forward(image, ids, mask, tokens, RegionGrid.of(config.regions()));
  }

  /**
   * @param ids (B·T) token ids, row-major
   * @param mask (B·T) 1 = token, 0 = padding
   * @param grid how many regions to use; at most the configuration's
   */
  public Prediction forward(Tensor image, int[] ids, int[] mask, int tokens, RegionGrid grid) {
    try (Scope scope = Scope.open()) {
      PictureEncoding pictures = encodePictures(image);
      return keep(scope, predict(pictures, ids, mask, tokens, grid));
    }
  }

  /** Predictions for expressions of pictures that were encoded before. */
  public Prediction predict(
      PictureEncoding pictures, int[] ids, int[] mask, int tokens, RegionGrid grid) {
    if (ids.length != mask.length || tokens <= 0 || ids.length % tokens != 0) {
      throw new IllegalArgumentException(
          ids.length
              + " ids and "
              + mask.length
              + " mask entries for rows of "
              + tokens
              + " tokens");
    }
    int batch = ids.length / tokens;
    if (batch % pictures.images() != 0) {
      throw new IllegalArgumentException(
          batch + " expressions do not divide among " + pictures.images() + " pictures");
    }
    if (grid.regions() > config.regions()) {
      throw new IllegalArgumentException(
          grid.regions() + " regions asked for, and the model has " + config.regions());
    }
    return within(
        "model",
        () -> {
          try (Scope scope = Scope.open()) {
            Tensor maskTensor = Tensor.ints(backend, mask, batch, tokens);
            Tensor words = encodeText(ids, mask, maskTensor);
            Tensor[] pyramid = pyramid(pictures, words, maskTensor, batch / pictures.images());
            return keep(scope, decode(pyramid, words, maskTensor, batch, grid));
          }
        });
  }

  private static Prediction keep(Scope scope, Prediction p) {
    p.mask().keep(scope);
    p.regions().keep(scope);
    p.noTarget().keep(scope);
    p.regionAttention().keep(scope);
    return p;
  }

  /**
   * Levels (B, h·w, D) with their size: coarse to fine, each adding the coarser one, then reading
   * the words.
   */
  private Tensor[] pyramid(PictureEncoding pictures, Tensor words, Tensor mask, int share) {
    Tensor[] levels = new Tensor[LEVELS];
    for (int i = LEVELS - 1; i >= 0; i--) {
      Tensor side = pictures.lateral().get(i);
      Tensor y = side.upsampleAdd(i < LEVELS - 1 ? levels[i + 1] : null, share);
      if (fusion[i] != null) {
        PixelWordFusion fuse = fusion[i];
        int b = y.dim(0);
        int h = y.dim(1);
        int w = y.dim(2);
        Tensor rows = y.reshape(b, h * w, config.dim());
        y =
            within("fusion." + i, () -> fuse.forward(rows, words, mask))
                .reshape(b, h, w, config.dim());
      }
      levels[i] = y;
    }
    return levels;
  }

  private Prediction decode(
      Tensor[] pyramid, Tensor words, Tensor mask, int batch, RegionGrid grid) {
    int p = grid.regions();
    int d = config.dim();
    int h = pyramid[0].dim(1);
    int w = pyramid[0].dim(2);
    Tensor features =
        within("mask_norm", () -> maskNorm.forward(maskConv.forward(pyramid[0])).relu());

    Tensor regions = null;
    Tensor map = null;
    for (int i = 0; i < ria.size(); i++) {
      int layer = i;
      Tensor level = pyramid[3 - i % 3];
      Tensor pixels = level.reshape(batch, level.dim(1) * level.dim(2), d);
      Tensor before = regions;
      Tensor[] gathered = within("ria." + i, () -> ria.get(layer).forward(pixels, before, p));
      map = gathered[1];
      Tensor seen =
          before == null
              ? riaNorm.get(i).forward(gathered[0])
              : riaNorm.get(i).forward(gathered[0], before)[1];
      Tensor related = within("rla." + i, () -> rla.get(layer).forward(seen, words, mask));
      regions = rlaNorm.get(i).forward(related, seen)[1];
    }

    Tensor scores = regionHead.forward(regions); // (B, P, 1)
    Tensor filters = maskEmbed2.forward(maskEmbed0.forward(regions, Activation.RELU)); // (B, P, Dm)
    Tensor target = scores.sigmoid().matmul(filters, true, false); // (B, 1, Dm)
    Tensor rows = features.reshape(batch, h * w, config.maskDim());
    Tensor logits = target.matmul(rows, false, true).reshape(batch, h, w);
    Tensor none =
        noTarget2.forward(noTarget0.forward(regions.mean(1, 2), Activation.RELU)).reshape(batch);
    return new Prediction(logits, scores.reshape(batch, p), none, map, grid);
  }
}
