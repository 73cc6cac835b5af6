package org.deixis.data;

import java.util.Arrays;
import java.util.List;

/**
 * A binary mask, the type in which masks are exchanged.
 *
 * @param height rows
 * @param width columns
 * @param data {@code height * width} bytes, row-major, each 0 or 1; not copied
 */
public record BitMask(int height, int width, byte[] data) {
  public BitMask {
    if (height < 0 || width < 0 || (long) height * width != data.length) {
      throw new IllegalArgumentException(
          "a mask of " + height + "x" + width + " does not hold " + data.length + " bytes");
    }
  }

  /** A mask of zeros. */
  public static BitMask empty(int height, int width) {
    return new BitMask(height, width, new byte[Math.multiplyExact(height, width)]);
  }

  /** The pixels that at least one mask covers. All masks have the size {@code height x width}. */
  public static BitMask union(int height, int width, List<BitMask> masks) {
    BitMask out = empty(height, width);
    for (BitMask mask : masks) {
      if (mask.height != height || mask.width != width) {
        throw new IllegalArgumentException(
            "cannot merge a mask of %dx%d into %dx%d"
                .formatted(mask.height, mask.width, height, width));
      }
      for (int i = 0; i < out.data.length; i++) {
        out.data[i] |= mask.data[i];
      }
    }
    return out;
  }

  public boolean get(int y, int x) {
    return data[y * width + x] != 0;
  }

  /** Number of covered pixels. */
  public int area() {
    int n = 0;
    for (byte b : data) {
      n += b;
    }
    return n;
  }

  /** The smallest box around the covered pixels, or null when there are none. */
  public Box boundingBox() {
    int x0 = width;
    int x1 = -1;
    int y0 = height;
    int y1 = -1;
    for (int y = 0; y < height; y++) {
      int row = y * width;
      for (int x = 0; x < width; x++) {
        if (data[row + x] != 0) {
          x0 = Math.min(x0, x);
          x1 = Math.max(x1, x);
          y0 = Math.min(y0, y);
          y1 = y;
        }
      }
    }
    return x1 < 0 ? null : new Box(x0, y0, x1 - x0 + 1, y1 - y0 + 1);
  }

  /** The part inside {@code box}, which must lie within the mask. */
  public BitMask crop(Box box) {
    box.requireWithin(height, width);
    byte[] out = new byte[box.height() * box.width()];
    for (int y = 0; y < box.height(); y++) {
      System.arraycopy(data, (y + box.y()) * width + box.x(), out, y * box.width(), box.width());
    }
    return new BitMask(box.height(), box.width(), out);
  }

  /** Mirrored about the vertical axis. */
  public BitMask flipHorizontally() {
    byte[] out = new byte[data.length];
    for (int y = 0; y < height; y++) {
      for (int x = 0; x < width; x++) {
        out[y * width + x] = data[y * width + width - 1 - x];
      }
    }
    return new BitMask(height, width, out);
  }

  /** Nearest neighbour by pixel centres: the area is kept on average, however thin the object. */
  public BitMask resize(int newHeight, int newWidth) {
    if (newHeight == height && newWidth == width) {
      return this;
    }
    byte[] out = new byte[Math.multiplyExact(newHeight, newWidth)];
    resizeInto(out, 0, newHeight, newWidth, Box.whole(height, width), false);
    return new BitMask(newHeight, newWidth, out);
  }

  /**
   * Nearest neighbour of the part inside {@code box}, optionally mirrored, written at {@code
   * out[offset...]}: crop, resize and flip in one pass and without an intermediate mask.
   */
  void resizeInto(byte[] out, int offset, int newHeight, int newWidth, Box box, boolean flip) {
    int[] column = new int[newWidth];
    for (int x = 0; x < newWidth; x++) {
      int source = (int) ((2L * x + 1) * box.width() / (2L * newWidth));
      column[flip ? newWidth - 1 - x : x] = box.x() + source;
    }
    for (int y = 0; y < newHeight; y++) {
      int row = (box.y() + (int) ((2L * y + 1) * box.height() / (2L * newHeight))) * width;
      int to = offset + y * newWidth;
      for (int x = 0; x < newWidth; x++) {
        out[to + x] = data[row + column[x]];
      }
    }
  }

  /**
   * Covered where at least half of the new pixel's area is covered. Smoother borders than {@link
   * #resize} when shrinking, but objects thinner than half a new pixel vanish.
   */
  public BitMask resizeArea(int newHeight, int newWidth) {
    double[][] rows = overlaps(height, newHeight);
    double[][] columns = overlaps(width, newWidth);
    byte[] out = new byte[Math.multiplyExact(newHeight, newWidth)];
    for (int y = 0; y < newHeight; y++) {
      for (int x = 0; x < newWidth; x++) {
        double covered = 0;
        double total = 0;
        for (int i = 1; i < rows[y].length; i++) {
          int row = ((int) rows[y][0] + i - 1) * width + (int) columns[x][0];
          for (int j = 1; j < columns[x].length; j++) {
            double share = rows[y][i] * columns[x][j];
            total += share;
            covered += share * data[row + j - 1];
          }
        }
        out[y * newWidth + x] = (byte) (2 * covered >= total * (1 - 1e-9) && total > 0 ? 1 : 0);
      }
    }
    return new BitMask(newHeight, newWidth, out);
  }

  /** For each new cell: the first old cell under it, then each old cell's overlap in length. */
  private static double[][] overlaps(int from, int to) {
    double[][] result = new double[to][];
    for (int i = 0; i < to; i++) {
      double low = (double) i * from / to;
      double high = (double) (i + 1) * from / to;
      int first = (int) low;
      int last = Math.min(from, (int) Math.ceil(high - 1e-9));
      double[] cell = new double[Math.max(0, last - first) + 1];
      cell[0] = first;
      for (int k = first; k < last; k++) {
        cell[k - first + 1] = Math.min(high, k + 1) - Math.max(low, k);
      }
      result[i] = cell;
    }
    return result;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof BitMask m
        && m.height == height
        && m.width == width
        && Arrays.equals(m.data, data);
  }

  @Override
  public int hashCode() {
    return 31 * (31 * height + width) + Arrays.hashCode(data);
  }

  @Override
  public String toString() {
    return "BitMask[" + height + "x" + width + ", area " + area() + "]";
  }
}
