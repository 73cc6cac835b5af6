package org.deixis.data;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Function;

/**
 * Decoded pictures, up to a number of bytes. What has come in stays: under shuffled epochs every
 * picture is equally far from its next use, and throwing out the oldest would keep nothing of use.
 */
final class PictureCache {
  private final long limit;
  private final AtomicLong used = new AtomicLong();
  private final Map<Picture, RgbImage> images = new ConcurrentHashMap<>();

  PictureCache(long limit) {
    this.limit = limit;
  }

  /** The picture as {@code read} makes it, from the cache if it is there. */
  RgbImage get(Picture picture, Function<Picture, RgbImage> read) {
    RgbImage image = images.get(picture);
    if (image != null) {
      return image;
    }
    image = read.apply(picture);
    long size = image.data().length;
    if (used.addAndGet(size) > limit || images.putIfAbsent(picture, image) != null) {
      used.addAndGet(-size);
    }
    return image;
  }

  long usedBytes() {
    return used.get();
  }
}
