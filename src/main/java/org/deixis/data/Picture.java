package org.deixis.data;

import java.nio.file.Path;
import java.util.function.Supplier;
import org.deixis.core.InputException;

/**
 * One picture of a data set. Samples of the same picture share one instance, by which the loader
 * groups them.
 */
public final class Picture {
  private final Path path;
  private final long id;
  private final int height;
  private final int width;
  private final Supplier<RgbImage> source;

  /**
   * @param path the file, or for a picture in memory a name
   * @param id the annotation's image id
   * @param source decodes the picture; may be called from any thread, more than once
   */
  public Picture(Path path, long id, int height, int width, Supplier<RgbImage> source) {
    this.path = path;
    this.id = id;
    this.height = height;
    this.width = width;
    this.source = source;
  }

  /** A picture in a JPEG or PNG file, whose header must agree with {@code height x width}. */
  static Picture ofFile(Path path, long id, int height, int width) {
    return new Picture(path, id, height, width, () -> Images.read(path));
  }

  public Path path() {
    return path;
  }

  public long id() {
    return id;
  }

  public int height() {
    return height;
  }

  public int width() {
    return width;
  }

  /**
   * Decodes the picture.
   *
   * @throws InputException when it is damaged or of another size than the annotations say
   */
  public RgbImage read() {
    RgbImage image = source.get();
    if (image.height() != height || image.width() != width) {
      throw new InputException(
          "%s: picture is %dx%d, the annotations say %dx%d"
              .formatted(path, image.width(), image.height(), width, height));
    }
    return image;
  }

  @Override
  public String toString() {
    return path.toString();
  }
}
