package org.deixis.data;

import static org.bytedeco.opencv.global.opencv_core.CV_8UC1;
import static org.bytedeco.opencv.global.opencv_core.CV_8UC3;
import static org.bytedeco.opencv.global.opencv_imgcodecs.IMREAD_COLOR_RGB;
import static org.bytedeco.opencv.global.opencv_imgcodecs.IMREAD_IGNORE_ORIENTATION;
import static org.bytedeco.opencv.global.opencv_imgcodecs.imdecode;
import static org.bytedeco.opencv.global.opencv_imgcodecs.imencode;
import static org.bytedeco.opencv.global.opencv_imgproc.COLOR_RGB2BGR;
import static org.bytedeco.opencv.global.opencv_imgproc.INTER_AREA;
import static org.bytedeco.opencv.global.opencv_imgproc.INTER_LINEAR;
import static org.bytedeco.opencv.global.opencv_imgproc.cvtColor;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.opencv.global.opencv_core;
import org.bytedeco.opencv.global.opencv_imgproc;
import org.bytedeco.opencv.opencv_core.Mat;
import org.bytedeco.opencv.opencv_core.Rect;
import org.bytedeco.opencv.opencv_core.Size;
import org.deixis.core.Env;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/** Reading, writing and resizing pictures, by OpenCV. All methods may be called from any thread. */
public final class Images {
  private static final long MAX_FILE = 1L << 29;

  /** OpenCV, loaded when a picture is first decoded, encoded or changed in size. */
  private static final class Library {
    static {
      // The loader works on several pictures at once; threads inside OpenCV would only compete.
      opencv_core.setNumThreads(1);
    }

    static void load() {}
  }

  private Images() {}

  /**
   * Pictures of more pixels are refused before they are decoded: 100 million, or {@code
   * DEIXIS_MAX_MEGAPIXELS}.
   */
  public static long maxPixels() {
    return Math.min(700, Env.getInt("MAX_MEGAPIXELS", 100, 1)) * 1_000_000L;
  }

  /**
   * Reads a JPEG or PNG file as stored, leaving its EXIF orientation alone: annotations refer to
   * the stored pixels. Grey becomes RGB, transparency is dropped, 16 bits become 8.
   *
   * @throws InputException when the file is missing, of another format, cut off, damaged or larger
   *     than {@link #maxPixels}
   */
  public static RgbImage read(Path file) {
    return decode(bytes(file), file.toString(), false);
  }

  /** Like {@link #read}, but turned upright as the EXIF orientation says: for people's photos. */
  public static RgbImage readUpright(Path file) {
    return decode(bytes(file), file.toString(), true);
  }

  /**
   * Decodes a JPEG or PNG in memory.
   *
   * @param name stands in messages
   * @param upright whether to apply the EXIF orientation
   */
  public static RgbImage decode(byte[] file, String name, boolean upright) {
    ImageHeader header;
    try {
      header = ImageHeader.read(new ByteArrayInputStream(file), name);
    } catch (IOException e) {
      throw new InputException(name + ": cannot be read: " + Reason.of(e), e);
    }
    ImageHeader.requireWhole(file, name);
    int flags = upright ? IMREAD_COLOR_RGB : IMREAD_COLOR_RGB | IMREAD_IGNORE_ORIENTATION;
    Library.load();
    try (BytePointer bytes = new BytePointer(file);
        Mat buffer = new Mat(1, file.length, CV_8UC1, bytes);
        Mat mat = imdecode(buffer, flags)) {
      boolean asSaid = mat.rows() == header.height() && mat.cols() == header.width();
      boolean turned = upright && mat.rows() == header.width() && mat.cols() == header.height();
      if (mat.empty() || mat.type() != CV_8UC3 || !(asSaid || turned)) {
        throw new InputException(
            name + ": " + header.format() + " does not decode; the picture is damaged");
      }
      return toImage(mat);
    } catch (RuntimeException e) {
      if (e instanceof InputException) {
        throw e;
      }
      throw new InputException(
          name + ": " + header.format() + " does not decode: " + Reason.oneLine(e.getMessage()), e);
    }
  }

  /** Height and width from the file's header: {@code {height, width}}. */
  public static int[] size(Path file) {
    ImageHeader header = ImageHeader.read(file);
    return new int[] {header.height(), header.width()};
  }

  /**
   * Checks that the file is a whole picture of bearable size, without decoding it.
   *
   * @throws InputException when it is missing, cut off, too large or no JPEG or PNG
   */
  public static void check(Path file) {
    verify(file);
  }

  /** {@link #check}, and what the header says. */
  static ImageHeader verify(Path file) {
    ImageHeader header = ImageHeader.read(file);
    ImageHeader.requireWhole(bytes(file), file.toString());
    return header;
  }

  /**
   * Resizes, without keeping the aspect: by area where both sides shrink, else bilinearly (pixel
   * centres, edges repeated).
   */
  public static RgbImage resize(RgbImage image, int height, int width) {
    if (image.height() == height && image.width() == width) {
      return image;
    }
    byte[] out = new byte[Math.multiplyExact(3, Math.multiplyExact(height, width))];
    resizeInto(image, Box.whole(image.height(), image.width()), height, width, out, 0);
    return new RgbImage(height, width, out);
  }

  /** Resizes the part inside {@code box} and writes it at {@code out[offset...]}. */
  static void resizeInto(RgbImage image, Box box, int height, int width, byte[] out, int offset) {
    box.requireWithin(image.height(), image.width());
    boolean whole = box.width() == image.width() && box.height() == image.height();
    if (whole && image.height() == height && image.width() == width) {
      System.arraycopy(image.data(), 0, out, offset, image.data().length);
      return;
    }
    Library.load();
    try (BytePointer pixels = new BytePointer(image.data());
        Mat mat = new Mat(image.height(), image.width(), CV_8UC3, pixels);
        Rect rect = new Rect(box.x(), box.y(), box.width(), box.height());
        Mat part = new Mat(mat, rect);
        Mat resized = new Mat(height, width, CV_8UC3);
        Size size = new Size(width, height);
        BytePointer result = resized.data()) {
      boolean shrinks = height <= box.height() && width <= box.width();
      opencv_imgproc.resize(part, resized, size, 0, 0, shrinks ? INTER_AREA : INTER_LINEAR);
      result.get(out, offset, 3 * height * width);
    }
  }

  /** The bytes of a PNG file of the picture; the same picture gives the same bytes. */
  public static byte[] encodePng(RgbImage image) {
    Library.load();
    try (BytePointer pixels = new BytePointer(image.data());
        Mat rgb = new Mat(image.height(), image.width(), CV_8UC3, pixels)) {
      return encode(".png", rgb, true);
    }
  }

  /** The bytes of a JPEG file of the picture, of OpenCV's default quality of 95. */
  public static byte[] encodeJpeg(RgbImage image) {
    Library.load();
    try (BytePointer pixels = new BytePointer(image.data());
        Mat rgb = new Mat(image.height(), image.width(), CV_8UC3, pixels)) {
      return encode(".jpg", rgb, true);
    }
  }

  /** The bytes of a PNG file of one grey channel: 0 where the mask is 0, 255 where it is 1. */
  public static byte[] encodePng(BitMask mask) {
    byte[] grey = new byte[mask.data().length];
    for (int i = 0; i < grey.length; i++) {
      grey[i] = (byte) -mask.data()[i];
    }
    Library.load();
    try (BytePointer pixels = new BytePointer(grey);
        Mat mat = new Mat(mask.height(), mask.width(), CV_8UC1, pixels)) {
      return encode(".png", mat, false);
    }
  }

  private static byte[] encode(String extension, Mat mat, boolean colour) {
    try (Mat bgr = new Mat();
        BytePointer file = new BytePointer()) {
      if (colour) {
        cvtColor(mat, bgr, COLOR_RGB2BGR);
      }
      if (!imencode(extension, colour ? bgr : mat, file)) {
        throw new IllegalStateException("OpenCV could not encode a " + extension);
      }
      byte[] bytes = new byte[(int) file.limit()];
      file.get(bytes);
      return bytes;
    }
  }

  private static RgbImage toImage(Mat mat) {
    byte[] data = new byte[Math.multiplyExact(3, Math.multiplyExact(mat.rows(), mat.cols()))];
    if (!mat.isContinuous()) {
      throw new IllegalStateException("OpenCV gave a picture with gaps between its rows");
    }
    try (BytePointer pixels = mat.data()) {
      pixels.get(data);
    }
    return new RgbImage(mat.rows(), mat.cols(), data);
  }

  static byte[] bytes(Path file) {
    try {
      long size = Files.size(file);
      if (size > MAX_FILE) {
        throw new InputException(
            "%s: picture file of %d bytes is over the limit of %d".formatted(file, size, MAX_FILE));
      }
      if (size == 0) {
        throw new InputException(file + ": picture file is empty; copy it again");
      }
      return Files.readAllBytes(file);
    } catch (NoSuchFileException e) {
      throw new InputException(file + ": no such picture; check the data folder", e);
    } catch (IOException e) {
      throw new InputException(file + ": cannot be read: " + Reason.of(e), e);
    }
  }
}
