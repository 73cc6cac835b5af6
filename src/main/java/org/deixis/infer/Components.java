package org.deixis.infer;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.deixis.data.BitMask;
import org.deixis.data.Box;

/**
 * Connected parts of a mask (neighbours at sides and corners), by joining the runs of each row with
 * those of the row above; memory grows with the number of runs, not of pixels.
 */
final class Components {
  /** Bounds and area of a part. */
  private static final class Part {
    int left = Integer.MAX_VALUE;
    int right = -1;
    int top = Integer.MAX_VALUE;
    int bottom = -1;
    long area;

    void add(int row, int from, int to) {
      left = Math.min(left, from);
      right = Math.max(right, to - 1);
      top = Math.min(top, row);
      bottom = Math.max(bottom, row);
      area += to - from;
    }

    Box box() {
      return new Box(left, top, right - left + 1, bottom - top + 1);
    }
  }

  private int[] from = new int[64];
  private int[] to = new int[64];
  private int[] row = new int[64];
  private int[] parent = new int[64];
  private int runs;

  private Components() {}

  /** Boxes of the parts with at least {@code share} of the mask's area, largest part first. */
  static List<Box> boxes(BitMask mask, double share) {
    Components c = new Components();
    int above = 0;
    for (int y = 0; y < mask.height(); y++) {
      int first = c.runs;
      c.scan(mask, y);
      c.join(above, first);
      above = first;
    }
    return c.boxes(share);
  }

  private void scan(BitMask mask, int y) {
    byte[] data = mask.data();
    int base = y * mask.width();
    int x = 0;
    while (x < mask.width()) {
      if (data[base + x] == 0) {
        x++;
        continue;
      }
      int start = x;
      while (x < mask.width() && data[base + x] != 0) {
        x++;
      }
      if (runs == from.length) {
        from = Arrays.copyOf(from, 2 * runs);
        to = Arrays.copyOf(to, 2 * runs);
        row = Arrays.copyOf(row, 2 * runs);
        parent = Arrays.copyOf(parent, 2 * runs);
      }
      from[runs] = start;
      to[runs] = x;
      row[runs] = y;
      parent[runs] = runs;
      runs++;
    }
  }

  /** Joins runs [first, runs) of a row with those of the row above, [above, first). */
  private void join(int above, int first) {
    int a = above;
    for (int b = first; b < runs; b++) {
      while (a < first && to[a] < from[b]) {
        a++;
      }
      for (int i = a; i < first && from[i] <= to[b]; i++) {
        int x = root(i);
        int y = root(b);
        parent[Math.max(x, y)] = Math.min(x, y);
      }
    }
  }

  private int root(int i) {
    int r = i;
    while (parent[r] != r) {
      parent[r] = parent[parent[r]];
      r = parent[r];
    }
    return r;
  }

  private List<Box> boxes(double share) {
    Map<Integer, Part> parts = new HashMap<>();
    long area = 0;
    for (int i = 0; i < runs; i++) {
      parts.computeIfAbsent(root(i), k -> new Part()).add(row[i], from[i], to[i]);
      area += to[i] - from[i];
    }
    List<Part> large = new ArrayList<>();
    for (Part p : parts.values()) {
      if (p.area >= share * area) {
        large.add(p);
      }
    }
    large.sort(
        Comparator.comparingLong((Part p) -> -p.area)
            .thenComparingInt(p -> p.top)
            .thenComparingInt(p -> p.left));
    return large.stream().map(Part::box).toList();
  }
}
