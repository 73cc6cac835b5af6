package org.deixis.export;

import java.util.List;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.export.SwinLayers.Level;
import org.deixis.io.OnnxGraph;
import org.deixis.model.gres.GresConfig;

/** The guide model's graph, in the order of its forward. */
final class GuideLayers {
  private static final int LEVELS = 4;
  private static final double EPS = 1e-5;

  /** Names of the results, F32: (B, height, width), (B, P) and (B). */
  record Outputs(String mask, int height, int width, String regions, String negative) {}

  /**
   * One level of the pyramid, both ways, each made when it is first wanted.
   *
   * <p>Convolution and Resize read (B, D, h, w); attention reads (B, h·w, D).
   */
  private final class Map2d {
    private final int height;
    private final int width;
    private String channelsFirst;
    private String rows;

    Map2d(int height, int width, String channelsFirst, String rows) {
      this.height = height;
      this.width = width;
      this.channelsFirst = channelsFirst;
      this.rows = rows;
    }

    String channelsFirst() {
      if (channelsFirst == null) {
        channelsFirst =
            layers.reshape(layers.transpose(rows, 0, 2, 1), -1, config.dim(), height, width);
      }
      return channelsFirst;
    }

    String rows() {
      if (rows == null) {
        String flat = layers.reshape(channelsFirst, -1, config.dim(), (long) height * width);
        rows = layers.transpose(flat, 0, 2, 1);
      }
      return rows;
    }
  }

  private final Layers layers;
  private final OnnxGraph graph;
  private final GresConfig config;
  private final int count;

  /**
   * @param count P
   */
  GuideLayers(Layers layers, GresConfig config, int count) {
    this.layers = layers;
    this.graph = layers.graph();
    this.config = config;
    this.count = count;
  }

  /** F32 (I, 3, H, W), I64 (B, T), I64 (B, T). */
  Outputs outputs(String image, String ids, String mask) {
    List<Level> maps =
        layers.within(
            "vision",
            () ->
                new SwinLayers(layers, config.swin())
                    .maps(layers.compute(image), config.imageHeight(), config.imageWidth()));
    String padding = layers.within("text", () -> layers.paddingBias(mask));
    String hidden =
        layers.within("text", () -> new TextLayers(layers, config.text()).hidden(ids, padding));
    String words = layers.linear(hidden, "text_proj");
    Map2d[] pyramid = pyramid(maps, words, padding, share(image, ids));
    Map2d finest = pyramid[0];
    String features = features(finest);
    String regions = null;
    for (int i = 0; i < config.layers(); i++) {
      Map2d level = pyramid[LEVELS - 1 - i % (LEVELS - 1)];
      String pixels = layers.within("ria." + i, level::rows);
      regions = regionLayer(i, pixels, regions, words, padding);
    }
    return heads(regions, features, finest);
  }

  /** I64 (5): 1, B/I, 1, 1, 1, the shape by which each picture's map is repeated. */
  private String share(String image, String ids) {
    return layers.within(
        "share",
        () -> {
          String phrases = layers.node("Gather", layers.node("Shape", ids), graph.longs(0));
          String pictures = layers.node("Gather", layers.node("Shape", image), graph.longs(0));
          String share = layers.node("Div", phrases, pictures);
          return layers.concat(0, graph.longs(1), share, graph.longs(1, 1, 1));
        });
  }

  private Map2d[] pyramid(List<Level> maps, String words, String padding, String share) {
    Map2d[] pyramid = new Map2d[LEVELS];
    for (int i = LEVELS - 1; i >= 0; i--) {
      int level = i;
      Level map = maps.get(i);
      String lateral = layers.linear(map.value(), "lateral." + i);
      String repeated = layers.within("lateral." + i, () -> repeat(lateral, map, share));
      String sum =
          i == LEVELS - 1
              ? repeated
              : layers.within(
                  "pyramid." + i,
                  () -> layers.node("Add", repeated, resize(pyramid[level + 1], map)));
      Map2d made = new Map2d(map.height(), map.width(), sum, null);
      pyramid[i] =
          config.fusionLevels().contains(i)
              ? layers.within("fusion." + i, () -> fuse(made, words, padding))
              : made;
    }
    return pyramid;
  }

  /** (I, h, w, D) to (B, D, h, w): each picture's map for all of its expressions. */
  private String repeat(String lateral, Level map, String share) {
    String first = layers.transpose(lateral, 0, 3, 1, 2);
    String many = layers.node("Expand", layers.node("Unsqueeze", first, graph.longs(1)), share);
    return layers.reshape(many, -1, config.dim(), map.height(), map.width());
  }

  /** Bilinear, align_corners = false. */
  private String resize(Map2d coarse, Level to) {
    String x = coarse.channelsFirst();
    var attributes =
        OnnxGraph.attributes()
            .with("mode", "linear")
            .with("coordinate_transformation_mode", "half_pixel");
    if (to.height() % coarse.height == 0 && to.width() % coarse.width == 0) {
      float[] scales = {
        1, 1, (float) to.height() / coarse.height, (float) to.width() / coarse.width
      };
      return graph.node("Resize", attributes, x, "", scales(scales));
    }
    // Odd maps have no exact scale; sizes need the batch, which only the run knows.
    String batch = layers.node("Gather", layers.node("Shape", x), graph.longs(0));
    String sizes = layers.concat(0, batch, graph.longs(config.dim(), to.height(), to.width()));
    return graph.node("Resize", attributes, x, "", "", sizes);
  }

  private String scales(float[] scales) {
    String name = "const/scales_" + (int) scales[2] + "x" + (int) scales[3];
    return graph.has(name)
        ? name
        : graph.initializer(
            name, DType.F32, Shape.of(4), () -> OnnxGraph.floats(scales, DType.F32));
  }

  private Map2d fuse(Map2d map, String words, String padding) {
    String z = map.rows();
    String read = layers.multiHead(z, words, "attn", config.heads(), config.dim(), padding);
    String told = layers.node("Mul", layers.gelu(layers.linear(z, "gate")), read);
    String normed = layers.layerNorm(layers.node("Add", z, told), "norm", EPS);
    return new Map2d(map.height, map.width, null, normed);
  }

  /** Mask features (B, Dm, h·w) of the finest level. */
  private String features(Map2d finest) {
    int dm = config.maskDim();
    int groups = config.normGroups();
    long pixels = (long) finest.height * finest.width;
    String x = layers.within("mask_conv", finest::channelsFirst);
    String conv =
        layers.within(
            "mask_conv",
            () ->
                graph.node(
                    "Conv",
                    OnnxGraph.attributes()
                        .with("kernel_shape", new long[] {3, 3})
                        .with("pads", new long[] {1, 1, 1, 1}),
                    x,
                    layers.constant("weight")));
    return layers.within(
        "mask_norm",
        () -> {
          String grouped = layers.reshape(layers.single(conv), -1, groups, dm / groups * pixels);
          String normed = layers.reshape(layers.standardised(grouped, EPS), -1, dm, pixels);
          String scaled = layers.node("Mul", normed, column("weight"));
          return layers.relu(layers.compute(layers.node("Add", scaled, column("bias"))));
        });
  }

  /** A parameter of Dm values as F32 (Dm, 1). */
  private String column(String name) {
    return layers.reshape(layers.constant(name, DType.F32), config.maskDim(), 1);
  }

  /** Regions, F32 (B, P, D), from those before; their sums are few, and kept in F32. */
  private String regionLayer(int i, String pixels, String before, String words, String padding) {
    int d = config.dim();
    int heads = config.heads();
    String gathered = layers.within("ria." + i, () -> gather(pixels, before));
    String sum =
        before == null
            ? gathered
            : layers.within("ria_norm." + i, () -> layers.node("Add", before, gathered));
    String among = layers.layerNormSingle(sum, "ria_norm." + i, EPS);
    String told =
        layers.within(
            "rla." + i,
            () -> {
              String x = layers.compute(among);
              String self = layers.multiHead(x, x, "self_attn", heads, d, null);
              String cross = layers.multiHead(x, words, "cross_attn", heads, d, padding);
              String all = layers.concat(-1, x, self, cross);
              return layers.single(
                  layers.linear(layers.gelu(layers.linear(all, "mlp.0")), "mlp.2"));
            });
    String both = layers.within("rla_norm." + i, () -> layers.node("Add", among, told));
    return layers.layerNormSingle(both, "rla_norm." + i, EPS);
  }

  /** F32 (B, P, D) from pixels (B, N, D): one head, learnt queries plus the regions so far. */
  private String gather(String pixels, String before) {
    int d = config.dim();
    String name = "region_queries";
    String learnt =
        count == config.queries()
            ? layers.constant(name, DType.F32)
            : layers.rows(name, 0, count, Shape.of(1, count, d), DType.F32);
    String q = before == null ? learnt : layers.node("Add", before, learnt);
    String scale = graph.scalar((float) (1 / Math.sqrt(d)), DType.F32);
    String scaled = layers.compute(layers.node("Mul", q, scale));
    String keys = layers.transpose(layers.linear(pixels, "proj_k"), 0, 2, 1);
    String weights = layers.softmax(layers.single(layers.node("MatMul", scaled, keys)));
    return layers.single(
        layers.node("MatMul", layers.compute(weights), layers.linear(pixels, "proj_v")));
  }

  /**
   * Computed in F32, all but the product with the features: the logits are sums in which much
   * cancels, and cost next to nothing.
   */
  private Outputs heads(String regions, String features, Map2d finest) {
    Layers exact = layers.inSingle();
    String logits = exact.linear(regions, "region_head"); // (B, P, 1)
    String filters = exact.linear(activated(exact, regions, "mask_embed"), "mask_embed.2");
    String mean = exact.within("heads", () -> exact.mean(regions, 1, false));
    String pooled = exact.linear(activated(exact, mean, "no_target_head"), "no_target_head.2");
    String mask =
        layers.within(
            "heads",
            () -> {
              String weights = exact.transpose(exact.node("Sigmoid", logits), 0, 2, 1);
              String filter = exact.node("MatMul", weights, filters); // (B, 1, Dm)
              String flat = layers.node("MatMul", layers.compute(filter), features);
              return layers.reshape(layers.single(flat), -1, finest.height, finest.width);
            });
    String negative = config.maskEvidence() ? withEvidence(pooled, mask) : pooled;
    return layers.within(
        "heads",
        () ->
            new Outputs(
                mask,
                finest.height,
                finest.width,
                exact.node("Squeeze", logits, graph.longs(2)),
                exact.node("Squeeze", negative, graph.longs(1))));
  }

  /** The first layer of a head of two, and its ReLU, which is the head's module 1. */
  private String activated(Layers exact, String x, String head) {
    String inner = exact.linear(x, head + ".0");
    return exact.within(head + ".1", () -> exact.relu(inner));
  }

  private String withEvidence(String pooled, String mask) {
    String told = evidence(mask);
    return layers.within("heads", () -> layers.inSingle().node("Add", pooled, told));
  }

  /** (B, 1): what the highest logit of the mask says of there being a target. */
  private String evidence(String mask) {
    Layers exact = layers.inSingle();
    String peak =
        exact.within(
            "heads",
            () -> {
              String highest =
                  graph.node(
                      "ReduceMax",
                      OnnxGraph.attributes().with("axes", new long[] {1, 2}).with("keepdims", 0),
                      mask);
              return exact.reshape(highest, -1, 1);
            });
    return exact.linear(peak, "no_target_evidence");
  }
}
