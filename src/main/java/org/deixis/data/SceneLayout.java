package org.deixis.data;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.deixis.core.Rng;

/** Places and draws the objects of a scene. */
final class SceneLayout {
  private static final int SUPERSAMPLING = 4;
  private static final int PLACE_ATTEMPTS = 60;
  private static final int SCENE_ATTEMPTS = 40;
  private static final double MIN_DISTANCE = 0.8;
  private static final double MIN_VISIBLE = 0.75;
  private static final double NOISE = 4;

  /** Bounds of radii as shares of the side; the gap between small and big keeps the words true. */
  private record Kind(
      int shapes, int colours, int minObjects, int maxObjects, double[] small, double[] big) {}

  private static final Kind SIMPLE =
      new Kind(3, 4, 2, 5, new double[] {0.11, 0.145}, new double[] {0.175, 0.21});
  private static final Kind FULL =
      new Kind(6, 8, 3, 8, new double[] {0.06, 0.085}, new double[] {0.115, 0.15});

  final List<SceneObject> objects;
  final int size;

  /** For each pixel the index of the object seen there, or -1. */
  private final int[] owner;

  private SceneLayout(List<SceneObject> objects, int size) {
    this.objects = objects;
    this.size = size;
    this.owner = new int[size * size];
    Arrays.fill(owner, -1);
  }

  /** Places 2 to 5 (simple) or 3 to 8 (full) objects, none of which is heavily covered. */
  static SceneLayout draw(boolean simple, int size, Rng rng) {
    Kind kind = simple ? SIMPLE : FULL;
    int n = rng.nextInt(kind.minObjects, kind.maxObjects + 1);
    while (true) {
      for (int attempt = 0; attempt < SCENE_ATTEMPTS; attempt++) {
        List<SceneObject> objects = place(kind, n, size, rng);
        if (objects != null) {
          SceneLayout layout = new SceneLayout(objects, size);
          if (layout.allVisible()) {
            return layout;
          }
        }
      }
      n--; // so many do not fit; two always do
    }
  }

  private static List<SceneObject> place(Kind kind, int n, int size, Rng rng) {
    List<SceneObject> objects = new ArrayList<>();
    while (objects.size() < n) {
      SceneObject placed = null;
      for (int attempt = 0; attempt < PLACE_ATTEMPTS && placed == null; attempt++) {
        SceneObject candidate = object(kind, size, rng);
        boolean clear = true;
        for (SceneObject other : objects) {
          double distance = Math.hypot(other.x() - candidate.x(), other.y() - candidate.y());
          clear &= distance >= MIN_DISTANCE * (other.radius() + candidate.radius());
        }
        placed = clear ? candidate : null;
      }
      if (placed == null) {
        return null;
      }
      objects.add(placed);
    }
    return objects;
  }

  private static SceneObject object(Kind kind, int size, Rng rng) {
    String shape = SceneObject.SHAPES[rng.nextInt(kind.shapes)];
    String colour = SceneObject.COLOURS[rng.nextInt(kind.colours)];
    boolean big = rng.nextBoolean(0.5);
    double[] range = big ? kind.big : kind.small;
    double radius = size * (range[0] + (range[1] - range[0]) * rng.nextDouble());
    double margin = Math.min(size / 2.0, SceneObject.EXTENT * radius + 1);
    double x = margin + (size - 2 * margin) * rng.nextDouble();
    double y = margin + (size - 2 * margin) * rng.nextDouble();
    return new SceneObject(shape, colour, big, x, y, radius);
  }

  /** Fills {@link #owner}; false if an object has lost too much of itself to later ones. */
  private boolean allVisible() {
    int[] whole = new int[objects.size()];
    for (int i = 0; i < objects.size(); i++) {
      SceneObject o = objects.get(i);
      Box box = around(o);
      for (int y = box.y(); y < box.y() + box.height(); y++) {
        for (int x = box.x(); x < box.x() + box.width(); x++) {
          if (2 * coverage(o, x, y) >= 1) {
            owner[y * size + x] = i;
            whole[i]++;
          }
        }
      }
    }
    int[] visible = new int[objects.size()];
    for (int i : owner) {
      if (i >= 0) {
        visible[i]++;
      }
    }
    for (int i = 0; i < visible.length; i++) {
      if (visible[i] < MIN_VISIBLE * whole[i] || visible[i] == 0) {
        return false;
      }
    }
    return true;
  }

  /** The visible pixels of each object. */
  List<BitMask> masks() {
    List<BitMask> masks = new ArrayList<>();
    for (int i = 0; i < objects.size(); i++) {
      byte[] data = new byte[owner.length];
      for (int p = 0; p < owner.length; p++) {
        data[p] = (byte) (owner[p] == i ? 1 : 0);
      }
      masks.add(new BitMask(size, size, data));
    }
    return masks;
  }

  /** Paints the objects over a plain background with a slight gradient and mild noise. */
  RgbImage paint(Rng rng) {
    double[] rgb = new double[3 * size * size];
    double grey = 170 + 60 * rng.nextDouble();
    double[] base = new double[3];
    for (int c = 0; c < 3; c++) {
      base[c] = grey + 16 * rng.nextDouble() - 8;
    }
    double slopeX = (20 * rng.nextDouble() - 10) / size;
    double slopeY = (20 * rng.nextDouble() - 10) / size;
    for (int y = 0, p = 0; y < size; y++) {
      for (int x = 0; x < size; x++) {
        for (int c = 0; c < 3; c++) {
          rgb[p++] = base[c] + slopeX * x + slopeY * y;
        }
      }
    }
    for (SceneObject o : objects) {
      double[] colour = new double[3];
      for (int c = 0; c < 3; c++) {
        colour[c] = (o.rgb() >> 16 - 8 * c & 0xff) + 24 * rng.nextDouble() - 12;
      }
      Box box = around(o);
      for (int y = box.y(); y < box.y() + box.height(); y++) {
        for (int x = box.x(); x < box.x() + box.width(); x++) {
          double share = coverage(o, x, y);
          for (int c = 0; c < 3; c++) {
            int p = 3 * (y * size + x) + c;
            rgb[p] += share * (colour[c] - rgb[p]);
          }
        }
      }
    }
    byte[] data = new byte[rgb.length];
    // The sum of four uniform bytes, scaled to a standard deviation of NOISE: near enough to
    // normal, and a single draw.
    double scale = NOISE / Math.sqrt(4 * (256.0 * 256 - 1) / 12);
    for (int p = 0; p < data.length; p++) {
      int bits = rng.nextInt();
      int sum = (bits & 0xff) + (bits >>> 8 & 0xff) + (bits >>> 16 & 0xff) + (bits >>> 24);
      double v = rgb[p] + scale * (sum - 510) + 0.5;
      data[p] = (byte) (int) Math.max(0, Math.min(255, v));
    }
    return new RgbImage(size, size, data);
  }

  private Box around(SceneObject o) {
    double reach = SceneObject.EXTENT * o.radius();
    int x0 = (int) Math.max(0, Math.floor(o.x() - reach));
    int y0 = (int) Math.max(0, Math.floor(o.y() - reach));
    int x1 = (int) Math.min(size, Math.ceil(o.x() + reach) + 1);
    int y1 = (int) Math.min(size, Math.ceil(o.y() + reach) + 1);
    return new Box(x0, y0, x1 - x0, y1 - y0);
  }

  /** The share of the pixel that the object covers. */
  private static double coverage(SceneObject o, int x, int y) {
    double near = 0.5 / SUPERSAMPLING;
    double far = 1 - near;
    // A convex shape that has the four outer samples has all between them.
    if (o.convex()
        && o.covers(x + near, y + near)
        && o.covers(x + far, y + near)
        && o.covers(x + near, y + far)
        && o.covers(x + far, y + far)) {
      return 1;
    }
    int n = 0;
    for (int j = 0; j < SUPERSAMPLING; j++) {
      for (int i = 0; i < SUPERSAMPLING; i++) {
        if (o.covers(x + (i + 0.5) / SUPERSAMPLING, y + (j + 0.5) / SUPERSAMPLING)) {
          n++;
        }
      }
    }
    return (double) n / (SUPERSAMPLING * SUPERSAMPLING);
  }
}
