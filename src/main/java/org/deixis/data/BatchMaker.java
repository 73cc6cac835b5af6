package org.deixis.data;

import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.deixis.core.Rng;

/** Makes a batch of its units: decodes, augments, resizes and tokenises. Used by many threads. */
final class BatchMaker {
  private static final int MAX_POOLED = 8;

  private final Dataset dataset;
  private final TextTokenizer tokenizer;
  private final LoaderConfig config;
  private final PictureCache cache;
  private final Map<Integer, Queue<byte[]>> pools = new ConcurrentHashMap<>();

  BatchMaker(Dataset dataset, TextTokenizer tokenizer, LoaderConfig config) {
    this.dataset = dataset;
    this.tokenizer = tokenizer;
    this.config = config;
    this.cache = new PictureCache(config.cacheBytes());
  }

  /** A pure function of its arguments and the configuration, whatever thread runs it. */
  Batch make(List<EpochPlan.Unit> units, int epoch, int batch) {
    int size = config.imageSize();
    int pixels = size * size;
    int images = units.size();
    int each = units.get(0).samples().length;
    int expressions = images * each;
    byte[] rgb = buffer(3 * images * pixels);
    byte[] masks = buffer(expressions * pixels);
    float[] negative = new float[expressions];
    int[] imageIndex = new int[expressions];
    Sample[] samples = new Sample[expressions];
    int[][] ids = new int[expressions][];
    double complexity = 0;
    for (int i = 0; i < images; i++) {
      EpochPlan.Unit unit = units.get(i);
      Picture picture = dataset.pictures().get(unit.picture());
      BitMask[] full = new BitMask[each];
      Box keep = null;
      for (int e = 0; e < each; e++) {
        Sample sample = dataset.samples().get(unit.samples()[e]);
        samples[i * each + e] = sample;
        // Negatives need no bitmap at the picture's size just to be resized to zeros.
        full[e] = sample.noTarget() ? null : sample.mask();
        if (full[e] != null && config.augment().crop() > 0) {
          keep = Box.union(keep, full[e].boundingBox());
        }
      }
      long position = (long) batch * config.images() + i;
      Rng rng = new Rng(config.seed(), DataLoader.augmentStream(epoch, position));
      Augmentation change =
          Augmentation.draw(config.augment(), picture.height(), picture.width(), keep, rng);
      image(picture, change.crop(), rgb, 3 * i * pixels);
      change.apply(rgb, 3 * i * pixels, size, size);
      complexity += Complexity.of(rgb, 3 * i * pixels, size, size);
      for (int e = 0; e < each; e++) {
        int b = i * each + e;
        imageIndex[b] = i;
        negative[b] = samples[b].noTarget() ? 1 : 0;
        if (full[e] == null) {
          Arrays.fill(masks, b * pixels, (b + 1) * pixels, (byte) 0);
        } else {
          full[e].resizeInto(masks, b * pixels, size, size, change.crop(), change.flip());
        }
        String phrase = samples[b].phrase();
        ids[b] =
            tokenizer.encode(change.flip() ? PhraseFlip.flip(phrase) : phrase, config.maxTokens());
      }
    }
    int tokens = config.padToMax() ? config.maxTokens() : 0;
    for (int[] phrase : ids) {
      tokens = Math.max(tokens, phrase.length);
    }
    int[] flat = new int[expressions * tokens];
    int[] textMask = new int[flat.length];
    Arrays.fill(flat, tokenizer.padId());
    for (int b = 0; b < expressions; b++) {
      System.arraycopy(ids[b], 0, flat, b * tokens, ids[b].length);
      Arrays.fill(textMask, b * tokens, b * tokens + ids[b].length, 1);
    }
    return new Batch(
        images,
        expressions,
        size,
        size,
        tokens,
        rgb,
        flat,
        textMask,
        masks,
        negative,
        imageIndex,
        samples,
        (float) (complexity / images));
  }

  private void image(Picture picture, Box crop, byte[] rgb, int offset) {
    int size = config.imageSize();
    if (config.augment().crop() > 0) {
      RgbImage image = cache.get(picture, Picture::read);
      Images.resizeInto(image, crop, size, size, rgb, offset);
    } else {
      // Always the whole picture, so that the cache can hold it at the model's size.
      RgbImage image = cache.get(picture, p -> Images.resize(p.read(), size, size));
      System.arraycopy(image.data(), 0, rgb, offset, image.data().length);
    }
  }

  private byte[] buffer(int length) {
    Queue<byte[]> pool = pools.get(length);
    byte[] pooled = pool == null ? null : pool.poll();
    return pooled == null ? new byte[length] : pooled;
  }

  void recycle(byte[] buffer) {
    Queue<byte[]> pool = pools.computeIfAbsent(buffer.length, n -> new ConcurrentLinkedQueue<>());
    if (pool.size() < MAX_POOLED) {
      pool.add(buffer);
    }
  }
}
