package org.deixis.export;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.WindowAttention;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.io.HostTensor;
import org.deixis.io.OnnxGraph;
import org.deixis.model.swin.SwinConfig;
import org.deixis.model.swin.WindowRule;
import org.deixis.model.swin.Windows;

/** Swin's part of the graph: pictures of one size, any number of them. */
final class SwinLayers {
  private static final double EPS = 1e-5;

  /** A map (I, height, width, channels), channels last. */
  record Level(String value, int height, int width, int channels) {}

  private final Layers layers;
  private final OnnxGraph graph;
  private final SwinConfig config;

  SwinLayers(Layers layers, SwinConfig config) {
    this.layers = layers;
    this.graph = layers.graph();
    this.config = config;
  }

  /** Maps of all stages, finest first, of pictures (I, 3, height, width) in the compute type. */
  List<Level> maps(String image, int height, int width) {
    int gridH = patches(height);
    int gridW = patches(width);
    String x = layers.within("patch_embed", () -> embed(image, height, width));
    Level level = new Level(x, gridH, gridW, config.embedDim());
    List<Level> levels = new ArrayList<>();
    for (int i = 0; i < config.stages(); i++) {
      Windows windows = Windows.built(config, gridH, gridW, i);
      int stage = i;
      Level before = level;
      level = layers.within("layers." + i, () -> stage(stage, before, windows));
      levels.add(level);
    }
    return levels;
  }

  private static int patches(int pixels) {
    return (pixels + SwinConfig.PATCH - 1) / SwinConfig.PATCH;
  }

  private String embed(String image, int height, int width) {
    long patch = SwinConfig.PATCH;
    // What is missing of the last patches is zeros at the bottom and on the right.
    long[] pads = {0, 0, patches(height) * patch - height, patches(width) * patch - width};
    String patches =
        layers.within(
            "proj",
            () ->
                graph.node(
                    "Conv",
                    OnnxGraph.attributes()
                        .with("kernel_shape", new long[] {patch, patch})
                        .with("strides", new long[] {patch, patch})
                        .with("pads", pads),
                    image,
                    layers.constant("weight"),
                    layers.constant("bias")));
    return layers.layerNorm(layers.transpose(patches, 0, 2, 3, 1), "norm", EPS);
  }

  private Level stage(int stage, Level before, Windows windows) {
    Level level = stage == 0 ? before : layers.within("downsample", () -> merge(before));
    for (int i = 0; i < config.depths().get(stage); i++) {
      Level input = level;
      boolean shifted = i % 2 == 1;
      String x = layers.within("blocks." + i, () -> block(input, stage, windows, shifted));
      level = new Level(x, input.height, input.width, input.channels);
    }
    return level;
  }

  /** Four neighbours to one position of twice the channels; an odd edge gets zeros. */
  private Level merge(Level x) {
    int h = (x.height + 1) / 2;
    int w = (x.width + 1) / 2;
    int c = x.channels;
    String even = pad(x.value, 2 * h - x.height, 2 * w - x.width);
    String parted = layers.reshape(even, -1, h, 2, w, 2, c);
    // Channels of a position: (2i, 2j), (2i+1, 2j), (2i, 2j+1), (2i+1, 2j+1).
    String gathered = layers.reshape(layers.transpose(parted, 0, 1, 3, 4, 2, 5), -1, h, w, 4 * c);
    String normed = layers.layerNorm(gathered, "norm", EPS);
    return new Level(layers.linear(normed, "reduction"), h, w, 2 * c);
  }

  /** Zeros below and on the right of a map. */
  private String pad(String x, int rows, int columns) {
    return rows == 0 && columns == 0
        ? x
        : layers.node("Pad", x, graph.longs(0, 0, 0, 0, 0, rows, columns, 0));
  }

  private String block(Level level, int stage, Windows windows, boolean shifted) {
    String x = level.value;
    String normed = layers.layerNorm(x, "norm1", EPS);
    String attended =
        layers.within(
            "attn",
            () -> attend(normed, level, config.heads().get(stage), windows, shifted, stage));
    String middle = layers.node("Add", x, attended);
    String inner = layers.layerNorm(middle, "norm2", EPS);
    String fed =
        layers.within(
            "mlp",
            () ->
                layers.linear(
                    layers.activation(layers.linear(inner, "fc1"), config.activation()), "fc2"));
    return layers.node("Add", middle, fed);
  }

  private String attend(
      String x, Level level, int heads, Windows windows, boolean shifted, int stage) {
    WindowAttention s =
        new WindowAttention(
            1,
            level.height,
            level.width,
            heads,
            level.channels / heads,
            windows.height(),
            windows.width(),
            shifted ? windows.shiftH() : 0,
            shifted ? windows.shiftW() : 0,
            config.windowRule() == WindowRule.PAD_FIRST);
    int tokens = s.windowH() * s.windowW();
    int down = s.frameHeight() / s.windowH();
    int across = s.frameWidth() / s.windowW();
    int c = level.channels;
    String framed = frame(x, s);
    String rows = layers.reshape(framed, -1, down, s.windowH(), across, s.windowW(), c);
    String inside = layers.reshape(layers.transpose(rows, 0, 1, 3, 2, 4, 5), -1, tokens, c);
    var qkv = layers.split(layers.linear(inside, "qkv"), 3);
    String read =
        layers.attention(
            qkv.get(0), qkv.get(1), qkv.get(2), heads, c, scores -> biased(scores, s, stage));
    String out = layers.linear(read, "proj");
    String parted = layers.reshape(out, -1, down, across, s.windowH(), s.windowW(), c);
    String map =
        layers.reshape(
            layers.transpose(parted, 0, 1, 3, 2, 4, 5), -1, s.frameHeight(), s.frameWidth(), c);
    return unframe(map, s);
  }

  /** The map on its frame of whole windows, shifted; see {@link WindowAttention#source}. */
  private String frame(String x, WindowAttention s) {
    int rows = s.frameHeight() - s.height();
    int columns = s.frameWidth() - s.width();
    if (s.padFirst()) {
      return roll(pad(x, rows, columns), s.frameHeight(), s.frameWidth(), s.shiftH(), s.shiftW());
    }
    return pad(roll(x, s.height(), s.width(), s.shiftH(), s.shiftW()), rows, columns);
  }

  private String unframe(String x, WindowAttention s) {
    int h = s.padFirst() ? s.frameHeight() : s.height();
    int w = s.padFirst() ? s.frameWidth() : s.width();
    int backH = s.shiftH() == 0 ? 0 : h - s.shiftH() % h;
    int backW = s.shiftW() == 0 ? 0 : w - s.shiftW() % w;
    return s.padFirst()
        ? crop(roll(x, h, w, backH, backW), s)
        : roll(crop(x, s), h, w, backH, backW);
  }

  private String crop(String x, WindowAttention s) {
    String y = s.frameHeight() == s.height() ? x : layers.slice(x, 1, 0, s.height());
    return s.frameWidth() == s.width() ? y : layers.slice(y, 2, 0, s.width());
  }

  /** Position i reads position (i + by) mod extent, on both axes. */
  private String roll(String x, int height, int width, int byH, int byW) {
    return roll(roll(x, 1, height, byH % height), 2, width, byW % width);
  }

  private String roll(String x, int axis, int extent, int by) {
    return by == 0
        ? x
        : layers.concat(axis, layers.slice(x, axis, by, extent), layers.slice(x, axis, 0, by));
  }

  /** Scores (I·windows, heads, N, N) with relative-position bias and, when shifted, the mask. */
  private String biased(String scores, WindowAttention s, int stage) {
    int n = s.windowH() * s.windowW();
    String table = layers.constant("relative_position_bias_table", DType.F32);
    String pairs = graph.node("Gather", OnnxGraph.attributes().with("axis", 0), table, pairs(s));
    String sum = layers.node("Add", scores, layers.transpose(pairs, 2, 0, 1));
    if (s.shiftH() == 0 && s.shiftW() == 0) {
      return sum;
    }
    String apart = layers.reshape(sum, -1, s.windows(), s.heads(), n, n);
    return layers.reshape(layers.node("Add", apart, mask(s, stage)), -1, s.heads(), n, n);
  }

  /** The bias table's row of each pair of positions: I64 (N, N), one for all windows of a size. */
  private String pairs(WindowAttention s) {
    int n = s.windowH() * s.windowW();
    String name = "const/pairs_" + s.windowH() + "x" + s.windowW();
    if (graph.has(name)) {
      return name;
    }
    Shape shape = Shape.of(n, n);
    return graph.initializer(
        name,
        DType.I64,
        shape,
        () -> {
          long[] rows = new long[n * n];
          for (int q = 0; q < n; q++) {
            for (int k = 0; k < n; k++) {
              int dy = q / s.windowW() - k / s.windowW() + s.windowH() - 1;
              int dx = q % s.windowW() - k % s.windowW() + s.windowW() - 1;
              rows[q * n + k] = (long) dy * (2 * s.windowW() - 1) + dx;
            }
          }
          return HostTensor.ofLongs(name, shape, rows).bytes();
        });
  }

  /** F32 (windows, 1, N, N): what separates the sides of the seams, one for a stage. */
  private String mask(WindowAttention s, int stage) {
    int n = s.windowH() * s.windowW();
    String name = "const/shift_mask_" + stage;
    if (graph.has(name)) {
      return name;
    }
    return graph.initializer(
        name,
        DType.F32,
        Shape.of(s.windows(), 1, n, n),
        () -> {
          float[] values = new float[s.windows() * n * n];
          int across = s.frameWidth() / s.windowW();
          int at = 0;
          for (int window = 0; window < s.windows(); window++) {
            for (int q = 0; q < n; q++) {
              for (int k = 0; k < n; k++) {
                boolean apart = side(s, window, across, q) != side(s, window, across, k);
                values[at++] = apart ? WindowAttention.MASKED : 0;
              }
            }
          }
          return OnnxGraph.floats(values, DType.F32);
        });
  }

  private static int side(WindowAttention s, int window, int across, int token) {
    return s.side(
        window / across * s.windowH() + token / s.windowW(),
        window % across * s.windowW() + token % s.windowW());
  }
}
