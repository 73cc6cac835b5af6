package org.deixis.data;

import org.deixis.core.InputException;

/**
 * What training does to pictures before the model sees them.
 *
 * @param flip probability of a horizontal flip, which swaps "left" and "right" in the phrases
 * @param brightness largest relative change: the pixels are scaled by a factor within 1 ± this
 * @param contrast likewise, the distance from the picture's mean luma
 * @param saturation likewise, the distance from each pixel's luma
 * @param hue largest turn of the colour wheel, in turns of 1. Off by default: phrases name colours,
 *     and a turn of 0.08 makes "the red shirt" an orange one while its phrase stays; keep it below
 *     0.03
 * @param crop probability of cutting out a part of the picture, which always keeps the boxes of all
 *     targets whole
 * @param minScale the smallest side of the part, as a share of the picture's, in (0, 1]
 */
public record AugmentConfig(
    double flip,
    double brightness,
    double contrast,
    double saturation,
    double hue,
    double crop,
    double minScale) {
  public AugmentConfig {
    requireIn("flip", flip, 0, 1);
    requireIn("brightness", brightness, 0, 0.99);
    requireIn("contrast", contrast, 0, 0.99);
    requireIn("saturation", saturation, 0, 0.99);
    requireIn("hue", hue, 0, 0.5);
    requireIn("crop", crop, 0, 1);
    requireIn("minScale", minScale, 0.01, 1);
  }

  /** Pictures as they are. */
  public static AugmentConfig none() {
    return new AugmentConfig(0, 0, 0, 0, 0, 0, 1);
  }

  /** For photographs. */
  public static AugmentConfig standard() {
    return new AugmentConfig(0.5, 0.2, 0.2, 0.2, 0, 0.5, 0.6);
  }

  boolean jitters() {
    return brightness > 0 || contrast > 0 || saturation > 0 || hue > 0;
  }

  private static void requireIn(String name, double value, double low, double high) {
    if (!(value >= low && value <= high)) {
      throw new InputException(
          "augmentation: %s is %s; give a number from %s to %s".formatted(name, value, low, high));
    }
  }
}
