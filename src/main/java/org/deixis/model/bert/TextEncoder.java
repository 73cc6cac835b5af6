package org.deixis.model.bert;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Activation;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.Shape;
import org.deixis.nn.Init;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/**
 * The text encoder: token ids to one vector a token. Parameter names are Hugging Face's, without
 * the pooler.
 */
public final class TextEncoder extends Module {
  private final TextConfig config;
  private final Parameter words;
  private final Parameter positions;
  private final Parameter types;
  private final LayerNormLayer norm;
  private final List<Layer> layers = new ArrayList<>();

  public TextEncoder(ParameterSource source, TextConfig config) {
    this.config = config;
    ParameterSource e = source.part("embeddings");
    int c = config.hiddenSize();
    words = table(e, "word_embeddings", config.vocabSize(), c);
    positions = table(e, "position_embeddings", config.maxPositions(), c);
    types = table(e, "token_type_embeddings", config.typeVocabSize(), c);
    norm =
        register(
            "embeddings.LayerNorm",
            new LayerNormLayer(e.part("LayerNorm"), c, config.layerNormEps()));
    for (int i = 0; i < config.layers(); i++) {
      String name = "encoder.layer." + i;
      layers.add(register(name, new Layer(source.part(name), config)));
    }
  }

  private Parameter table(ParameterSource source, String name, int rows, int columns) {
    return register(
        "embeddings." + name + ".weight",
        source.part(name).parameter("weight", Shape.of(rows, columns), Init.normal(0.02)));
  }

  public TextConfig config() {
    return config;
  }

  /**
   * @param ids (B·T) token ids, row-major
   * @param mask (B·T) 1 = token, 0 = padding
   * @param maskTensor the same mask on the device, I32 (B, T)
   * @return (B, T, hiddenSize)
   */
  public Tensor forward(Backend backend, int[] ids, int[] mask, Tensor maskTensor) {
    int batch = maskTensor.dim(0);
    int tokens = maskTensor.dim(1);
    if (tokens > config.maxTokens()) {
      throw new IllegalArgumentException(
          tokens + " tokens, and the position table ends at " + config.maxTokens());
    }
    for (int id : ids) {
      if (id < 0 || id >= config.vocabSize()) {
        throw new IllegalArgumentException(
            "token id "
                + id
                + " outside the vocabulary of "
                + config.vocabSize()
                + "; the tokenizer does not belong to this model");
      }
    }
    try (Scope scope = Scope.open()) {
      Tensor place = Tensor.ints(backend, positionIds(ids, batch, tokens), batch, tokens);
      Tensor kind = Tensor.ints(backend, new int[batch * tokens], batch, tokens);
      Tensor sum =
          Tensor.ints(backend, ids, batch, tokens)
              .embedding(words.tensor(), config.padId())
              .add(kind.embedding(types.tensor()))
              .add(place.embedding(positions.tensor(), config.roberta() ? config.padId() : -1));
      Tensor x = norm.forward(sum);
      for (int i = 0; i < layers.size(); i++) {
        Layer layer = layers.get(i);
        Tensor in = x;
        x = within("encoder.layer." + i, () -> layer.forward(in, maskTensor));
      }
      return x.keep(scope);
    }
  }

  /**
   * BERT counts from 0; RoBERTa from padId + 1, over tokens that are not padding, which sits at
   * padId.
   */
  private int[] positionIds(int[] ids, int batch, int tokens) {
    int[] place = new int[ids.length];
    for (int b = 0; b < batch; b++) {
      int count = 0;
      for (int t = 0; t < tokens; t++) {
        int at = b * tokens + t;
        if (!config.roberta()) {
          place[at] = t;
        } else {
          place[at] = ids[at] == config.padId() ? config.padId() : config.padId() + ++count;
        }
      }
    }
    return place;
  }

  /** Post-norm transformer layer. */
  private static final class Layer extends Module {
    private final LinearLayer query;
    private final LinearLayer key;
    private final LinearLayer value;
    private final LinearLayer out;
    private final LayerNormLayer attentionNorm;
    private final LinearLayer intermediate;
    private final LinearLayer output;
    private final LayerNormLayer outputNorm;
    private final int heads;

    Layer(ParameterSource source, TextConfig config) {
      int c = config.hiddenSize();
      heads = config.heads();
      query = linear(source, "attention.self.query", c, c);
      key = linear(source, "attention.self.key", c, c);
      value = linear(source, "attention.self.value", c, c);
      out = linear(source, "attention.output.dense", c, c);
      attentionNorm = norm(source, "attention.output.LayerNorm", config);
      intermediate = linear(source, "intermediate.dense", c, config.intermediateSize());
      output = linear(source, "output.dense", config.intermediateSize(), c);
      outputNorm = norm(source, "output.LayerNorm", config);
    }

    private LinearLayer linear(ParameterSource source, String name, int in, int outWidth) {
      return register(
          name,
          new LinearLayer(source.part(name), in, outWidth, true, Init.normal(0.02), Init.zeros()));
    }

    private LayerNormLayer norm(ParameterSource source, String name, TextConfig config) {
      return register(
          name, new LayerNormLayer(source.part(name), config.hiddenSize(), config.layerNormEps()));
    }

    Tensor forward(Tensor x, Tensor mask) {
      try (Scope scope = Scope.open()) {
        Tensor packed = Tensor.concat(query.forward(x), key.forward(x), value.forward(x));
        Tensor a = out.forward(packed.selfAttention(mask, heads));
        Tensor y = attentionNorm.forward(a, x)[1];
        Tensor hidden = intermediate.forward(y, Activation.GELU);
        return outputNorm.forward(output.forward(hidden), y)[1].keep(scope);
      }
    }
  }
}
