package org.deixis.model.bert;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.nn.DropoutLayer;
import org.deixis.nn.EmbeddingTable;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.Module;
import org.deixis.nn.ParameterSource;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;

/**
 * BERT or RoBERTa without the pooling layer; parameter names and numerics are those of Hugging
 * Face's BertModel and RobertaModel. The vector of the padding token (and RoBERTa's position of
 * padding) gets no gradient, as PyTorch's {@code padding_idx} has it.
 */
public final class TextEncoder extends Module {
  private final TextConfig config;
  private final Backend backend;
  private final EmbeddingTable words;
  private final EmbeddingTable positions;
  private final EmbeddingTable types;
  private final LayerNormLayer norm;
  private final DropoutLayer dropout;
  private final List<TextLayer> layers = new ArrayList<>();

  public TextEncoder(ParameterSource source, TextConfig config, RandomState random) {
    this.config = config;
    this.backend = source.backend();
    ParameterSource embeddings = source.part("embeddings");
    int c = config.hidden();
    boolean roberta = config.kind() == TextConfig.Kind.ROBERTA;
    words =
        register(
            "embeddings.word_embeddings",
            new EmbeddingTable(
                embeddings.part("word_embeddings"), config.vocab(), c, padded(config.padId(), c)));
    positions =
        register(
            "embeddings.position_embeddings",
            new EmbeddingTable(
                embeddings.part("position_embeddings"),
                config.maxPositions(),
                c,
                roberta ? padded(config.padId(), c) : TextLayer.WEIGHTS));
    types =
        register(
            "embeddings.token_type_embeddings",
            new EmbeddingTable(
                embeddings.part("token_type_embeddings"),
                config.typeVocab(),
                c,
                TextLayer.WEIGHTS));
    norm =
        register(
            "embeddings.LayerNorm",
            new LayerNormLayer(embeddings.part("LayerNorm"), c, config.layerNormEps()));
    dropout = register("embeddings.dropout", DropoutLayer.elements(config.dropout(), random));
    for (int i = 0; i < config.layers(); i++) {
      String name = "encoder.layer." + i;
      layers.add(register(name, new TextLayer(source.part(name), config, random)));
    }
  }

  /** As the other tables, but the padding's row is zero. */
  private static ParameterSource.Init padded(int padId, int width) {
    return (rng, values) -> {
      TextLayer.WEIGHTS.fill(rng, values);
      java.util.Arrays.fill(values, padId * width, (padId + 1) * width, 0);
    };
  }

  public TextConfig config() {
    return config;
  }

  /**
   * Checks a batch on the host and copies it to the device.
   *
   * @throws InputException when it is longer than the position table allows, an id lies outside of
   *     the vocabulary, or a sequence has no token
   */
  public TextBatch upload(Tokens tokens) {
    return upload(tokens, null);
  }

  /**
   * {@link #upload(Tokens)} into a batch of the same shape that was made before, instead of a new
   * one.
   */
  public TextBatch upload(Tokens tokens, TextBatch into) {
    int b = tokens.batch();
    int t = tokens.length();
    if (t > config.maxTokens()) {
      throw new InputException(
          "a phrase of %d tokens: the text encoder takes at most %d"
              .formatted(t, config.maxTokens()));
    }
    int[] ids = tokens.ids();
    boolean roberta = config.kind() == TextConfig.Kind.ROBERTA;
    int[] counted = roberta ? new int[ids.length] : null;
    float[] pads = new float[ids.length];
    for (int row = 0; row < b; row++) {
      int tokensSeen = 0;
      int words = 0;
      for (int i = row * t; i < (row + 1) * t; i++) {
        if (ids[i] < 0 || ids[i] >= config.vocab()) {
          throw new InputException(
              "token id %d of phrase %d: the vocabulary ends at %d; is it the model's tokenizer?"
                  .formatted(ids[i], row, config.vocab() - 1));
        }
        boolean pad = ids[i] == config.padId();
        pads[i] = pad ? 1 : 0;
        words += pad ? 0 : 1;
        if (roberta) {
          counted[i] = pad ? config.padId() : config.padId() + words;
        }
        tokensSeen += tokens.mask()[i] != 0 ? 1 : 0;
      }
      if (tokensSeen == 0) {
        throw new InputException("phrase " + row + " has no token; leave it out");
      }
    }
    if (into != null) {
      into.ids().set(ids);
      into.mask().set(tokens.mask());
      if (roberta) {
        into.positions().set(counted);
      }
      into.padding().set(pads);
      return into;
    }
    return new TextBatch(
        Tensor.ints(backend, ids, b, t),
        Tensor.ints(backend, tokens.mask(), b, t),
        roberta ? Tensor.ints(backend, counted, b, t) : null,
        Tensor.floats(backend, pads, b, t, 1));
  }

  /** Hidden states (B, T, C) of the last layer. */
  public Tensor forward(TextBatch batch) {
    try (Scope scope = Scope.open()) {
      Tensor x = within("embeddings", () -> embed(batch));
      for (int i = 0; i < layers.size(); i++) {
        TextLayer layer = layers.get(i);
        Tensor input = x;
        x = within("encoder.layer." + i, () -> layer.forward(input, batch.mask()));
      }
      return x.keep(scope);
    }
  }

  private Tensor embed(TextBatch batch) {
    Tensor x = words.forward(batch.ids());
    if (batch.positions() != null) {
      x = withoutPaddingGradient(x.add(positions.forward(batch.positions())), batch);
    } else {
      x = withoutPaddingGradient(x, batch).add(positions.first(batch.length()));
    }
    return dropout.forward(norm.forward(x.add(types.first(1))));
  }

  /** x itself in value; at padding it is a constant. */
  private static Tensor withoutPaddingGradient(Tensor x, TextBatch batch) {
    if (!x.variable().requiresGradient()) {
      return x;
    }
    Tensor pad = batch.padding().cast(x.dtype());
    Tensor constant = x.detach().mul(pad);
    Tensor rest = x.sub(x.mul(pad));
    return rest.add(constant);
  }

  /** The type that hidden states come in. */
  public DType dtype() {
    return words.weight().tensor().dtype();
  }
}
