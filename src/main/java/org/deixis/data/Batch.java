package org.deixis.data;

/**
 * What the model reads in one step. I pictures, B expressions, B a multiple of I; the expressions
 * {@code b * B / I ..} belong to picture {@code b}, whose encoding they share.
 *
 * @param images I
 * @param expressions B
 * @param height of the pictures as the model sees them
 * @param width likewise
 * @param tokens T, the columns of {@code ids}
 * @param pixels {@code (I, height, width, 3)}, RGB, 0..255 unsigned, not normalised
 * @param ids {@code (B, T)} token ids, filled up with the padding id
 * @param textMask {@code (B, T)}, 1 = token, 0 = padding
 * @param masks {@code (B, height, width)}, 0 or 1
 * @param isNegative {@code (B)}, 1 = the phrase names nothing in the picture
 * @param imageIndex {@code (B)}, the picture of each expression, 0..I-1
 * @param samples {@code (B)}, where each expression comes from (its phrase as written, its mask at
 *     the picture's own size)
 * @param complexity mean over the pictures, in [0, 1]; see {@link Complexity}
 */
public record Batch(
    int images,
    int expressions,
    int height,
    int width,
    int tokens,
    byte[] pixels,
    int[] ids,
    int[] textMask,
    byte[] masks,
    float[] isNegative,
    int[] imageIndex,
    Sample[] samples,
    float complexity) {

  /** B / I. */
  public int expressionsPerImage() {
    return expressions / images;
  }

  /** The mask of expression {@code b} at the model's size, a copy. */
  public BitMask mask(int b) {
    int n = height * width;
    return new BitMask(height, width, java.util.Arrays.copyOfRange(masks, b * n, (b + 1) * n));
  }

  /** Picture {@code i} as the model sees it, a copy. */
  public RgbImage image(int i) {
    int n = 3 * height * width;
    return new RgbImage(height, width, java.util.Arrays.copyOfRange(pixels, i * n, (i + 1) * n));
  }
}
