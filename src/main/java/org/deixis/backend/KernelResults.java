package org.deixis.backend;

import java.util.Map;

/** Which arguments of a {@link Backend}'s kernels are results, for what stands around a backend. */
public final class KernelResults {
  /** How many of the last arrays in a method's argument list it writes; null counts as one. */
  public static final Map<String, Integer> WRITTEN =
      Map.ofEntries(
          Map.entry("freeze", 0),
          Map.entry("fill", 1),
          Map.entry("copy", 1),
          Map.entry("transpose", 1),
          Map.entry("copyColumns", 1),
          Map.entry("repeat", 1),
          Map.entry("reduce", 1),
          Map.entry("unary", 1),
          Map.entry("unaryBackward", 1),
          Map.entry("binary", 1),
          Map.entry("axpby", 1),
          Map.entry("gemm", 2),
          Map.entry("gemmBackwardActivation", 1),
          Map.entry("linearBackwardWeight", 2),
          Map.entry("conv2d", 1),
          Map.entry("conv2dBackwardData", 1),
          Map.entry("conv2dBackwardWeight", 1),
          Map.entry("softmax", 1),
          Map.entry("softmaxBackward", 1),
          Map.entry("layerNorm", 3),
          Map.entry("layerNormBackward", 3),
          Map.entry("groupNorm", 2),
          Map.entry("groupNormBackward", 3),
          Map.entry("windowAttention", 2),
          Map.entry("windowAttentionBackward", 3),
          Map.entry("attention", 2),
          Map.entry("attentionBackward", 3),
          Map.entry("regionAttention", 2),
          Map.entry("regionAttentionBackward", 3),
          Map.entry("embedding", 1),
          Map.entry("embeddingBackward", 1),
          Map.entry("patchGather", 1),
          Map.entry("patchScatter", 1),
          Map.entry("mergeGather", 1),
          Map.entry("mergeScatter", 1),
          Map.entry("resize", 1),
          Map.entry("resizeBackward", 1),
          Map.entry("regionPool", 1),
          Map.entry("regionPoolBackward", 1),
          Map.entry("maskLoss", 2),
          Map.entry("binaryLoss", 2),
          Map.entry("crossEntropy", 2),
          Map.entry("gruCell", 1),
          Map.entry("gruCellBackward", 3),
          Map.entry("dropout", 1),
          Map.entry("gradientNorm", 1),
          Map.entry("adamW", 0), // its slots say which of theirs are written
          Map.entry("advance", 1));

  private KernelResults() {}
}
