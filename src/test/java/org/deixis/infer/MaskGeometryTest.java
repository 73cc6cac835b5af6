package org.deixis.infer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.Rng;
import org.deixis.data.BitMask;
import org.deixis.data.Box;
import org.deixis.tensor.Tensor;
import org.junit.jupiter.api.Test;

/** Up-sampling against the resize kernel, connected parts against a flood fill. */
class MaskGeometryTest {
  @Test
  void masksAreTheSignOfResizedLogits() {
    Rng rng = new Rng(3);
    int[][] sizes = {{24, 24, 96, 96}, {7, 5, 31, 90}, {1, 1, 4, 9}, {12, 16, 5, 3}, {3, 8, 1, 1}};
    for (int[] s : sizes) {
      float[] logits = new float[s[0] * s[1]];
      for (int i = 0; i < logits.length; i++) {
        logits[i] = (float) rng.nextGaussian();
      }
      BitMask mask = MaskUpsampling.positive(logits, s[0], s[1], s[2], s[3]);
      try (Scope scope = Scope.open()) {
        float[] fine =
            Tensor.floats(Backends.get("reference"), logits, 1, s[0], s[1], 1)
                .resize(s[2], s[3])
                .toFloats();
        for (int i = 0; i < fine.length; i++) {
          if (Math.abs(fine[i]) > 1e-5) { // nearer to 0 than rounding either sign is right
            assertEquals(fine[i] > 0 ? 1 : 0, mask.data()[i], "pixel " + i);
          }
        }
      }
    }
  }

  @Test
  void boxesAreThoseOfAFloodFill() {
    Rng rng = new Rng(5);
    for (int trial = 0; trial < 60; trial++) {
      int h = 1 + rng.nextInt(20);
      int w = 1 + rng.nextInt(24);
      byte[] data = new byte[h * w];
      double density = 0.1 + 0.1 * (trial % 7);
      for (int i = 0; i < data.length; i++) {
        data[i] = (byte) (rng.nextBoolean(density) ? 1 : 0);
      }
      BitMask mask = new BitMask(h, w, data);
      for (double share : new double[] {0, 0.2}) {
        assertEquals(flood(mask, share), sorted(Components.boxes(mask, share)), "trial " + trial);
      }
    }
  }

  @Test
  void theLargestPartComesFirst() {
    BitMask mask = BitMask.empty(10, 10);
    mask.data()[0] = 1;
    for (int i = 55; i < 59; i++) {
      mask.data()[i] = 1;
    }
    assertEquals(List.of(new Box(5, 5, 4, 1), new Box(0, 0, 1, 1)), Components.boxes(mask, 0.01));
    assertTrue(Components.boxes(BitMask.empty(4, 4), 0.01).isEmpty());
  }

  private static List<Box> sorted(List<Box> boxes) {
    List<Box> list = new ArrayList<>(boxes);
    list.sort(
        Comparator.comparingInt(Box::y)
            .thenComparingInt(Box::x)
            .thenComparingInt(Box::height)
            .thenComparingInt(Box::width));
    return list;
  }

  private static List<Box> flood(BitMask mask, double share) {
    boolean[] seen = new boolean[mask.data().length];
    List<Box> boxes = new ArrayList<>();
    for (int i = 0; i < seen.length; i++) {
      if (mask.data()[i] == 0 || seen[i]) {
        continue;
      }
      ArrayDeque<Integer> open = new ArrayDeque<>(List.of(i));
      seen[i] = true;
      BitMask part = BitMask.empty(mask.height(), mask.width());
      while (!open.isEmpty()) {
        int at = open.pop();
        part.data()[at] = 1;
        int y = at / mask.width();
        int x = at % mask.width();
        for (int ny = Math.max(0, y - 1); ny <= Math.min(mask.height() - 1, y + 1); ny++) {
          for (int nx = Math.max(0, x - 1); nx <= Math.min(mask.width() - 1, x + 1); nx++) {
            int n = ny * mask.width() + nx;
            if (mask.data()[n] != 0 && !seen[n]) {
              seen[n] = true;
              open.push(n);
            }
          }
        }
      }
      if (part.area() >= share * mask.area()) {
        boxes.add(part.boundingBox());
      }
    }
    return sorted(boxes);
  }
}
