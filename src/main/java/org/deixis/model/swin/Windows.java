package org.deixis.model.swin;

/**
 * The windows of one stage at one picture size.
 *
 * @param height of the window; the shifts are those of the odd blocks, even ones have none
 */
public record Windows(int height, int width, int shiftH, int shiftW) {

  /**
   * Windows of a model's own picture size, which its bias tables belong to.
   *
   * @param gridH patches of the picture from top to bottom; a stage's resolution is counted as timm
   *     does, {@code gridH} halved and rounded down once a stage, although odd maps are padded to
   *     even ones on the way
   */
  public static Windows built(SwinConfig config, int gridH, int gridW, int stage) {
    return at(config, gridH, gridW, stage, config.window(), config.window());
  }

  /**
   * Windows at another picture size: by the same rule, but never larger than {@code this}, since
   * the bias table knows no greater distances.
   */
  Windows at(SwinConfig config, int gridH, int gridW, int stage) {
    return at(config, gridH, gridW, stage, height, width);
  }

  private static Windows at(
      SwinConfig config, int gridH, int gridW, int stage, int mostH, int mostW) {
    if (config.windowRule() != WindowRule.SHRINK) {
      int shift = config.window() / 2;
      return new Windows(config.window(), config.window(), shift, shift);
    }
    int mapH = Math.max(1, gridH >> stage);
    int mapW = Math.max(1, gridW >> stage);
    int h = Math.min(mostH, mapH);
    int w = Math.min(mostW, mapW);
    return new Windows(h, w, mapH > h ? h / 2 : 0, mapW > w ? w / 2 : 0);
  }

  /** Rows of a table of relative distances. */
  int tableRows() {
    return (2 * height - 1) * (2 * width - 1);
  }

  boolean cover(int mapH, int mapW) {
    return mapH % height == 0 && mapW % width == 0;
  }

  boolean sameSize(Windows other) {
    return height == other.height && width == other.width;
  }

  /** For each row of this window's table, the row of the same distance in {@code larger}'s. */
  int[] rowsWithin(Windows larger) {
    int[] rows = new int[tableRows()];
    int n = 0;
    for (int dy = 1 - height; dy < height; dy++) {
      for (int dx = 1 - width; dx < width; dx++) {
        rows[n++] = (dy + larger.height - 1) * (2 * larger.width - 1) + dx + larger.width - 1;
      }
    }
    return rows;
  }
}
