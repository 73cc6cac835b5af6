package org.deixis.infer;

import org.deixis.data.BitMask;
import org.deixis.data.RgbImage;

/** Pictures with masks drawn over them. */
public final class Overlay {
  private static final int[] TINT = {255, 32, 144};
  private static final double ALPHA = 0.45;

  private Overlay() {}

  /** The picture with the mask tinted, and its edge drawn in full colour. */
  public static RgbImage draw(RgbImage picture, BitMask mask) {
    byte[] rgb = picture.data().clone();
    for (int y = 0; y < mask.height(); y++) {
      for (int x = 0; x < mask.width(); x++) {
        if (mask.data()[y * mask.width() + x] != 0) {
          double alpha = edge(mask, y, x) ? 1 : ALPHA;
          for (int c = 0; c < 3; c++) {
            int at = (y * mask.width() + x) * 3 + c;
            rgb[at] = (byte) Math.round((1 - alpha) * (rgb[at] & 0xff) + alpha * TINT[c]);
          }
        }
      }
    }
    return new RgbImage(picture.height(), picture.width(), rgb);
  }

  /** The picture with the mask's edge alone, in the given colour. */
  public static RgbImage outline(RgbImage picture, BitMask mask, int red, int green, int blue) {
    byte[] rgb = picture.data().clone();
    for (int y = 0; y < mask.height(); y++) {
      for (int x = 0; x < mask.width(); x++) {
        if (mask.data()[y * mask.width() + x] != 0 && edge(mask, y, x)) {
          int at = (y * mask.width() + x) * 3;
          rgb[at] = (byte) red;
          rgb[at + 1] = (byte) green;
          rgb[at + 2] = (byte) blue;
        }
      }
    }
    return new RgbImage(picture.height(), picture.width(), rgb);
  }

  /**
   * A pixel of the mask with a neighbour (of four) outside of it; the picture's border is no edge.
   */
  private static boolean edge(BitMask m, int y, int x) {
    return outside(m, y - 1, x)
        || outside(m, y + 1, x)
        || outside(m, y, x - 1)
        || outside(m, y, x + 1);
  }

  private static boolean outside(BitMask m, int y, int x) {
    return y >= 0 && x >= 0 && y < m.height() && x < m.width() && m.data()[y * m.width() + x] == 0;
  }
}
