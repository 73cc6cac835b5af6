package org.deixis.model.swin;

import java.util.List;
import org.deixis.backend.Activation;
import org.deixis.core.InputException;

/**
 * A Swin Transformer (Liu et al., ICCV 2021), patches of 4×4 pixels, MLP ratio 4.
 *
 * @param embedDim channels of the first stage; each further stage has twice those before
 * @param depths blocks of each stage
 * @param heads attention heads of each stage
 * @param window side of a window, in positions of the map
 * @param windowRule what happens where windows do not fit
 * @param activation within the feed-forward parts: GELU in all published ones; GELU_TANH is cheaper
 *     on CUDA
 * @param dropPath probability of dropping the last block's branches in training; rises linearly
 *     from 0 at the first block
 * @param checkpointing whether backward computes each stage again instead of keeping its values
 */
public record SwinConfig(
    int embedDim,
    List<Integer> depths,
    List<Integer> heads,
    int window,
    WindowRule windowRule,
    Activation activation,
    double dropPath,
    boolean checkpointing) {

  /** Side of a patch in pixels. */
  public static final int PATCH = 4;

  private static final int MOST_BLOCKS = 100;

  /** With GELU. */
  public SwinConfig(
      int embedDim,
      List<Integer> depths,
      List<Integer> heads,
      int window,
      WindowRule windowRule,
      double dropPath,
      boolean checkpointing) {
    this(embedDim, depths, heads, window, windowRule, Activation.GELU, dropPath, checkpointing);
  }

  public SwinConfig {
    depths = List.copyOf(depths);
    heads = List.copyOf(heads);
    check(embedDim >= 1 && embedDim <= 4096, "embedDim " + embedDim + ": give 1 to 4096");
    check(
        !depths.isEmpty() && depths.size() <= 4 && depths.size() == heads.size(),
        "depths " + depths + " and heads " + heads + ": give one of each for 1 to 4 stages");
    for (int i = 0; i < depths.size(); i++) {
      check(
          depths.get(i) >= 1 && depths.get(i) <= MOST_BLOCKS,
          "depths " + depths + ": a stage has 1 to " + MOST_BLOCKS + " blocks");
      int width = embedDim << i;
      check(
          heads.get(i) >= 1 && width % heads.get(i) == 0,
          "heads " + heads + ": stage " + i + " is " + width + " wide, which they must divide");
    }
    check(window >= 1 && window <= 64, "window " + window + ": give 1 to 64");
    check(windowRule != null, "windowRule: give SHRINK, PAD or PAD_FIRST");
    check(
        activation != null && activation != Activation.NONE,
        "activation: give GELU, GELU_TANH or RELU");
    check(dropPath >= 0 && dropPath < 1, "dropPath " + dropPath + ": give at least 0, below 1");
  }

  private static void check(boolean ok, String message) {
    if (!ok) {
      throw new InputException("swin." + message);
    }
  }

  /** The same with another side of its windows. */
  public SwinConfig withWindow(int side) {
    return new SwinConfig(
        embedDim, depths, heads, side, windowRule, activation, dropPath, checkpointing);
  }

  /** The same with stages computed again in backward, or not. */
  public SwinConfig withCheckpointing(boolean wanted) {
    return new SwinConfig(
        embedDim, depths, heads, window, windowRule, activation, dropPath, wanted);
  }

  public int stages() {
    return depths.size();
  }

  /** Channels of a stage's map. */
  public int width(int stage) {
    return embedDim << stage;
  }

  public int blocks() {
    return depths.stream().mapToInt(Integer::intValue).sum();
  }
}
