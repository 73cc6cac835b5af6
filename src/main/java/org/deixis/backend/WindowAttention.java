package org.deixis.backend;

/**
 * Multi-head self-attention within windows of a map (Liu et al., "Swin Transformer", ICCV 2021,
 * section 3.2), with the cyclic shift, padding, window partition, relative-position bias, mask and
 * reversal folded into the indexing.
 *
 * <p>The map is H×W; it is laid on a frame of whole windows, {@link #frameHeight}×{@link
 * #frameWidth}. A frame position (i, j) reads map position ((i + shiftH) mod H, (j + shiftW) mod W)
 * when i &lt; H and j &lt; W, and padding otherwise (timm: roll, then pad). With {@code padFirst}
 * (Detectron2: pad, then roll) it reads ((i + shiftH) mod frameHeight, …) and is padding when that
 * lies outside the map. A padded position is a zero vector before the qkv projection, so its q, k
 * and v are the projection's bias.
 *
 * <p>With a shift, frame positions of one window that came from different sides of the seam must
 * not see each other: their score is lowered by 100. The side of row i is 0 when i &lt; frameHeight
 * − windowH, 1 when i &lt; frameHeight − shiftH, else 2 (columns alike), as both published codes
 * count it; an axis with shift 0 has one side.
 *
 * <p>qkv is (B, H, W, 3C) with q, k, v in this order, each C = heads × headDim; the bias table is
 * ((2·windowH−1)·(2·windowW−1), heads), its row for query (y1, x1) and key (y2, x2) being
 * (y1−y2+windowH−1)·(2·windowW−1) + (x1−x2+windowW−1). Output is (B, H, W, C). Scores are scaled by
 * headDim^−½.
 */
public record WindowAttention(
    int batch,
    int height,
    int width,
    int heads,
    int headDim,
    int windowH,
    int windowW,
    int shiftH,
    int shiftW,
    boolean padFirst) {

  /** What is added to the score of a pair that the shift's mask separates. */
  public static final float MASKED = -100f;

  public int channels() {
    return heads * headDim;
  }

  public int frameHeight() {
    return (height + windowH - 1) / windowH * windowH;
  }

  public int frameWidth() {
    return (width + windowW - 1) / windowW * windowW;
  }

  public int windows() {
    return frameHeight() / windowH * (frameWidth() / windowW);
  }

  /** Map index (row-major) that frame position (i, j) reads, or −1 for padding. */
  public int source(int i, int j) {
    int y;
    int x;
    if (padFirst) {
      y = (i + shiftH) % frameHeight();
      x = (j + shiftW) % frameWidth();
      if (y >= height || x >= width) {
        return -1;
      }
    } else {
      if (i >= height || j >= width) {
        return -1;
      }
      y = (i + shiftH) % height;
      x = (j + shiftW) % width;
    }
    return y * width + x;
  }

  /** Which side of the seams frame position (i, j) lies on: equal numbers may see each other. */
  public int side(int i, int j) {
    int row =
        shiftH == 0 ? 0 : i < frameHeight() - windowH ? 0 : i < frameHeight() - shiftH ? 1 : 2;
    int column =
        shiftW == 0 ? 0 : j < frameWidth() - windowW ? 0 : j < frameWidth() - shiftW ? 1 : 2;
    return row * 3 + column;
  }
}
