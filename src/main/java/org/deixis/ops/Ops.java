package org.deixis.ops;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Binary;
import org.deixis.backend.Reduction;
import org.deixis.backend.Unary;

/** The names of all operations: what the tests must cover. A new operation is entered here. */
public final class Ops {
  private Ops() {}

  public static List<String> names() {
    List<String> names = new ArrayList<>();
    for (Unary kind : Unary.values()) {
      names.add(UnaryOp.name(kind));
    }
    for (Binary kind : Binary.values()) {
      names.add(BinaryOp.name(kind));
    }
    for (Reduction kind : Reduction.values()) {
      names.add(Reduce.name(kind));
    }
    names.addAll(
        List.of(
            Linear.NAME,
            FeedForward.NAME,
            MatMul.NAME,
            Scale.NAME,
            Softmax.NAME,
            LayerNorm.NAME,
            LayerNorm.RESIDUAL_NAME,
            GroupNorm.NAME,
            Convolution.NAME,
            Patches.GATHER,
            Patches.MERGE,
            WindowAttentionOp.NAME,
            AttentionOp.SELF,
            AttentionOp.CROSS,
            RegionAttention.NAME,
            Embedding.NAME,
            Resize.NAME,
            Resize.ADD,
            RegionPool.NAME,
            Losses.MASK,
            Losses.BINARY,
            Losses.CROSS_ENTROPY,
            GruCell.NAME,
            Dropout.NAME,
            Layout.RESHAPE,
            Layout.SLICE,
            Layout.CONCAT,
            Layout.REPEAT,
            Layout.TRANSPOSE,
            Layout.CAST));
    return List.copyOf(names);
  }
}
