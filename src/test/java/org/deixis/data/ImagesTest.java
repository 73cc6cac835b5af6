package org.deixis.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.awt.image.BufferedImage;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import javax.imageio.ImageIO;
import org.deixis.core.InputException;
import org.deixis.core.Rng;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ImagesTest {
  @TempDir Path dir;

  static RgbImage noise(int height, int width, long seed) {
    Rng rng = new Rng(seed);
    byte[] data = new byte[3 * height * width];
    for (int i = 0; i < data.length; i++) {
      data[i] = (byte) rng.nextInt(256);
    }
    return new RgbImage(height, width, data);
  }

  /** What the JDK's own reader sees. */
  private static RgbImage byJdk(byte[] file) throws Exception {
    BufferedImage image = ImageIO.read(new ByteArrayInputStream(file));
    byte[] data = new byte[3 * image.getHeight() * image.getWidth()];
    for (int i = 0, y = 0; y < image.getHeight(); y++) {
      for (int x = 0; x < image.getWidth(); x++) {
        int rgb = image.getRGB(x, y);
        data[i++] = (byte) (rgb >> 16);
        data[i++] = (byte) (rgb >> 8);
        data[i++] = (byte) rgb;
      }
    }
    return new RgbImage(image.getHeight(), image.getWidth(), data);
  }

  private static byte[] grey(String format, int height, int width) throws Exception {
    BufferedImage image = new BufferedImage(width, height, BufferedImage.TYPE_BYTE_GRAY);
    image.getRaster().setSample(0, 0, 0, 200);
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    ImageIO.write(image, format, out);
    return out.toByteArray();
  }

  @Test
  void pngAgreesWithAnotherReaderAndWriter() throws Exception {
    RgbImage image = noise(13, 17, 1);
    byte[] png = Images.encodePng(image);
    assertEquals(image, byJdk(png));
    Path file = dir.resolve("a.png");
    Files.write(file, png);
    assertEquals(image, Images.read(file));
    assertArrayEquals(new int[] {13, 17}, Images.size(file));
    RgbImage one = Images.decode(grey("png", 1, 1), "one", false);
    assertEquals(3, one.data().length);
    assertEquals((byte) 200, one.data()[0]);
  }

  @Test
  void jpegAgreesWithAnotherReader() throws Exception {
    RgbImage smooth = Images.resize(noise(4, 5, 2), 40, 56);
    byte[] jpeg = Images.encodeJpeg(smooth);
    byte[] ours = Images.decode(jpeg, "x", false).data();
    byte[] theirs = byJdk(jpeg).data();
    for (int i = 0; i < ours.length; i++) {
      assertEquals(theirs[i] & 0xff, ours[i] & 0xff, 12);
    }
  }

  @Test
  void aPictureCutAnywhereIsRefused() {
    RgbImage image = noise(40, 50, 3);
    for (byte[] file : new byte[][] {Images.encodeJpeg(image), Images.encodePng(image)}) {
      Images.decode(file, "whole", false);
      for (int length = 1; length < file.length - 1; length += 37) {
        byte[] cut = Arrays.copyOf(file, length);
        InputException e =
            assertThrows(InputException.class, () -> Images.decode(cut, "cut.jpg", false));
        assertTrue(e.getMessage().startsWith("cut.jpg: "), e.getMessage());
        assertTrue(e.getMessage().contains("cut off") || length < 10, e.getMessage());
      }
    }
  }

  @Test
  void theEndMarkerOfAThumbnailDoesNotHideATruncation() {
    byte[] jpeg = Images.encodeJpeg(noise(40, 50, 4));
    byte[] thumbnail = Images.encodeJpeg(noise(8, 8, 5));
    byte[] withThumbnail = new byte[jpeg.length + thumbnail.length + 4];
    System.arraycopy(jpeg, 0, withThumbnail, 0, 2);
    withThumbnail[2] = (byte) 0xff;
    withThumbnail[3] = (byte) 0xe9;
    withThumbnail[4] = (byte) (thumbnail.length + 2 >> 8);
    withThumbnail[5] = (byte) (thumbnail.length + 2);
    System.arraycopy(thumbnail, 0, withThumbnail, 6, thumbnail.length);
    System.arraycopy(jpeg, 2, withThumbnail, 6 + thumbnail.length, jpeg.length - 2);
    assertEquals(40, Images.decode(withThumbnail, "t", false).height());
    byte[] cut = Arrays.copyOf(withThumbnail, withThumbnail.length - 200);
    assertThrows(InputException.class, () -> Images.decode(cut, "t", false));
    // What some cameras write after the end does no harm.
    Images.decode(Arrays.copyOf(jpeg, jpeg.length + 100), "trailing", false);
  }

  @Test
  void orientationIsAppliedOnlyWhereAsked() throws Exception {
    byte[] jpeg = Images.encodeJpeg(Images.resize(noise(2, 3, 11), 40, 64));
    // Orientation 6: the stored rows are the columns from the right.
    byte[] exif = {
      (byte) 0xff,
      (byte) 0xe1,
      0,
      34,
      'E',
      'x',
      'i',
      'f',
      0,
      0,
      'I',
      'I',
      42,
      0,
      8,
      0,
      0,
      0,
      1,
      0,
      0x12,
      1,
      3,
      0,
      1,
      0,
      0,
      0,
      6,
      0,
      0,
      0,
      0,
      0,
      0,
      0
    };
    byte[] turned = new byte[jpeg.length + exif.length];
    System.arraycopy(jpeg, 0, turned, 0, 2);
    System.arraycopy(exif, 0, turned, 2, exif.length);
    System.arraycopy(jpeg, 2, turned, 2 + exif.length, jpeg.length - 2);
    Path file = dir.resolve("turned.jpg");
    Files.write(file, turned);
    RgbImage stored = Images.read(file);
    assertEquals(Images.decode(jpeg, "plain", false), stored);
    RgbImage upright = Images.readUpright(file);
    assertEquals(64, upright.height());
    assertEquals(40, upright.width());
    for (int y = 0; y < 64; y++) {
      for (int x = 0; x < 40; x++) {
        assertEquals(at(stored, 39 - x, y, 1), at(upright, y, x, 1));
      }
    }
  }

  @Test
  void aDamagedPngIsRefused() {
    byte[] png = Images.encodePng(noise(20, 20, 6));
    png[png.length / 2] ^= 1;
    assertThrows(InputException.class, () -> Images.decode(png, "p", false));
  }

  @Test
  void hugePicturesAreRefusedByTheirHeader() throws Exception {
    byte[] jpeg = grey("jpg", 8, 8);
    byte[] png = grey("png", 8, 8);
    for (int i = 0; i + 8 < jpeg.length; i++) {
      if ((jpeg[i] & 0xff) == 0xff && (jpeg[i + 1] & 0xff) == 0xc0) {
        jpeg[i + 5] = (byte) (9000 >> 8);
        jpeg[i + 6] = (byte) 9000;
        jpeg[i + 7] = (byte) (12000 >> 8);
        jpeg[i + 8] = (byte) 12000;
      }
    }
    png[18] = (byte) (12000 >> 8);
    png[19] = (byte) 12000;
    png[22] = (byte) (9000 >> 8);
    png[23] = (byte) 9000;
    for (byte[] file : new byte[][] {jpeg, png}) {
      Path path = dir.resolve("huge");
      Files.write(path, file);
      InputException e = assertThrows(InputException.class, () -> Images.read(path));
      assertTrue(e.getMessage().contains("12000x9000"), e.getMessage());
      assertTrue(e.getMessage().contains("100 megapixels"), e.getMessage());
    }
    png[16] = (byte) 0xff;
    assertThrows(InputException.class, () -> Images.decode(png, "negative", false));
  }

  @Test
  void largePicturesUnderTheLimitWork() throws Exception {
    RgbImage large = Images.decode(grey("png", 5000, 6000), "large", false);
    assertEquals(5000, large.height());
    assertEquals(6000, large.width());
    assertEquals(96, Images.resize(large, 96, 96).width());
  }

  @Test
  void missingEmptyAndForeignFilesAreRefused() throws Exception {
    assertThrows(InputException.class, () -> Images.read(dir.resolve("missing.jpg")));
    assertThrows(InputException.class, () -> Images.read(dir));
    Path empty = Files.createFile(dir.resolve("empty.jpg"));
    assertThrows(InputException.class, () -> Images.read(empty));
    Path text = Files.writeString(dir.resolve("text.jpg"), "GIF89a, not really");
    assertThrows(InputException.class, () -> Images.read(text));
  }

  @Test
  void enlargingIsBilinearAndShrinkingAverages() {
    RgbImage image = noise(6, 9, 7);
    RgbImage big = Images.resize(image, 15, 20);
    for (int y = 0; y < 15; y++) {
      for (int x = 0; x < 20; x++) {
        double sy = Math.max(0, Math.min(5, (y + 0.5) * 6 / 15 - 0.5));
        double sx = Math.max(0, Math.min(8, (x + 0.5) * 9 / 20 - 0.5));
        int y0 = (int) sy;
        int x0 = (int) sx;
        int y1 = Math.min(5, y0 + 1);
        int x1 = Math.min(8, x0 + 1);
        for (int c = 0; c < 3; c++) {
          double top = at(image, y0, x0, c) * (x0 + 1 - sx) + at(image, y0, x1, c) * (sx - x0);
          double bottom = at(image, y1, x0, c) * (x0 + 1 - sx) + at(image, y1, x1, c) * (sx - x0);
          assertEquals(top * (y0 + 1 - sy) + bottom * (sy - y0), at(big, y, x, c), 1.01);
        }
      }
    }
    RgbImage half = Images.resize(noise(8, 6, 8), 4, 3);
    RgbImage full = noise(8, 6, 8);
    for (int y = 0; y < 4; y++) {
      for (int x = 0; x < 3; x++) {
        double mean =
            (at(full, 2 * y, 2 * x, 0)
                    + at(full, 2 * y, 2 * x + 1, 0)
                    + at(full, 2 * y + 1, 2 * x, 0)
                    + at(full, 2 * y + 1, 2 * x + 1, 0))
                / 4.0;
        assertEquals(mean, at(half, y, x, 0), 0.51);
      }
    }
    assertEquals(image, Images.resize(Images.resize(image, 6, 9), 6, 9));
    byte[] part = new byte[3 * 4 + 2];
    Images.resizeInto(image, new Box(3, 2, 2, 2), 2, 2, part, 2);
    assertEquals(at(image, 3, 4, 2), part[2 + 3 * 3 + 2] & 0xff);
  }

  private static int at(RgbImage image, int y, int x, int c) {
    return image.data()[3 * (y * image.width() + x) + c] & 0xff;
  }

  @Test
  void complexityIsZeroForPlainAndHighForNoise() {
    byte[] plain = new byte[3 * 40 * 40];
    Arrays.fill(plain, (byte) 77);
    assertEquals(0, Complexity.of(new RgbImage(40, 40, plain)));
    assertTrue(Complexity.of(noise(40, 40, 9)) > 0.95);
    // Two halves, black and white: one bit of six; two columns of edges in 38 of inner pixels.
    byte[] halves = new byte[3 * 40 * 40];
    for (int i = 0; i < 1600; i++) {
      Arrays.fill(halves, 3 * i, 3 * i + 3, (byte) (i % 40 < 20 ? 0 : 255));
    }
    assertEquals((1 / 6.0 + 2 * 2 / 38.0) / 2, Complexity.of(new RgbImage(40, 40, halves)), 1e-6);
    assertTrue(Complexity.of(noise(1, 1, 10)) == 0);
  }
}
