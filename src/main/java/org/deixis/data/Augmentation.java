package org.deixis.data;

import org.deixis.core.Rng;

/**
 * The changes drawn for one picture in one epoch; a pure function of the generator it is drawn
 * from.
 *
 * @param flip whether the picture is mirrored and its phrases flipped
 * @param crop the part of the picture that is kept, before mirroring
 * @param brightness factor of the pixels
 * @param contrast factor of the distance from the mean luma
 * @param saturation factor of the distance from each pixel's luma
 * @param hue turn of the colour wheel, in turns
 */
record Augmentation(
    boolean flip, Box crop, double brightness, double contrast, double saturation, double hue) {

  /**
   * Draws.
   *
   * @param keep the box around all targets, which the crop must contain, or null
   */
  static Augmentation draw(AugmentConfig config, int height, int width, Box keep, Rng rng) {
    // Every draw is made whatever the configuration, so that switching one change on or off leaves
    // the others as they were.
    boolean flip = rng.nextBoolean(config.flip());
    boolean cut = rng.nextBoolean(config.crop());
    double scale = config.minScale() + (1 - config.minScale()) * rng.nextDouble();
    double aspect = Math.exp((rng.nextDouble() - 0.5) * Math.log(16.0 / 9));
    double atX = rng.nextDouble();
    double atY = rng.nextDouble();
    double brightness = 1 + config.brightness() * (2 * rng.nextDouble() - 1);
    double contrast = 1 + config.contrast() * (2 * rng.nextDouble() - 1);
    double saturation = 1 + config.saturation() * (2 * rng.nextDouble() - 1);
    double hue = config.hue() * (2 * rng.nextDouble() - 1);
    Box crop = Box.whole(height, width);
    if (cut) {
      int w = side(width, config.minScale(), scale * Math.sqrt(aspect));
      int h = side(height, config.minScale(), scale / Math.sqrt(aspect));
      int[] x = place(width, w, keep == null ? 0 : keep.x(), keep == null ? 0 : keep.width(), atX);
      int[] y =
          place(height, h, keep == null ? 0 : keep.y(), keep == null ? 0 : keep.height(), atY);
      crop = new Box(x[0], y[0], x[1], y[1]);
    }
    return new Augmentation(flip, crop, brightness, contrast, saturation, hue);
  }

  private static int side(int full, double minScale, double scale) {
    double share = Math.max(minScale, Math.min(1, scale));
    return Math.max(1, Math.min(full, (int) Math.round(full * share)));
  }

  /** {@code {start, length}} of a part of {@code length}, grown if need be to hold what is kept. */
  private static int[] place(int full, int length, int keepFrom, int keepLength, double at) {
    int size = Math.max(length, keepLength);
    int low = keepLength == 0 ? 0 : Math.max(0, keepFrom + keepLength - size);
    int high = keepLength == 0 ? full - size : Math.min(full - size, keepFrom);
    return new int[] {low + Math.min(high - low, (int) (at * (high - low + 1))), size};
  }

  /** Mirrors and jitters the picture {@code (height, width, 3)} at {@code rgb[offset...]}. */
  void apply(byte[] rgb, int offset, int height, int width) {
    if (flip) {
      mirror(rgb, offset, height, width);
    }
    if (brightness != 1 || contrast != 1 || saturation != 1 || hue != 0) {
      jitter(rgb, offset, height * width);
    }
  }

  private static void mirror(byte[] rgb, int offset, int height, int width) {
    for (int y = 0; y < height; y++) {
      int left = offset + 3 * y * width;
      int right = left + 3 * (width - 1);
      for (; left < right; left += 3, right -= 3) {
        for (int c = 0; c < 3; c++) {
          byte t = rgb[left + c];
          rgb[left + c] = rgb[right + c];
          rgb[right + c] = t;
        }
      }
    }
  }

  private void jitter(byte[] rgb, int offset, int pixels) {
    double mean = 0;
    for (int i = 0, p = offset; i < pixels; i++, p += 3) {
      mean += 0.299 * (rgb[p] & 0xff) + 0.587 * (rgb[p + 1] & 0xff) + 0.114 * (rgb[p + 2] & 0xff);
    }
    mean /= pixels;
    // A turn of hue is a rotation of the chroma plane of YIQ.
    double cos = Math.cos(2 * Math.PI * hue);
    double sin = Math.sin(2 * Math.PI * hue);
    for (int i = 0, p = offset; i < pixels; i++, p += 3) {
      double r = rgb[p] & 0xff;
      double g = rgb[p + 1] & 0xff;
      double b = rgb[p + 2] & 0xff;
      double y = 0.299 * r + 0.587 * g + 0.114 * b;
      double iq = saturation * (0.596 * r - 0.274 * g - 0.322 * b);
      double q = saturation * (0.211 * r - 0.523 * g + 0.312 * b);
      double turnedI = cos * iq - sin * q;
      double turnedQ = sin * iq + cos * q;
      double luma = brightness * (mean + contrast * (y - mean));
      double chroma = brightness * contrast;
      rgb[p] = clamp(luma + chroma * (0.956 * turnedI + 0.621 * turnedQ));
      rgb[p + 1] = clamp(luma - chroma * (0.272 * turnedI + 0.647 * turnedQ));
      rgb[p + 2] = clamp(luma + chroma * (-1.106 * turnedI + 1.703 * turnedQ));
    }
  }

  private static byte clamp(double v) {
    return (byte) (int) Math.max(0, Math.min(255, v + 0.5));
  }
}
