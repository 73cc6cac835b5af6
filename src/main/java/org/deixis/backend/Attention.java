package org.deixis.backend;

/**
 * Multi-head scaled dot-product attention over short sequences (Vaswani et al., 2017, section 3.2):
 * {@code softmax(scale · QKᵀ + padding) V} for each batch entry and head. q is stored as rows of
 * {@code qStride} elements with head h at column {@code qOffset + h·headDim}; k and v alike, so
 * that packed qkv or kv projections are read in place. Output is (B, Tq, heads·headDim), dense.
 */
public record Attention(
    int batch,
    int heads,
    int queries,
    int keys,
    int headDim,
    float scale,
    int qOffset,
    int qStride,
    int kOffset,
    int kStride,
    int vOffset,
    int vStride) {

  /** Self-attention that reads a packed (B, T, 3C) projection. */
  public static Attention self(int batch, int heads, int tokens, int headDim) {
    int c = heads * headDim;
    return new Attention(
        batch,
        heads,
        tokens,
        tokens,
        headDim,
        (float) (1 / Math.sqrt(headDim)),
        0,
        3 * c,
        c,
        3 * c,
        2 * c,
        3 * c);
  }

  /**
   * Cross-attention that reads dense queries (B, Tq, C) and a packed (B, Tk, 2C) key-value
   * projection.
   */
  public static Attention cross(int batch, int heads, int queries, int keys, int headDim) {
    int c = heads * headDim;
    return new Attention(
        batch,
        heads,
        queries,
        keys,
        headDim,
        (float) (1 / Math.sqrt(headDim)),
        0,
        c,
        0,
        2 * c,
        c,
        2 * c);
  }
}
