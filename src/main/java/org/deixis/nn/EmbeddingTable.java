package org.deixis.nn;

import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/** A table of vectors: parameter weight (rows, width). */
public final class EmbeddingTable extends Module {
  private final Parameter weight;

  public EmbeddingTable(ParameterSource source, int rows, int width, ParameterSource.Init init) {
    weight = register("weight", source.parameter("weight", Shape.of(rows, width), init));
  }

  /** Vectors (…, width) of I32 ids (…), which must lie in the table. */
  public Tensor forward(Tensor ids) {
    return ids.embedding(weight.tensor());
  }

  /** The first {@code count} vectors (count, width), without a copy. */
  public Tensor first(int count) {
    return weight.tensor().slice(0, count);
  }

  public Parameter weight() {
    return weight;
  }
}
