package org.deixis.data;

import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/**
 * A mask in a {@code .npy} file: two dimensions (height, width) of bool, integers (not 0 = covered)
 * or floats (over 0.5 = covered), little-endian. Format: numpy/lib/format.py, versions 1 to 3.
 */
final class NpyMask {
  private static final Pattern DESCR = Pattern.compile("'descr'\\s*:\\s*'([^']*)'");
  private static final Pattern FORTRAN = Pattern.compile("'fortran_order'\\s*:\\s*(True|False)");
  private static final Pattern SHAPE = Pattern.compile("'shape'\\s*:\\s*\\(([^)]*)\\)");
  private static final int MAX_HEADER = 1 << 16;

  private record Header(String type, boolean columnMajor, int height, int width) {}

  private NpyMask() {}

  /** {@code {height, width}}, from the header alone. */
  static int[] size(Path file) {
    return open(
        file,
        in -> {
          Header header = header(in, file);
          return new int[] {header.height, header.width};
        });
  }

  static BitMask read(Path file) {
    return open(file, in -> read(in, file));
  }

  private interface Reader<T> {
    T read(DataInputStream in) throws IOException;
  }

  private static <T> T open(Path file, Reader<T> reader) {
    try (InputStream raw = Files.newInputStream(file);
        DataInputStream in = new DataInputStream(raw)) {
      return reader.read(in);
    } catch (NoSuchFileException e) {
      throw new InputException(file + ": no such mask; check the data folder", e);
    } catch (EOFException e) {
      throw new InputException(file + ": mask is cut off; copy it again", e);
    } catch (IOException e) {
      throw new InputException(file + ": cannot be read: " + Reason.of(e), e);
    }
  }

  private static Header header(DataInputStream in, Path file) throws IOException {
    byte[] magic = new byte[8];
    in.readFully(magic);
    if (magic[0] != (byte) 0x93
        || !"NUMPY".equals(new String(magic, 1, 5, StandardCharsets.US_ASCII))) {
      throw new InputException(file + ": not a .npy file");
    }
    byte[] lengthBytes = new byte[magic[6] == 1 ? 2 : 4];
    in.readFully(lengthBytes);
    long length = 0;
    for (int i = lengthBytes.length - 1; i >= 0; i--) {
      length = length << 8 | lengthBytes[i] & 0xff;
    }
    if (length > MAX_HEADER) {
      throw new InputException(file + ": .npy header of " + length + " bytes; the file is damaged");
    }
    byte[] text = new byte[(int) length];
    in.readFully(text);
    String header = new String(text, StandardCharsets.ISO_8859_1);
    Matcher descr = DESCR.matcher(header);
    Matcher fortran = FORTRAN.matcher(header);
    Matcher shape = SHAPE.matcher(header);
    if (!descr.find() || !fortran.find() || !shape.find()) {
      throw new InputException(file + ": .npy header lacks descr, fortran_order or shape");
    }
    String[] dims = shape.group(1).split(",");
    int height;
    int width;
    try {
      if (dims.length != 2) {
        throw new NumberFormatException();
      }
      height = Integer.parseInt(dims[0].strip());
      width = Integer.parseInt(dims[1].strip());
    } catch (NumberFormatException e) {
      throw new InputException(
          "%s: mask has the shape (%s); (height, width) is needed".formatted(file, shape.group(1)),
          e);
    }
    if (height < 1 || width < 1 || (long) height * width > Images.maxPixels()) {
      throw new InputException(
          "%s: mask of %dx%d is empty or over the limit of %d pixels"
              .formatted(file, width, height, Images.maxPixels()));
    }
    return new Header(descr.group(1), fortran.group(1).equals("True"), height, width);
  }

  private static BitMask read(DataInputStream in, Path file) throws IOException {
    Header h = header(in, file);
    int size =
        switch (h.type) {
          case "|b1", "|u1", "|i1" -> 1;
          case "<f4", "<i4", "<u4" -> 4;
          case "<f8", "<i8", "<u8" -> 8;
          default ->
              throw new InputException(
                  "%s: mask of type '%s'; bool, uint8, int or float is needed"
                      .formatted(file, h.type));
        };
    byte[] out = new byte[h.height * h.width];
    // Row by row, so that a float64 mask needs no eightfold buffer.
    int rows = h.columnMajor ? h.width : h.height;
    int columns = h.columnMajor ? h.height : h.width;
    byte[] row = new byte[Math.multiplyExact(columns, size)];
    ByteBuffer values = ByteBuffer.wrap(row).order(ByteOrder.LITTLE_ENDIAN);
    for (int r = 0; r < rows; r++) {
      in.readFully(row);
      for (int c = 0; c < columns; c++) {
        boolean covered =
            switch (h.type.substring(1)) {
              case "f4" -> values.getFloat(4 * c) > 0.5f;
              case "f8" -> values.getDouble(8 * c) > 0.5;
              case "i4", "u4" -> values.getInt(4 * c) != 0;
              case "i8", "u8" -> values.getLong(8 * c) != 0;
              default -> row[c] != 0;
            };
        out[h.columnMajor ? c * h.width + r : r * h.width + c] = (byte) (covered ? 1 : 0);
      }
    }
    return new BitMask(h.height, h.width, out);
  }
}
