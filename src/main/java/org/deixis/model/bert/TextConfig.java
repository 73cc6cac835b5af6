package org.deixis.model.bert;

import org.deixis.backend.Activation;
import org.deixis.core.InputException;

/**
 * A BERT (Devlin et al., 2019) or RoBERTa (Liu et al., 2019) encoder.
 *
 * @param kind how positions are counted
 * @param vocab rows of the word table
 * @param hidden width
 * @param layers encoder layers
 * @param heads attention heads
 * @param intermediate inner width of the feed-forward part
 * @param activation within the feed-forward part: GELU, or GELU_TANH, which Hugging Face calls
 *     gelu_new or gelu_pytorch_tanh
 * @param maxPositions rows of the position table
 * @param typeVocab rows of the token-type table, of which the first is used
 * @param padId id of the padding token, whose vector is not trained
 * @param layerNormEps added to the variance in norms
 * @param dropout probability of dropping elements of the embeddings and of each sublayer's result
 *     in training; attention weights, which the fused kernel never stores, are not dropped
 */
public record TextConfig(
    Kind kind,
    int vocab,
    int hidden,
    int layers,
    int heads,
    int intermediate,
    Activation activation,
    int maxPositions,
    int typeVocab,
    int padId,
    double layerNormEps,
    double dropout) {

  /** Which published encoder. */
  public enum Kind {
    /** Positions 0, 1, 2, … */
    BERT,
    /** Positions padId+1, padId+2, … of what is no padding, padId for padding. */
    ROBERTA
  }

  /** With GELU. */
  public TextConfig(
      Kind kind,
      int vocab,
      int hidden,
      int layers,
      int heads,
      int intermediate,
      int maxPositions,
      int typeVocab,
      int padId,
      double layerNormEps,
      double dropout) {
    this(
        kind,
        vocab,
        hidden,
        layers,
        heads,
        intermediate,
        Activation.GELU,
        maxPositions,
        typeVocab,
        padId,
        layerNormEps,
        dropout);
  }

  public TextConfig {
    check(kind != null, "kind: give BERT or ROBERTA");
    check(vocab >= 1 && vocab <= 4_000_000, "vocab " + vocab + ": give 1 to 4,000,000");
    check(layers >= 1 && layers <= 200, "layers " + layers + ": give 1 to 200");
    check(hidden >= 1 && hidden <= 16_384, "hidden " + hidden + ": give 1 to 16,384");
    check(
        heads >= 1 && hidden % heads == 0,
        "heads " + heads + ": they must divide the hidden width of " + hidden);
    check(intermediate >= 1 && intermediate <= 131_072, "intermediate " + intermediate);
    check(
        activation != null && activation != Activation.NONE,
        "activation: give GELU, GELU_TANH or RELU");
    check(
        maxPositions >= 1 && maxPositions <= 65_536,
        "maxPositions " + maxPositions + ": give 1 to 65,536");
    check(typeVocab >= 1 && typeVocab <= 1024, "typeVocab " + typeVocab + ": give 1 to 1024");
    check(padId >= 0 && padId < vocab, "padId " + padId + ": give 0 to " + (vocab - 1));
    check(layerNormEps > 0, "layerNormEps " + layerNormEps + ": give more than 0");
    check(dropout >= 0 && dropout < 1, "dropout " + dropout + ": give at least 0, below 1");
    check(
        kind == Kind.BERT || maxPositions > padId + 1,
        "maxPositions " + maxPositions + ": RoBERTa counts from padId + 1 = " + (padId + 1));
  }

  private static void check(boolean ok, String message) {
    if (!ok) {
      throw new InputException("text." + message);
    }
  }

  /** The same with another vocabulary. */
  public TextConfig withVocab(int rows, int newPadId) {
    return new TextConfig(
        kind,
        rows,
        hidden,
        layers,
        heads,
        intermediate,
        activation,
        maxPositions,
        typeVocab,
        newPadId,
        layerNormEps,
        dropout);
  }

  /** The longest sequence that the position table allows. */
  public int maxTokens() {
    return kind == Kind.BERT ? maxPositions : maxPositions - padId - 1;
  }
}
