package org.deixis.io;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.zip.CRC32;
import java.util.zip.DataFormatException;
import java.util.zip.Inflater;
import org.deixis.core.InputException;
import org.deixis.core.Shape;

/**
 * NumPy's {@code .npy}, versions 1 to 3 (numpy/lib/format.py), and {@code .npz}, a zip archive of
 * them. The masks' reader in {@code org.deixis.data} streams one picture and knows nothing of this
 * package; the two share no code, as data and io stand side by side.
 */
final class NpyReader {
  static final String NPY = "NumPy array";
  static final String NPZ = "NumPy archive";

  /** The name of a tensor whose file gives it none. */
  static final String ONLY = "array";

  private static final Pattern DESCR = Pattern.compile("'descr'\\s*:\\s*'([^']*)'");
  private static final Pattern FORTRAN = Pattern.compile("'fortran_order'\\s*:\\s*(True|False)");
  private static final Pattern DIMS = Pattern.compile("'shape'\\s*:\\s*\\(([0-9L, ]*)\\)");
  private static final int MAX_HEADER = 1 << 16;
  private static final String SUFFIX = ".npy";

  /** The best that DEFLATE can do; an entry that claims more lies about its size. */
  private static final long MAX_RATIO = 1032;

  /** All compressed entries together may be so many times the file when inflated, and this much. */
  private static final long MAX_GROWTH = 16;

  private static final long FREE_GROWTH = 64L << 20;

  private record Header(
      long length, StoredType type, boolean bigEndian, boolean columns, Shape shape) {}

  private NpyReader() {}

  /** Whether a file begins like {@code .npy}. */
  static boolean isNpy(byte[] start) {
    return start.length >= 6
        && start[0] == (byte) 0x93
        && new String(start, 1, 5, StandardCharsets.ISO_8859_1).equals("NUMPY");
  }

  /**
   * A single array, under the name {@link #ONLY}.
   *
   * @throws InputException when it is cut off, holds objects or text, or its header is false
   */
  static TensorFile npy(MappedFile file) {
    StoredTensor.Bytes all = StoredTensor.in(file, 0, file.size());
    return new TensorFile(file, Map.of(ONLY, tensor(file, Lines.tensor(ONLY), all)), Set.of());
  }

  /** Whether an archive holds arrays and nothing else. */
  static boolean isNpz(ZipIndex zip) {
    return !zip.entries().isEmpty()
        && zip.entries().keySet().stream().allMatch(n -> n.endsWith(SUFFIX));
  }

  /**
   * All arrays of an archive, by their names without {@code .npy}.
   *
   * @throws InputException when an entry is damaged, or all together inflate to more than the file
   *     justifies
   */
  static TensorFile npz(MappedFile file, ZipIndex zip) {
    Map<String, StoredTensor> tensors = new LinkedHashMap<>();
    long budget = FREE_GROWTH + MAX_GROWTH * file.size();
    for (ZipIndex.Entry entry : zip.entries().values()) {
      String name = entry.name().substring(0, entry.name().length() - SUFFIX.length());
      StoredTensor.Bytes bytes;
      if (entry.method() == ZipIndex.STORED) {
        bytes = StoredTensor.in(file, entry.offset(), entry.stored());
      } else if (entry.method() == ZipIndex.DEFLATED) {

        budget -= Math.min(entry.size(), Long.MAX_VALUE / 2);
        if (entry.size() / MAX_RATIO > entry.stored() || budget < 0) {
          throw file.refused(
              "%s claims to inflate from %d bytes to %d; no checkpoint does"
                  .formatted(Lines.tensor(name), entry.stored(), entry.size()));
        }
        bytes = new Deflated(file, entry);
      } else {
        throw file.refused(
            "%s is compressed by method %d; save it again with numpy.savez"
                .formatted(Lines.tensor(name), entry.method()));
      }
      tensors.put(name, tensor(file, Lines.tensor(name), bytes));
    }
    return new TensorFile(file, tensors, Set.of());
  }

  /** A compressed entry; inflated each time it is read, and only as far as is asked for. */
  private record Deflated(MappedFile file, ZipIndex.Entry entry) implements StoredTensor.Bytes {
    @Override
    public long length() {
      return entry.size();
    }

    @Override
    public ByteBuffer read(long from, long count) {
      long upTo = from + count;
      if (upTo > Integer.MAX_VALUE - 8) {
        throw file.refused(
            Lines.of(entry.name()) + " has " + upTo + " bytes; at most 2 GiB each are read");
      }
      byte[] out = new byte[(int) upTo];
      Inflater inflater = new Inflater(true);
      try {
        inflater.setInput(file.slice(entry.offset(), entry.stored()));
        int at = 0;
        while (at < out.length) {
          int n = inflater.inflate(out, at, out.length - at);
          if (n == 0
              && (inflater.finished() || inflater.needsInput() || inflater.needsDictionary())) {
            throw file.broken(Lines.of(entry.name()) + " inflates to " + at + " bytes only");
          }
          at += n;
        }
        if (upTo == entry.size()) {
          CRC32 crc = new CRC32();
          crc.update(out);
          if (crc.getValue() != entry.crc() || inflater.inflate(new byte[1]) != 0) {
            throw file.broken(Lines.of(entry.name()) + " differs from its size or checksum");
          }
        }
      } catch (DataFormatException e) {
        throw file.broken(Lines.of(entry.name()) + " cannot be inflated");
      } finally {
        inflater.end();
      }
      return ByteBuffer.wrap(out, (int) from, (int) count).slice().order(ByteOrder.LITTLE_ENDIAN);
    }
  }

  private static StoredTensor tensor(MappedFile file, String where, StoredTensor.Bytes bytes) {
    Header header = header(file, where, bytes);
    StoredTensor.Bytes values =
        new StoredTensor.Bytes() {
          @Override
          public long length() {
            return bytes.length() - header.length;
          }

          @Override
          public ByteBuffer read(long from, long count) {
            return bytes.read(header.length + from, count);
          }
        };
    return StoredTensor.whole(
        file, where, values, header.type, header.bigEndian, header.shape, header.columns);
  }

  private static Header header(MappedFile file, String where, StoredTensor.Bytes bytes) {
    if (bytes.length() < 12) {
      throw file.broken(where + " has " + bytes.length() + " bytes, too few for a header");
    }
    ByteBuffer start = bytes.read(0, 12);
    byte[] magic = new byte[8];
    start.get(magic);
    int version = magic[6];
    if (!isNpy(magic) || version < 1 || version > 3) {
      throw file.broken(where + " does not begin like a .npy file of version 1 to 3");
    }
    long length = version == 1 ? start.getShort() & 0xffff : start.getInt() & 0xffffffffL;
    int before = version == 1 ? 10 : 12;
    if (length > MAX_HEADER || length > bytes.length() - before) {
      throw file.broken(where + " claims a header of " + length + " bytes");
    }
    byte[] raw = new byte[(int) length];
    bytes.read(before, length).get(raw);
    String text = new String(raw, StandardCharsets.ISO_8859_1);
    Matcher descr = DESCR.matcher(text);
    Matcher fortran = FORTRAN.matcher(text);
    Matcher dims = DIMS.matcher(text);
    if (!fortran.find() || !dims.find()) {
      throw file.broken(where + " has a header without fortran_order or shape");
    }
    if (!descr.find()) {
      throw file.refused(where + " is an array of structures; only numbers are read");
    }
    String name = descr.group(1);
    boolean ordered = !name.isEmpty() && "<>|=".indexOf(name.charAt(0)) >= 0;
    StoredType type = ordered ? StoredType.ofNumpy(name.substring(1)) : null;
    if (type == null) {
      throw file.refused(
          "%s has the type '%s'; only numbers are read".formatted(where, Lines.of(name)));
    }
    Shape shape = StoredTensor.shape(file, where, extents(file, where, dims.group(1)));
    return new Header(
        before + length, type, name.charAt(0) == '>', fortran.group(1).equals("True"), shape);
  }

  private static long[] extents(MappedFile file, String where, String tuple) {
    String inner = tuple.strip().replaceFirst(",$", ""); // (3,)
    String[] parts = tuple.isBlank() ? new String[0] : inner.split(",", -1);
    long[] extents = new long[parts.length];
    for (int i = 0; i < parts.length; i++) {
      try {
        extents[i] = Long.parseLong(parts[i].strip().replace("L", "")); // Python 2 wrote 3L
      } catch (NumberFormatException e) {
        throw file.broken("%s has the shape (%s)".formatted(where, Lines.of(tuple)));
      }
    }
    return extents;
  }
}
