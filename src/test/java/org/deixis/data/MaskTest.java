package org.deixis.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.deixis.core.InputException;
import org.deixis.core.Rng;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

class MaskTest {
  private static BitMask rows(int height, int width, JsonNode rows) {
    byte[] data = new byte[height * width];
    for (int y = 0; y < height; y++) {
      String row = rows.get(y).asText();
      for (int x = 0; x < width; x++) {
        data[y * width + x] = (byte) (row.charAt(x) - '0');
      }
    }
    return new BitMask(height, width, data);
  }

  @Test
  @Tag("golden")
  void polygonsAndRunLengthsAreBitEqualToPycocotools() throws Exception {
    String dir = System.getProperty("golden.dir");
    JsonNode items;
    try (InputStream in =
        dir == null
            ? MaskTest.class.getResourceAsStream("/golden/coco_masks.json")
            : java.nio.file.Files.newInputStream(java.nio.file.Path.of(dir, "coco_masks.json"))) {
      items = new ObjectMapper().readTree(in);
    }
    assertTrue(items.size() >= 40);
    for (JsonNode item : items) {
      int h = item.get("height").asInt();
      int w = item.get("width").asInt();
      List<double[]> polygons = new ArrayList<>();
      for (JsonNode p : item.get("polygons")) {
        double[] xy = new double[p.size()];
        Arrays.setAll(xy, i -> p.get(i).asDouble());
        polygons.add(xy);
      }
      BitMask mask = Polygons.rasterise(h, w, polygons);
      assertEquals(rows(h, w, item.get("polygon_rows")), mask);
      assertEquals(item.get("area").asInt(), mask.area());
      String counts = item.get("counts").asText();
      BitMask dense = rows(h, w, item.get("rle_rows"));
      assertEquals(dense, Rle.parse(h, w, counts).decode());
      assertEquals(counts, Rle.encode(dense).compressed());
      assertEquals(dense.area(), Rle.parse(h, w, counts).area());
    }
  }

  @Test
  void runLengthsSurviveTheRoundTrip() {
    Rng rng = new Rng(11);
    for (int i = 0; i < 200; i++) {
      int h = rng.nextInt(1, 40);
      int w = rng.nextInt(1, 40);
      byte[] data = new byte[h * w];
      double p = rng.nextDouble();
      for (int k = 0; k < data.length; k++) {
        data[k] = (byte) (rng.nextBoolean(p) ? 1 : 0);
      }
      if (i == 0) {
        Arrays.fill(data, (byte) 0);
      } else if (i == 1) {
        Arrays.fill(data, (byte) 1);
      }
      BitMask mask = new BitMask(h, w, data);
      Rle rle = Rle.encode(mask);
      assertEquals(mask, rle.decode());
      assertEquals(mask, Rle.of(h, w, rle.counts()).decode());
      assertEquals(mask, Rle.parse(h, w, rle.compressed()).decode());
      assertEquals(mask.area(), rle.area());
    }
  }

  @Test
  void runLengthsByHand() {
    // Column-major: column 0 is 0,1; column 1 is 1,0.
    BitMask mask = new BitMask(2, 2, new byte[] {0, 1, 1, 0});
    assertArrayEquals(new int[] {1, 2, 1}, Rle.encode(mask).counts());
    assertEquals("121", Rle.encode(mask).compressed());
  }

  @Test
  void damagedCodesAreRefused() {
    assertThrows(InputException.class, () -> Rle.of(2, 2, new int[] {1, 2}));
    assertThrows(InputException.class, () -> Rle.of(2, 2, new int[] {-1, 5}));
    assertThrows(InputException.class, () -> Rle.parse(2, 2, "12"));
    assertThrows(InputException.class, () -> Rle.parse(2, 2, "12P"));
    assertThrows(InputException.class, () -> Rle.parse(2, 2, "1\u007f1"));
    assertThrows(InputException.class, () -> Rle.parse(2, 2, "PPPPPPPPPPPPPPPP1"));
    assertThrows(InputException.class, () -> Rle.parse(1 << 20, 1 << 20, "1"));
    double[] nan = {0, 0, 1, Double.NaN, 1, 1};
    assertThrows(InputException.class, () -> Polygons.rasterise(4, 4, List.of(nan)));
    double[] far = {0, 0, 1e9, 1, 1, 1};
    assertThrows(InputException.class, () -> Polygons.rasterise(4, 4, List.of(far)));
    assertThrows(
        InputException.class, () -> Polygons.rasterise(4, 4, List.of(new double[] {0, 0, 1, 1})));
    double[] zigzag = new double[4000];
    for (int i = 0; i < zigzag.length; i++) {
      zigzag[i] = i % 4 < 2 ? -9e4 : 9e4;
    }
    assertThrows(InputException.class, () -> Polygons.rasterise(4, 4, List.of(zigzag)));
  }

  @Test
  void polygonsPartlyOutsideFillOnlyTheInside() {
    BitMask mask = Polygons.rasterise(6, 5, List.of(new double[] {-3, -3, 9, -3, 9, 9, -3, 9}));
    assertEquals(30, mask.area());
    // Repeated vertices change nothing.
    BitMask box = Polygons.rasterise(6, 5, List.of(new double[] {1, 1, 4, 1, 4, 4, 1, 4}));
    assertEquals(
        box, Polygons.rasterise(6, 5, List.of(new double[] {1, 1, 1, 1, 4, 1, 4, 4, 4, 4, 1, 4})));
    assertEquals(new Box(1, 1, 3, 3), box.boundingBox());
    assertEquals(9, box.area());
  }

  @Test
  void geometry() {
    BitMask mask = new BitMask(2, 3, new byte[] {0, 1, 0, 0, 1, 1});
    assertEquals(new Box(1, 0, 2, 2), mask.boundingBox());
    assertNull(BitMask.empty(3, 3).boundingBox());
    assertArrayEquals(new byte[] {0, 1, 0, 1, 1, 0}, mask.flipHorizontally().data());
    assertArrayEquals(new byte[] {1, 0, 1, 1}, mask.crop(new Box(1, 0, 2, 2)).data());
    BitMask twice = mask.resize(4, 6);
    assertEquals(4 * mask.area(), twice.area());
    assertEquals(mask, twice.resize(2, 3));
    assertEquals(mask, twice.resizeArea(2, 3));
    assertArrayEquals(
        new byte[] {1}, new BitMask(2, 2, new byte[] {1, 0, 1, 0}).resizeArea(1, 1).data());
    assertArrayEquals(
        new byte[] {0}, new BitMask(2, 2, new byte[] {1, 0, 0, 0}).resizeArea(1, 1).data());
    assertArrayEquals(
        new byte[] {1, 0}, new BitMask(1, 3, new byte[] {1, 0, 0}).resizeArea(1, 2).data());
    BitMask union =
        BitMask.union(
            1,
            3,
            List.of(
                new BitMask(1, 3, new byte[] {1, 0, 0}), new BitMask(1, 3, new byte[] {1, 0, 1})));
    assertArrayEquals(new byte[] {1, 0, 1}, union.data());
    byte[] out = new byte[5];
    mask.resizeInto(out, 1, 2, 2, new Box(1, 0, 2, 2), true);
    assertArrayEquals(new byte[] {0, 0, 1, 1, 1}, out);
  }
}
