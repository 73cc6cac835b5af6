package org.deixis.export;

import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.io.OnnxGraph;
import org.deixis.model.bert.TextConfig;

/** BERT's or RoBERTa's part of the graph: any number of phrases of any length. */
final class TextLayers {
  private final Layers layers;
  private final OnnxGraph graph;
  private final TextConfig config;

  TextLayers(Layers layers, TextConfig config) {
    this.layers = layers;
    this.graph = layers.graph();
    this.config = config;
  }

  /**
   * Hidden states (B, T, C) of the last layer.
   *
   * @param ids I64 (B, T)
   * @param bias of the padding, as {@link Layers#paddingBias} makes it
   */
  String hidden(String ids, String bias) {
    String x = layers.within("embeddings", () -> embed(ids));
    for (int i = 0; i < config.layers(); i++) {
      String input = x;
      x = layers.within("encoder.layer." + i, () -> layer(input, bias));
    }
    return x;
  }

  /** Summed in F32, as the norm that follows is. */
  private String embed(String ids) {
    String words = layers.node("Gather", layers.constant("word_embeddings.weight"), ids);
    Shape one = Shape.of(1, config.hidden());
    String type = layers.rows("token_type_embeddings.weight", 0, 1, one, DType.F32);
    String both = layers.node("Add", layers.single(words), type);
    String sum = layers.node("Add", both, layers.single(positions(ids)));
    return layers.compute(layers.layerNormSingle(sum, "LayerNorm", config.layerNormEps()));
  }

  private String positions(String ids) {
    String table = layers.constant("position_embeddings.weight");
    if (config.kind() == TextConfig.Kind.BERT) {
      String length =
          layers.node("Gather", layers.node("Shape", ids), graph.longs(1)); // (1), the end's shape
      return layers.node("Slice", table, graph.longs(0), length, graph.longs(0));
    }
    // RoBERTa counts from padId + 1 what is no padding; padding itself is at padId. Counted in
    // F32, exact up to 2^24, as TensorRT sums no whole numbers.
    String pad = graph.longs(config.padId());
    String word = layers.cast(layers.node("Not", layers.node("Equal", ids, pad)), DType.F32);
    String counted = layers.node("Mul", layers.node("CumSum", word, graph.whole(1)), word);
    return layers.node("Gather", table, layers.node("Add", layers.cast(counted, DType.I64), pad));
  }

  private String layer(String x, String bias) {
    int c = config.hidden();
    double eps = config.layerNormEps();
    String read =
        layers.within(
            "attention.self",
            () ->
                layers.attention(
                    layers.linear(x, "query"),
                    layers.linear(x, "key"),
                    layers.linear(x, "value"),
                    config.heads(),
                    c,
                    scores -> layers.node("Add", scores, bias)));
    String middle =
        layers.within(
            "attention.output",
            () ->
                layers.layerNorm(
                    layers.node("Add", layers.linear(read, "dense"), x), "LayerNorm", eps));
    String inner =
        layers.within(
            "intermediate",
            () -> layers.activation(layers.linear(middle, "dense"), config.activation()));
    return layers.within(
        "output",
        () ->
            layers.layerNorm(
                layers.node("Add", layers.linear(inner, "dense"), middle), "LayerNorm", eps));
  }
}
