package org.deixis.model.bert;

import org.deixis.tensor.Tensor;

/**
 * Checked token sequences on the device.
 *
 * @param ids I32 (B, T)
 * @param mask I32 (B, T): 1 token, 0 padding
 * @param positions I32 (B, T) rows of the position table, or null for 0, 1, 2, …
 * @param padding F32 (B, T, 1): 1 where the id is the padding token's, else 0
 */
public record TextBatch(Tensor ids, Tensor mask, Tensor positions, Tensor padding) {
  public int batch() {
    return ids.dim(0);
  }

  public int length() {
    return ids.dim(1);
  }
}
