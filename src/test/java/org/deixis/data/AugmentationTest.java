package org.deixis.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.deixis.core.InputException;
import org.deixis.core.Rng;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class AugmentationTest {
  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "the man on the left | the man on the right",
        "left cup and right cup | right cup and left cup",
        "Leftmost dog, RIGHT cat | Rightmost dog, LEFT cat",
        "left-most left-hand lefthand leftward | right-most right-hand righthand rightward",
        "the upper-right plate | the upper-left plate",
        "the cup right of the left plate | the cup left of the right plate",
        "man right behind the car | man right behind the car",
        "man on the right behind the car | man on the left behind the car",
        "the one right next to the lamp | the one right next to the lamp",
        "far right by the door | far left by the door",
        "bright light, rights, leftover | bright light, rights, leftover",
        "the left over pizza | the left over pizza",
        "everything | everything",
        "his left arm's right | his right arm's left",
      })
  void leftAndRightChangePlaces(String phrase, String flipped) {
    assertEquals(flipped, PhraseFlip.flip(phrase));
    assertEquals(phrase, PhraseFlip.flip(flipped));
  }

  @Test
  void theCropKeepsTheTarget() {
    AugmentConfig config = new AugmentConfig(0.5, 0, 0, 0, 0, 1, 0.3);
    Rng cases = new Rng(5);
    boolean smaller = false;
    boolean flipped = false;
    for (int i = 0; i < 2000; i++) {
      int h = cases.nextInt(1, 60);
      int w = cases.nextInt(1, 60);
      int x = cases.nextInt(w);
      int y = cases.nextInt(h);
      Box keep = new Box(x, y, cases.nextInt(1, w - x + 1), cases.nextInt(1, h - y + 1));
      Augmentation a = Augmentation.draw(config, h, w, i % 5 == 0 ? null : keep, new Rng(9, i));
      a.crop().requireWithin(h, w);
      if (i % 5 != 0) {
        assertTrue(a.crop().contains(keep), a + " lacks " + keep);
      }
      smaller |= a.crop().width() < w && a.crop().height() < h;
      flipped |= a.flip();
      assertEquals(a, Augmentation.draw(config, h, w, i % 5 == 0 ? null : keep, new Rng(9, i)));
    }
    assertTrue(smaller && flipped);
  }

  @Test
  void noneChangesNothing() {
    RgbImage image = ImagesTest.noise(7, 9, 3);
    Augmentation a = Augmentation.draw(AugmentConfig.none(), 7, 9, null, new Rng(1));
    byte[] data = image.data().clone();
    a.apply(data, 0, 7, 9);
    assertArrayEquals(image.data(), data);
    assertEquals(Box.whole(7, 9), a.crop());
  }

  @Test
  void jitterScalesColoursAsSaid() {
    byte[] grey = {100, 100, 100, 50, 50, 50};
    new Augmentation(false, null, 1.2, 1, 1, 0).apply(grey, 0, 1, 2);
    assertNear(new int[] {120, 120, 120, 60, 60, 60}, grey);
    byte[] contrast = {100, 100, 100, 50, 50, 50};
    new Augmentation(false, null, 1, 0.5, 1, 0).apply(contrast, 0, 1, 2);
    assertNear(new int[] {87, 87, 87, 62, 62, 62}, contrast);
    byte[] faded = {(byte) 200, 50, 50};
    new Augmentation(false, null, 1, 1, 0, 0).apply(faded, 0, 1, 1);
    int luma = (int) Math.round(0.299 * 200 + 0.701 * 50);
    assertNear(new int[] {luma, luma, luma}, faded);
    byte[] turned = {(byte) 160, 100, 100};
    new Augmentation(false, null, 1, 1, 1, 0.5).apply(turned, 0, 1, 1);
    assertTrue((turned[0] & 0xff) < (turned[1] & 0xff), "half a turn makes red cyan");
    byte[] mirrored = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    new Augmentation(true, null, 1, 1, 1, 0).apply(mirrored, 0, 1, 3);
    assertArrayEquals(new byte[] {7, 8, 9, 4, 5, 6, 1, 2, 3}, mirrored);
    RgbImage image = ImagesTest.noise(5, 4, 8);
    byte[] flip = image.data().clone();
    new Augmentation(true, null, 1, 1, 1, 0).apply(flip, 0, 5, 4);
    assertEquals(image.flipHorizontally(), new RgbImage(5, 4, flip));
    assertNotEquals(image, image.flipHorizontally());
  }

  private static void assertNear(int[] expected, byte[] actual) {
    for (int i = 0; i < expected.length; i++) {
      assertEquals(expected[i], actual[i] & 0xff, 1.0);
    }
  }

  @Test
  void configurationsOutOfRangeAreRefused() {
    assertThrows(InputException.class, () -> new AugmentConfig(1.5, 0, 0, 0, 0, 0, 1));
    assertThrows(InputException.class, () -> new AugmentConfig(0, 0, 0, 0, 0, 0, 0));
    assertThrows(InputException.class, () -> new AugmentConfig(Double.NaN, 0, 0, 0, 0, 0, 1));
  }
}
