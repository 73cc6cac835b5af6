package org.deixis.data;

import org.deixis.core.Env;
import org.deixis.core.InputException;

/**
 * How a {@link DataLoader} makes batches.
 *
 * @param imageSize side of the square pictures that the model sees; the aspect is not kept
 * @param images pictures in a batch
 * @param expressionsPerImage expressions of each picture; without {@code shuffle}, at most so many
 * @param maxTokens limit of a phrase's tokens, special tokens included
 * @param padToMax whether all batches have {@code maxTokens} columns, or as many as their longest
 *     phrase needs
 * @param shuffle whether to draw full batches at random, or to go through every expression once, in
 *     order
 * @param epochs after so many the loader ends; 0 = never
 * @param seed of order and augmentation
 * @param threads that decode
 * @param prefetch batches that are made ahead
 * @param cacheBytes limit of the memory for decoded pictures
 * @param augment changes to the pictures
 */
public record LoaderConfig(
    int imageSize,
    int images,
    int expressionsPerImage,
    int maxTokens,
    boolean padToMax,
    boolean shuffle,
    int epochs,
    long seed,
    int threads,
    int prefetch,
    long cacheBytes,
    AugmentConfig augment) {
  private static final long DEFAULT_CACHE = 256L << 20;

  public LoaderConfig {
    atLeast("imageSize", imageSize, 1);
    atLeast("images", images, 1);
    atLeast("expressionsPerImage", expressionsPerImage, 1);
    atLeast("maxTokens", maxTokens, 1);
    atLeast("epochs", epochs, 0);
    atLeast("threads", threads, 1);
    atLeast("prefetch", prefetch, 1);
    atLeast("cacheBytes", cacheBytes, 0);
    // Double, as the product of four ints does not always fit a long.
    double pixels = 3.0 * images * imageSize * imageSize;
    double masks = (double) images * expressionsPerImage * imageSize * imageSize;
    if (Math.max(pixels, masks) > Integer.MAX_VALUE - 16) {
      throw new InputException(
          "a batch of %d pictures of %d pixels square with %d expressions each needs %.0f MB; lower"
                  .formatted(images, imageSize, expressionsPerImage, (pixels + masks) / 1e6)
              + " the pictures per batch, the expressions per picture or the image size");
    }
  }

  private static void atLeast(String name, long value, long low) {
    if (value < low) {
      throw new InputException("loader: %s is %d; give at least %d".formatted(name, value, low));
    }
  }

  /** For training: shuffled, without end, not augmented. */
  public static LoaderConfig training(
      int imageSize, int images, int expressionsPerImage, int maxTokens, long seed) {
    int threads = Math.max(1, Math.min(8, Env.threads() / 2));
    return new LoaderConfig(
        imageSize,
        images,
        expressionsPerImage,
        maxTokens,
        false,
        true,
        0,
        seed,
        threads,
        2 * threads,
        DEFAULT_CACHE,
        AugmentConfig.none());
  }

  /** For evaluation: every expression once, in order; nothing is cached. */
  public static LoaderConfig evaluation(
      int imageSize, int images, int expressionsPerImage, int maxTokens) {
    int threads = Math.max(1, Math.min(8, Env.threads() / 2));
    return new LoaderConfig(
        imageSize,
        images,
        expressionsPerImage,
        maxTokens,
        false,
        false,
        1,
        0,
        threads,
        2 * threads,
        0,
        AugmentConfig.none());
  }

  public LoaderConfig withAugment(AugmentConfig value) {
    return new LoaderConfig(
        imageSize,
        images,
        expressionsPerImage,
        maxTokens,
        padToMax,
        shuffle,
        epochs,
        seed,
        threads,
        prefetch,
        cacheBytes,
        value);
  }

  public LoaderConfig withPadToMax(boolean value) {
    return new LoaderConfig(
        imageSize,
        images,
        expressionsPerImage,
        maxTokens,
        value,
        shuffle,
        epochs,
        seed,
        threads,
        prefetch,
        cacheBytes,
        augment);
  }

  public LoaderConfig withEpochs(int value) {
    return new LoaderConfig(
        imageSize,
        images,
        expressionsPerImage,
        maxTokens,
        padToMax,
        shuffle,
        value,
        seed,
        threads,
        prefetch,
        cacheBytes,
        augment);
  }

  public LoaderConfig withCacheBytes(long value) {
    return new LoaderConfig(
        imageSize,
        images,
        expressionsPerImage,
        maxTokens,
        padToMax,
        shuffle,
        epochs,
        seed,
        threads,
        prefetch,
        value,
        augment);
  }

  /** Threads that decode and batches made ahead. */
  public LoaderConfig withThreads(int threads, int prefetch) {
    return new LoaderConfig(
        imageSize,
        images,
        expressionsPerImage,
        maxTokens,
        padToMax,
        shuffle,
        epochs,
        seed,
        threads,
        prefetch,
        cacheBytes,
        augment);
  }
}
