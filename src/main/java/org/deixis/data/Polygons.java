package org.deixis.data;

import java.util.List;
import org.deixis.core.InputException;

/**
 * COCO polygons to bitmaps, bit-equal to pycocotools. The rule is that of {@code rleFrPoly} in
 * {@code common/maskApi.c} of cocodataset/cocoapi: vertices are rounded on a grid five times finer;
 * the boundary is walked there in unit steps along the longer axis of each edge; wherever the walk
 * crosses from one fine column to the next in the middle of a pixel column, that column is toggled
 * from the crossing downwards. Here the toggles are kept as bits and integrated once.
 */
public final class Polygons {
  private static final double SCALE = 5;
  private static final double MAX_COORDINATE = 1e5;
  private static final long MAX_STEPS = 50_000_000;

  private Polygons() {}

  /**
   * The union of the polygons.
   *
   * @param polygons each {@code x0, y0, x1, y1, ...} in pixels, at least three vertices
   * @throws InputException on an odd number of coordinates, fewer than three vertices, a coordinate
   *     that is not a number of reasonable size, or boundaries too long to walk
   */
  public static BitMask rasterise(int height, int width, List<double[]> polygons) {
    byte[] out = new byte[Math.multiplyExact(height, width)];
    if (out.length == 0) {
      return new BitMask(height, width, out);
    }
    long steps = 0;
    // One bit per pixel in column-major order; a toggle at row == height is the next column's
    // first, as in a run-length code, and one past the end has no effect.
    byte[] toggles = new byte[height * width + 1];
    for (double[] polygon : polygons) {
      steps += check(polygon);
      if (steps > MAX_STEPS) {
        throw new InputException(
            "polygons have a boundary of over " + MAX_STEPS / 5 + " pixels: simplify them");
      }
      walk(polygon, height, width, toggles);
      double low = Double.MAX_VALUE;
      double high = -Double.MAX_VALUE;
      for (int i = 0; i < polygon.length; i += 2) {
        low = Math.min(low, polygon[i]);
        high = Math.max(high, polygon[i]);
      }
      int from = (int) Math.max(0, Math.min(width - 1, low - 1));
      int to = (int) Math.max(0, Math.min(width - 1, high + 2));
      int inside = 0;
      for (int x = from, i = from * height; x <= to; x++) {
        for (int y = 0; y < height; y++, i++) {
          inside ^= toggles[i];
          toggles[i] = 0;
          out[y * width + x] |= (byte) inside;
        }
      }
      toggles[height * width] = 0;
    }
    return new BitMask(height, width, out);
  }

  /** Checks the coordinates; returns an upper bound of the walk's steps. */
  static long check(double[] polygon) {
    if (polygon.length % 2 != 0 || polygon.length < 6) {
      throw new InputException(
          "polygon of "
              + polygon.length
              + " coordinates: an even number of at least 6 is needed (x and y of each vertex)");
    }
    for (double c : polygon) {
      if (!(Math.abs(c) <= MAX_COORDINATE)) {
        throw new InputException("polygon has a coordinate of " + c);
      }
    }
    long steps = 0;
    int n = polygon.length / 2;
    for (int i = 0; i < n; i++) {
      int j = (i + 1) % n;
      double dx = Math.abs(polygon[2 * i] - polygon[2 * j]);
      double dy = Math.abs(polygon[2 * i + 1] - polygon[2 * j + 1]);
      steps += (long) (SCALE * Math.max(dx, dy)) + 2;
    }
    return steps;
  }

  private static void walk(double[] polygon, int height, int width, byte[] toggles) {
    int n = polygon.length / 2;
    boolean begun = false;
    int lastU = 0;
    int lastV = 0;
    for (int i = 0; i < n; i++) {
      int j = (i + 1) % n;
      int x0 = fine(polygon[2 * i]);
      int y0 = fine(polygon[2 * i + 1]);
      int x1 = fine(polygon[2 * j]);
      int y1 = fine(polygon[2 * j + 1]);
      int dx = Math.abs(x1 - x0);
      int dy = Math.abs(y1 - y0);
      int length = Math.max(dx, dy);
      if (length == 0) {
        continue; // a vertex repeated on the fine grid crosses nothing
      }
      boolean flat = dx >= dy;
      // Each edge is interpolated from its lower end, so that it gives the same points whichever
      // way it is walked: neighbours that share an edge then share no pixel.
      boolean backwards = flat ? x0 > x1 : y0 > y1;
      int fromX = backwards ? x1 : x0;
      int fromY = backwards ? y1 : y0;
      double slope =
          flat
              ? (double) (backwards ? y0 - y1 : y1 - y0) / dx
              : (double) (backwards ? x0 - x1 : x1 - x0) / dy;
      for (int d = 0; d <= length; d++) {
        int t = backwards ? length - d : d;
        int u = flat ? fromX + t : (int) (fromX + slope * t + .5);
        int v = flat ? (int) (fromY + slope * t + .5) : fromY + t;
        if (begun && u != lastU) {
          cross(u, v, lastU, lastV, height, width, toggles);
        }
        begun = true;
        lastU = u;
        lastV = v;
      }
    }
  }

  private static void cross(
      int u, int v, int lastU, int lastV, int height, int width, byte[] toggles) {
    double x = ((u < lastU ? u : u - 1) + .5) / SCALE - .5;
    if (x != Math.floor(x) || x < 0 || x > width - 1) {
      return;
    }
    double y = (Math.min(v, lastV) + .5) / SCALE - .5;
    int row = (int) Math.ceil(Math.max(0, Math.min(height, y)));
    toggles[(int) x * height + row] ^= 1;
  }

  private static int fine(double c) {
    return (int) (SCALE * c + .5);
  }
}
