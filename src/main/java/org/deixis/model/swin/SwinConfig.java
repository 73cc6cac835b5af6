package org.deixis.model.swin;

/**
 * A Swin Transformer (Liu et al., ICCV 2021).
 *
 * @param embedDim width of the first stage; each later one is twice as wide
 * @param depths blocks a stage
 * @param heads attention heads a stage
 * @param window side of the attention window
 * @param rule what happens where the map is smaller than, or not a multiple of, the window
 * @param imageHeight size the position tables are built for; with {@link WindowRule#SHRINK} it
 *     decides their shape
 * @param checkpointing whether a stage's inner values are recomputed in backward instead of kept
 */
public record SwinConfig(
    int embedDim,
    int[] depths,
    int[] heads,
    int window,
    WindowRule rule,
    int imageHeight,
    int imageWidth,
    boolean checkpointing) {

  /** How windows meet the edge of a map. */
  public enum WindowRule {
    /**
     * timm's default: along an axis where the map is not larger than the window, the window becomes
     * the map, unshifted.
     */
    SHRINK,
    /** timm's always_partition: the window stays; the map is rolled, then padded. */
    PAD,
    /** Detectron2's code: the window stays; the map is padded, then rolled. */
    PAD_FIRST
  }

  public static final int PATCH = 4;

  public int stages() {
    return depths.length;
  }

  public int width(int stage) {
    return embedDim << stage;
  }
}
