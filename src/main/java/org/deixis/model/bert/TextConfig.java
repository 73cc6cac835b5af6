package org.deixis.model.bert;

/**
 * A BERT or RoBERTa encoder (Devlin et al., 2019; Liu et al., 2019).
 *
 * @param roberta whether positions count from {@code padId + 1} and skip padding, as RoBERTa's do
 * @param layerNormEps 1e-12 for BERT, 1e-5 for RoBERTa's published weights
 */
public record TextConfig(
    boolean roberta,
    int vocabSize,
    int hiddenSize,
    int layers,
    int heads,
    int intermediateSize,
    int maxPositions,
    int typeVocabSize,
    int padId,
    double layerNormEps) {

  /** Longest sequence that the position table allows. */
  public int maxTokens() {
    return roberta ? maxPositions - padId - 1 : maxPositions;
  }
}
