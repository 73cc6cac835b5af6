package org.deixis.data;

import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.zip.CRC32;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/**
 * What a JPEG or PNG file says of itself, read without decoding it, so that a file from a stranger
 * can be refused before anything large is allocated. Formats: ITU-T T.81 annex B; PNG (ISO/IEC
 * 15948) chapter 5.
 *
 * @param format {@code "JPEG"} or {@code "PNG"}
 */
record ImageHeader(String format, int height, int width) {
  private static final int PNG_SIGNATURE = 0x89504e47;

  /** Reads the beginning of the file. */
  static ImageHeader read(Path file) {
    try (InputStream in = new java.io.BufferedInputStream(Files.newInputStream(file), 1 << 12)) {
      return read(in, file.toString());
    } catch (NoSuchFileException e) {
      throw new InputException(file + ": no such picture; check the data folder", e);
    } catch (IOException e) {
      throw new InputException(file + ": cannot be read: " + Reason.of(e), e);
    }
  }

  /**
   * @param name stands in messages
   */
  static ImageHeader read(InputStream in, String name) throws IOException {
    ImageHeader header;
    try {
      int first = u16(in);
      if (first == 0xffd8) {
        header = jpeg(in, name);
      } else if (first == PNG_SIGNATURE >>> 16 && u16(in) == (PNG_SIGNATURE & 0xffff)) {
        skip(in, 12);
        int width = (int) u32(in);
        header = new ImageHeader("PNG", (int) u32(in), width);
      } else {
        throw new InputException(name + ": not a JPEG or PNG picture; convert it to one of them");
      }
    } catch (EOFException e) {
      throw new InputException(name + ": picture is cut off in its header; copy it again", e);
    }
    if (header.height < 1 || header.width < 1) {
      throw new InputException(
          "%s: header says %dx%d pixels; the picture is damaged"
              .formatted(name, header.width, header.height));
    }
    if ((long) header.height * header.width > Images.maxPixels()) {
      throw new InputException(
          "%s: picture of %dx%d pixels is over the limit of %d megapixels; shrink it, or raise"
                  .formatted(name, header.width, header.height, Images.maxPixels() / 1_000_000)
              + " DEIXIS_MAX_MEGAPIXELS");
    }
    return header;
  }

  private static ImageHeader jpeg(InputStream in, String name) throws IOException {
    while (true) {
      int marker = marker(in, name);
      int length = u16(in);
      if (isFrame(marker)) {
        skip(in, 1);
        int height = u16(in);
        return new ImageHeader("JPEG", height, u16(in));
      }
      if (marker == 0xda || length < 2) {
        throw new InputException(name + ": JPEG without a frame header; the picture is damaged");
      }
      skip(in, length - 2);
    }
  }

  private static int marker(InputStream in, String name) throws IOException {
    if (u8(in) != 0xff) {
      throw new InputException(name + ": JPEG with a broken segment; the picture is damaged");
    }
    int marker = u8(in);
    while (marker == 0xff) {
      marker = u8(in);
    }
    return marker;
  }

  /** SOF0..SOF15, of which C4, C8 and CC are other things. */
  private static boolean isFrame(int marker) {
    return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
  }

  /**
   * Whether the file is whole: a JPEG must reach its end-of-image marker segment by segment (a
   * thumbnail's marker inside a segment does not count), a PNG its IEND with every checksum right.
   * Decoders only warn of a missing end and fill the rest with grey.
   *
   * @throws InputException naming the damage
   */
  static void requireWhole(byte[] file, String name) {
    boolean whole;
    if ((file[0] & 0xff) == 0xff) {
      whole = jpegReachesEnd(file, name);
    } else {
      whole = pngReachesEnd(file, name);
    }
    if (!whole) {
      throw new InputException(name + ": picture is cut off before its end; copy it again");
    }
  }

  private static boolean jpegReachesEnd(byte[] d, String name) {
    int p = 2;
    while (p + 1 < d.length) {
      if ((d[p] & 0xff) != 0xff) {
        throw new InputException(name + ": JPEG with a broken segment; the picture is damaged");
      }
      int marker = d[p + 1] & 0xff;
      if (marker == 0xff) {
        p++;
      } else if (marker == 0xd9) {
        return true;
      } else if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd7)) {
        p += 2;
      } else {
        if (p + 3 >= d.length) {
          return false;
        }
        p += 2 + ((d[p + 2] & 0xff) << 8 | d[p + 3] & 0xff);
        if (marker == 0xda) {
          p = endOfScan(d, p);
        }
      }
    }
    return false;
  }

  /** Skips entropy-coded data: up to a marker that is neither a stuffed byte nor a restart. */
  private static int endOfScan(byte[] d, int p) {
    for (; p + 1 < d.length; p++) {
      if (d[p] == (byte) 0xff) {
        int next = d[p + 1] & 0xff;
        if (next != 0 && next != 0xff && !(next >= 0xd0 && next <= 0xd7)) {
          return p;
        }
      }
    }
    return d.length;
  }

  private static boolean pngReachesEnd(byte[] d, String name) {
    int p = 8;
    CRC32 crc = new CRC32();
    while (p + 12L <= d.length) {
      long length = beU32(d, p);
      if (p + 12 + length > d.length) {
        return false;
      }
      crc.reset();
      crc.update(d, p + 4, (int) length + 4);
      String type = new String(d, p + 4, 4, StandardCharsets.ISO_8859_1);
      if (crc.getValue() != beU32(d, p + 8 + (int) length)) {
        throw new InputException(
            name + ": PNG with a wrong checksum in chunk " + type + "; copy it again");
      }
      if (type.equals("IEND")) {
        return true;
      }
      p += 12 + (int) length;
    }
    return false;
  }

  private static long beU32(byte[] d, int p) {
    return (d[p] & 0xffL) << 24
        | (d[p + 1] & 0xff) << 16
        | (d[p + 2] & 0xff) << 8
        | d[p + 3] & 0xff;
  }

  private static int u8(InputStream in) throws IOException {
    int b = in.read();
    if (b < 0) {
      throw new EOFException();
    }
    return b;
  }

  private static int u16(InputStream in) throws IOException {
    return u8(in) << 8 | u8(in);
  }

  private static long u32(InputStream in) throws IOException {
    return (long) u16(in) << 16 | u16(in);
  }

  private static void skip(InputStream in, int n) throws IOException {
    in.skipNBytes(n);
  }
}
