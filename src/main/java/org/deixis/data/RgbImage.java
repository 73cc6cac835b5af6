package org.deixis.data;

import java.util.Arrays;

/**
 * A decoded picture.
 *
 * @param height rows
 * @param width columns
 * @param data {@code height * width * 3} bytes, row-major, red, green, blue, each 0..255 unsigned;
 *     not copied
 */
public record RgbImage(int height, int width, byte[] data) {
  public RgbImage {
    if (height < 1 || width < 1 || 3L * height * width != data.length) {
      throw new IllegalArgumentException(
          "a picture of " + height + "x" + width + " does not hold " + data.length + " bytes");
    }
  }

  /** Mirrored about the vertical axis. */
  public RgbImage flipHorizontally() {
    byte[] out = new byte[data.length];
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) {
        System.arraycopy(data, 3 * (y * width + width - 1 - x), out, 3 * (y * width + x), 3);
      }
    }
    return new RgbImage(height, width, out);
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof RgbImage i
        && i.height == height
        && i.width == width
        && Arrays.equals(i.data, data);
  }

  @Override
  public int hashCode() {
    return 31 * (31 * height + width) + Arrays.hashCode(data);
  }

  @Override
  public String toString() {
    return "RgbImage[" + height + "x" + width + "]";
  }
}
