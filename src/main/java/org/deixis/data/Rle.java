package org.deixis.data;

import java.util.Arrays;
import org.deixis.core.InputException;

/**
 * COCO's run-length code of a binary mask: lengths of alternating runs of 0 and 1, beginning with
 * 0, over the pixels in column-major order. The compressed form writes each length, less the one
 * two before it from the fourth on, as signed base-32 digits, least significant first, one
 * printable character each ('0' + digit, plus 32 where more follow). Format: {@code
 * common/maskApi.c} of cocodataset/cocoapi.
 */
public final class Rle {
  private static final int MAX_DIGITS = 7;

  private final int height;
  private final int width;
  private final int[] counts;

  private Rle(int height, int width, int[] counts) {
    this.height = height;
    this.width = width;
    this.counts = counts;
  }

  /**
   * Uncompressed run lengths.
   *
   * @throws InputException when one is negative or they do not add up to {@code height * width}
   */
  public static Rle of(int height, int width, int[] counts) {
    requireSize(height, width);
    long sum = 0;
    for (int count : counts) {
      if (count < 0) {
        throw new InputException("run-length code has a negative run of " + count);
      }
      sum += count;
    }
    if (sum != (long) height * width) {
      throw new InputException(
          "run-length code covers %d pixels, not the %d of %dx%d"
              .formatted(sum, (long) height * width, height, width));
    }
    return new Rle(height, width, counts.clone());
  }

  /**
   * Reads the compressed form.
   *
   * @throws InputException when it is cut off, holds a foreign character or has the wrong length
   */
  public static Rle parse(int height, int width, String compressed) {
    int[] counts = new int[Math.max(4, compressed.length())];
    int n = 0;
    int p = 0;
    while (p < compressed.length()) {
      long value = 0;
      int shift = 0;
      int digit;
      do {
        if (p == compressed.length() || shift == 5 * MAX_DIGITS) {
          throw new InputException("compressed run-length code is cut off or malformed");
        }
        digit = compressed.charAt(p++) - '0';
        if (digit < 0 || digit > 63) {
          throw new InputException(
              "compressed run-length code has a foreign character at position " + (p - 1));
        }
        value |= (long) (digit & 31) << shift;
        shift += 5;
      } while ((digit & 32) != 0);
      if ((digit & 16) != 0) {
        value |= -1L << shift;
      }
      if (n > 2) {
        value += counts[n - 2];
      }
      if (value < 0 || value > Integer.MAX_VALUE) {
        throw new InputException("compressed run-length code has a run of " + value);
      }
      counts[n++] = (int) value;
    }
    return of(height, width, Arrays.copyOf(counts, n));
  }

  /** Codes a mask. */
  public static Rle encode(BitMask mask) {
    int height = mask.height();
    int width = mask.width();
    byte[] data = mask.data();
    int[] counts = new int[16];
    int n = 0;
    int run = 0;
    int last = 0;
    for (int x = 0; x < width; x++) {
      for (int y = 0; y < height; y++) {
        int bit = data[y * width + x];
        if (bit != last) {
          if (n == counts.length) {
            counts = Arrays.copyOf(counts, 2 * n);
          }
          counts[n++] = run;
          run = 0;
          last = bit;
        }
        run++;
      }
    }
    counts = Arrays.copyOf(counts, n + 1);
    counts[n] = run;
    return new Rle(height, width, counts);
  }

  public int height() {
    return height;
  }

  public int width() {
    return width;
  }

  /** Run lengths, a copy. */
  public int[] counts() {
    return counts.clone();
  }

  /** Number of covered pixels, without decoding. */
  public int area() {
    int sum = 0;
    for (int i = 1; i < counts.length; i += 2) {
      sum += counts[i];
    }
    return sum;
  }

  public BitMask decode() {
    byte[] out = new byte[height * width];
    int y = 0;
    int x = 0;
    for (int i = 0; i < counts.length; i++) {
      int run = counts[i];
      if ((i & 1) == 0) {
        if (height > 0) {
          x += (y + run) / height;
          y = (y + run) % height;
        }
        continue;
      }
      for (; run > 0; run--) {
        out[y * width + x] = 1;
        if (++y == height) {
          y = 0;
          x++;
        }
      }
    }
    return new BitMask(height, width, out);
  }

  /** The compressed form, as in {@code instances.json}. */
  public String compressed() {
    StringBuilder out = new StringBuilder(2 * counts.length);
    for (int i = 0; i < counts.length; i++) {
      long value = i > 2 ? (long) counts[i] - counts[i - 2] : counts[i];
      boolean more;
      do {
        int digit = (int) (value & 31);
        value >>= 5;
        more = (digit & 16) != 0 ? value != -1 : value != 0;
        out.append((char) ('0' + (more ? digit | 32 : digit)));
      } while (more);
    }
    return out.toString();
  }

  private static void requireSize(int height, int width) {
    if (height < 0 || width < 0 || (long) height * width > Images.maxPixels()) {
      throw new InputException(
          "mask of %dx%d is over the limit of %d pixels"
              .formatted(height, width, Images.maxPixels()));
    }
  }
}
