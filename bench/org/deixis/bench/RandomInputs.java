package org.deixis.bench;

import java.util.Arrays;
import org.deixis.core.Rng;
import org.deixis.data.Batch;
import org.deixis.data.Sample;
import org.deixis.model.bert.Tokens;

/** Drawn pictures, phrases and masks; speed does not depend on what they show. */
final class RandomInputs {
  private static final long SEED = 1;

  private RandomInputs() {}

  /** A normalised picture (3, size, size). */
  static float[] picture(int size) {
    Rng rng = new Rng(SEED, 0);
    float[] values = new float[3 * size * size];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) rng.nextGaussian();
    }
    return values;
  }

  /** Phrases without padding, of ids from 3 on. */
  static Tokens tokens(int phrases, int length, int vocab) {
    Rng rng = new Rng(SEED, 1);
    int[] ids = new int[phrases * length];
    int[] mask = new int[ids.length];
    for (int i = 0; i < ids.length; i++) {
      ids[i] = 3 + rng.nextInt(vocab - 3);
    }
    Arrays.fill(mask, 1);
    return new Tokens(ids, mask, phrases, length);
  }

  /** A training batch: pictures of size × size with {@code share} expressions each. */
  static Batch batch(int images, int share, int size, int tokens, int vocab) {
    Rng rng = new Rng(SEED, 2);
    int expressions = images * share;
    byte[] pixels = new byte[images * size * size * 3];
    for (int i = 0; i < pixels.length; i++) {
      pixels[i] = (byte) rng.nextInt(256);
    }
    byte[] masks = new byte[expressions * size * size];
    for (int i = 0; i < masks.length; i++) {
      masks[i] = (byte) (rng.nextInt(5) == 0 ? 1 : 0);
    }
    float[] negative = new float[expressions];
    int[] index = new int[expressions];
    for (int i = 0; i < expressions; i++) {
      negative[i] = i % 4 == 3 ? 1 : 0;
      index[i] = i / share;
    }
    Tokens phrases = tokens(expressions, tokens, vocab);
    return new Batch(
        images,
        expressions,
        size,
        size,
        tokens,
        pixels,
        phrases.ids(),
        phrases.mask(),
        masks,
        negative,
        index,
        new Sample[expressions],
        0.5f);
  }
}
