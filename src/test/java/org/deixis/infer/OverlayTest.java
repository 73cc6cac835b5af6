package org.deixis.infer;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.Arrays;
import org.deixis.data.BitMask;
import org.deixis.data.RgbImage;
import org.junit.jupiter.api.Test;

class OverlayTest {
  /** 6×7, all pixels (100, 200, 50). */
  private static RgbImage plain() {
    byte[] rgb = new byte[6 * 7 * 3];
    for (int i = 0; i < rgb.length; i += 3) {
      rgb[i] = 100;
      rgb[i + 1] = (byte) 200;
      rgb[i + 2] = 50;
    }
    return new RgbImage(6, 7, rgb);
  }

  /** Rows 1 to 3 and columns 2 to 4: one pixel inside, (2, 3), eight at the edge. */
  private static BitMask square() {
    byte[] mask = new byte[42];
    for (int y = 1; y <= 3; y++) {
      Arrays.fill(mask, y * 7 + 2, y * 7 + 5, (byte) 1);
    }
    return new BitMask(6, 7, mask);
  }

  private static int[] pixel(RgbImage image, int y, int x) {
    int at = (y * image.width() + x) * 3;
    return new int[] {
      image.data()[at] & 0xff, image.data()[at + 1] & 0xff, image.data()[at + 2] & 0xff
    };
  }

  @Test
  void theMaskIsTintedItsEdgeDrawnAndTheRestUntouched() {
    RgbImage drawn = Overlay.draw(plain(), square());
    assertEquals(6, drawn.height());
    assertEquals(7, drawn.width());
    for (int y = 0; y < 6; y++) {
      for (int x = 0; x < 7; x++) {
        boolean in = y >= 1 && y <= 3 && x >= 2 && x <= 4;
        int[] expected = {100, 200, 50};
        if (y == 2 && x == 3) {
          expected = new int[] {170, 124, 92}; // 55 % of the picture, 45 % of (255, 32, 144)
        } else if (in) {
          expected = new int[] {255, 32, 144};
        }
        assertArrayEquals(expected, pixel(drawn, y, x), "(" + y + ", " + x + ")");
      }
    }
  }

  @Test
  void anOutlineLeavesTheInside() {
    RgbImage drawn = Overlay.outline(plain(), square(), 1, 2, 3);
    assertArrayEquals(new int[] {100, 200, 50}, pixel(drawn, 2, 3));
    assertArrayEquals(new int[] {1, 2, 3}, pixel(drawn, 1, 2));
    assertArrayEquals(new int[] {100, 200, 50}, pixel(drawn, 0, 2));
  }

  @Test
  void nothingIsDrawnForNothingAndNoEdgeAtTheBorder() {
    assertArrayEquals(plain().data(), Overlay.draw(plain(), BitMask.empty(6, 7)).data());
    byte[] all = new byte[42];
    Arrays.fill(all, (byte) 1);
    assertArrayEquals(
        new int[] {170, 124, 92}, pixel(Overlay.draw(plain(), new BitMask(6, 7, all)), 0, 0));
  }
}
