package org.deixis.model.gres;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.deixis.backend.Activation;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.model.bert.TextBatch;
import org.deixis.model.bert.TextEncoder;
import org.deixis.model.bert.Tokens;
import org.deixis.model.swin.Swin;
import org.deixis.nn.ConvLayer;
import org.deixis.nn.GroupNormLayer;
import org.deixis.nn.Init;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.ParameterSource;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;

/**
 * The guide variant of ReLA: Swin and BERT, a feature pyramid whose pixels read the words, stacked
 * region-image and region-language attention, and heads for mask, regions and no-target. All maps
 * are channels-last. In eval mode any number of threads may call it at once.
 *
 * <p>A batch is I pictures and B = I·share expressions, those of picture i at i·share and after.
 */
public final class GuideModel extends Module {
  private static final int LEVELS = 4;

  private final GresConfig config;
  private final Backend backend;
  private final RandomState random;
  private final Swin vision;
  private final TextEncoder text;
  private final LinearLayer textProj;
  private final List<LinearLayer> lateral = new ArrayList<>();
  private final Map<Integer, PixelWordFusion> fusion = new TreeMap<>();
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

  /** Null without {@link GresConfig#maskEvidence}. */
  private final LinearLayer noTargetEvidence;

  public GuideModel(ParameterSource source, GresConfig config) {
    this(source, config, 0);
  }

  /**
   * @param dropoutSeed of the draws in training
   */
  public GuideModel(ParameterSource source, GresConfig config, long dropoutSeed) {
    this.config = config;
    backend = source.backend();
    random = new RandomState(source.backend(), dropoutSeed);
    try {
      int d = config.dim();
      vision =
          register(
              "vision",
              new Swin(
                  source.part("vision"),
                  config.swin(),
                  config.imageHeight(),
                  config.imageWidth(),
                  random));
      text = register("text", new TextEncoder(source.part("text"), config.text(), random));
      textProj = linear(source, "text_proj", config.text().hidden(), d);
      for (int i = 0; i < LEVELS; i++) {
        lateral.add(linear(source, "lateral." + i, config.swin().width(i), d));
      }
      for (int level : config.fusionLevels()) {
        String name = "fusion." + level;
        fusion.put(
            level, register(name, new PixelWordFusion(source.part(name), d, config.heads())));
      }
      int dm = config.maskDim();
      maskConv =
          register("mask_conv", new ConvLayer(source.part("mask_conv"), d, dm, 3, 1, 1, false));
      maskNorm =
          register(
              "mask_norm",
              new GroupNormLayer(source.part("mask_norm"), config.normGroups(), dm, 1e-5));
      for (int i = 0; i < config.layers(); i++) {
        String a = "ria." + i;
        ria.add(register(a, new RegionImageAttention(source.part(a), d, config.queries())));
        String b = "rla." + i;
        rla.add(register(b, new RegionLanguageAttention(source.part(b), d, config.heads())));
        riaNorm.add(norm(source, "ria_norm." + i, d));
        rlaNorm.add(norm(source, "rla_norm." + i, d));
      }
      regionHead = linear(source, "region_head", d, 1);
      maskEmbed0 = linear(source, "mask_embed.0", d, d);
      maskEmbed2 = linear(source, "mask_embed.2", d, dm);
      noTarget0 = linear(source, "no_target_head.0", d, d);
      noTarget2 = linear(source, "no_target_head.2", d, 1);
      noTargetEvidence = config.maskEvidence() ? silent(source, "no_target_evidence") : null;
    } catch (RuntimeException e) {
      random.close();
      throw e;
    }
  }

  private LinearLayer linear(ParameterSource source, String name, int in, int out) {
    return register(name, new LinearLayer(source.part(name), in, out));
  }

  /**
   * One number's multiple, at first 0. PyTorch's draw for one input, anywhere in [-1, 1], is as
   * large as what it may become and often of the wrong sign, which training then takes thousands of
   * steps to undo, the no-target loss above all others meanwhile.
   */
  private LinearLayer silent(ParameterSource source, String name) {
    return register(
        name, new LinearLayer(source.part(name), 1, 1, true, Init.zeros(), Init.zeros()));
  }

  private LayerNormLayer norm(ParameterSource source, String name, int width) {
    return register(name, new LayerNormLayer(source.part(name), width, 1e-5));
  }

  public GresConfig config() {
    return config;
  }

  /** The draws of dropout and drop-path; a trainer gives each step its stream. */
  public RandomState random() {
    return random;
  }

  /** Checks a batch of phrases and copies it to the device. */
  public TextBatch upload(Tokens tokens) {
    return text.upload(tokens);
  }

  /** {@link #upload(Tokens)} into a batch of the same shape that was made before. */
  public TextBatch upload(Tokens tokens, TextBatch into) {
    return text.upload(tokens, into);
  }

  /** {@link #encodePictures} and {@link #predict} with the configured number of regions. */
  public Prediction forward(Tensor images, TextBatch phrases) {
    return forward(images, phrases, config.regions());
  }

  public Prediction forward(Tensor images, TextBatch phrases, int regions) {
    try (Scope scope = Scope.open()) {
      return predict(encodePictures(images), phrases, regions).keep(scope);
    }
  }

  /**
   * The part that depends on the pictures alone; it begins a forward, so dropout draws start over.
   *
   * @param images (I, 3, H, W) normalised floats, or (I, H, W, 3) bytes
   */
  public PictureEncoding encodePictures(Tensor images) {
    if (training()) {
      random.restart();
    }
    boolean bytes = images.dtype() == DType.U8;
    try (Scope scope = Scope.open()) {
      List<Tensor> maps = within("model", () -> within("vision", () -> vision.forward(images)));
      List<Tensor> laterals = new ArrayList<>();
      for (int i = 0; i < LEVELS; i++) {
        int level = i;
        laterals.add(within("model", () -> within("lateral." + level, () -> lateral(level, maps))));
      }
      int height = images.dim(bytes ? 1 : 2);
      return new PictureEncoding(laterals, height, images.dim(bytes ? 2 : 3)).keep(scope);
    }
  }

  private Tensor lateral(int level, List<Tensor> maps) {
    return lateral.get(level).forward(maps.get(level));
  }

  /** {@link #predict(PictureEncoding, TextBatch, int)} with the configured number of regions. */
  public Prediction predict(PictureEncoding pictures, TextBatch phrases) {
    return predict(pictures, phrases, config.regions());
  }

  /**
   * What B phrases point at in I pictures; B is a multiple of I.
   *
   * @param regions P: as configured, or with {@code adaptive} 4, 8 or 16
   */
  public Prediction predict(PictureEncoding pictures, TextBatch phrases, int regions) {
    int images = pictures.pictures();
    if (images == 0 || phrases.batch() == 0 || phrases.batch() % images != 0) {
      throw new InputException(
          "%d phrases for %d pictures: give each picture the same number, at least one"
              .formatted(phrases.batch(), images));
    }
    if (regions != config.regions()
        && !(config.adaptive() && regions <= config.queries() && regions >= 1)) {
      throw new InputException(
          "%d regions asked of a model of %d; only adaptive models can choose"
              .formatted(regions, config.regions()));
    }
    RegionGrid.of(regions);
    int share = phrases.batch() / images;
    return within("model", () -> decode(pictures, phrases, share, regions));
  }

  private Prediction decode(PictureEncoding pictures, TextBatch phrases, int share, int count) {
    try (Scope scope = Scope.open()) {
      Tensor hidden = within("text", () -> text.forward(phrases));
      Tensor words = within("text_proj", () -> textProj.forward(hidden));
      Tensor mask = phrases.mask();
      Tensor[] pyramid = pyramid(pictures, words, mask, share);
      Tensor features =
          within("mask_conv", () -> maskNorm.forward(maskConv.forward(pyramid[0])).relu());
      Tensor regions = null;
      Tensor attention = null;
      int rows = 0;
      for (int i = 0; i < ria.size(); i++) {
        int layer = i;
        Tensor before = regions;
        Tensor map = pyramid[LEVELS - 1 - i % (LEVELS - 1)];
        Tensor[] both = within("ria." + i, () -> gather(layer, map, before, count));
        Tensor gathered = both[0];
        attention = both[1];
        rows = map.dim(1);
        regions = within("rla." + i, () -> rla.get(layer).forward(gathered, words, mask));
        Tensor told = regions;
        regions = within("rla_norm." + i, () -> rlaNorm.get(layer).forward(told, gathered)[1]);
      }
      return heads(regions, features, attention, rows).keep(scope);
    }
  }

  /** Maps (B, h, w, D) of all levels, finest first, made from the coarsest on. */
  private Tensor[] pyramid(PictureEncoding pictures, Tensor words, Tensor mask, int share) {
    Tensor[] pyramid = new Tensor[LEVELS];
    for (int i = LEVELS - 1; i >= 0; i--) {
      Tensor coarse = i == LEVELS - 1 ? null : pyramid[i + 1];
      Tensor map = pictures.laterals().get(i).upsampleAdd(coarse, share);
      PixelWordFusion level = fusion.get(i);
      pyramid[i] =
          level == null ? map : within("fusion." + i, () -> level.forward(map, words, mask));
    }
    return pyramid;
  }

  /** {regions (B, P, D), attention map} after one region-image attention and its norm. */
  private Tensor[] gather(int layer, Tensor map, Tensor before, int count) {
    try (Scope scope = Scope.open()) {
      Tensor pixels = map.reshape(map.dim(0), map.dim(1) * map.dim(2), map.dim(3));
      Tensor[] both = ria.get(layer).forward(pixels, before, count);
      LayerNormLayer norm = riaNorm.get(layer);
      Tensor regions = before == null ? norm.forward(both[0]) : norm.forward(both[0], before)[1];
      return new Tensor[] {regions.keep(scope), both[1].keep(scope)};
    }
  }

  private Prediction heads(Tensor regions, Tensor features, Tensor attention, int rows) {
    int b = regions.dim(0);
    int p = regions.dim(1);
    int dm = config.maskDim();
    Tensor logits = within("region_head", () -> regionHead.forward(regions)).reshape(b, p);
    Tensor filters =
        within(
            "mask_embed", () -> maskEmbed2.forward(maskEmbed0.forward(regions, Activation.RELU)));
    // Σ over regions of σ(logit)·filter, as a product of (1, P) by (P, Dm).
    Tensor filter = logits.sigmoid().reshape(b, 1, p).matmul(filters);
    int h = features.dim(1);
    int w = features.dim(2);
    Tensor mask = filter.matmul(features.reshape(b, h * w, dm), false, true).reshape(b, h, w);
    Tensor negative =
        within(
            "no_target_head",
            () -> noTarget2.forward(noTarget0.forward(regions.mean(1, 2), Activation.RELU)));
    if (noTargetEvidence != null) {
      // Read, not trained through: the masks learn from masks alone.
      Tensor peak = mask.detach().reshape(b, h * w).max(1, 2).reshape(b, 1);
      negative = negative.add(within("no_target_evidence", () -> noTargetEvidence.forward(peak)));
    }
    return new Prediction(
        mask.cast(DType.F32),
        logits.cast(DType.F32),
        negative.reshape(b).cast(DType.F32),
        attention,
        rows);
  }

  /**
   * Chooses the type of activations and of the copies of weights that forward reads: F32, or F16 or
   * BF16 where the device computes with them. Norms and logits stay in fp32.
   */
  @Override
  public void precision(DType dtype) {
    if (!backend.supports(dtype)) {
      throw new InputException(
          "device '%s' does not compute in %s; choose F32 or another device"
              .formatted(backend.name(), dtype));
    }
    super.precision(dtype);
  }

  @Override
  public void close() {
    super.close();
    random.close();
  }
}
