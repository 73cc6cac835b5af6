package org.deixis.io;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.core.InputException;
import org.deixis.core.Shape;

/**
 * What a pickle may hold besides text (String), numbers (Long, BigInteger, Double), Boolean and
 * {@link None}. Equality is identity throughout: a file can nest these deeply or in circles, and
 * nothing may walk them unawares.
 */
interface PickleValue {
  /** Python's None. */
  enum None implements PickleValue {
    NONE
  }

  /** A name the allow-list holds, "torch._utils._rebuild_tensor_v2". */
  final class Global implements PickleValue {
    private final String name;

    Global(String name) {
      this.name = name;
    }

    String name() {
      return name;
    }
  }

  /** A tuple. */
  final class Tuple implements PickleValue {
    private static final Object[] NOTHING = {};
    private final Object[] items;

    Tuple(Object... items) {
      this.items = items.length == 0 ? NOTHING : items;
    }

    int size() {
      return items.length;
    }

    List<Object> items() {
      return Arrays.asList(items);
    }

    /** The item, or None behind the last. */
    Object get(int i) {
      return i < items.length ? items[i] : None.NONE;
    }
  }

  /** A list, or a set: the order of a set is that of the file. */
  final class Sequence implements PickleValue {
    // Made at the first item: a file can ask for an empty list with every byte.
    private List<Object> items;

    void add(Object item) {
      if (items == null) {
        items = new ArrayList<>(4);
      }
      items.add(item);
    }

    List<Object> items() {
      return items == null ? List.of() : items;
    }
  }

  /** A dictionary of any kind. */
  final class Dictionary implements PickleValue {
    private Map<Object, Object> items;

    void put(Object key, Object value) {
      if (items == null) {
        items = new LinkedHashMap<>(8);
      }
      items.put(key, value);
    }

    Map<Object, Object> items() {
      return items == null ? Map.of() : items;
    }
  }

  /** Bytes that stay in the file until they are read. */
  record Blob(MappedFile file, long offset, long length)
      implements PickleValue, StoredTensor.Bytes {
    @Override
    public ByteBuffer read(long from, long count) {
      return file.slice(offset + from, count);
    }
  }

  /** A text too long to be a name; stays in the file. */
  final class LongText implements PickleValue {
    private final MappedFile file;
    private final long offset;
    private final long length;
    private LatinBytes latin;

    LongText(MappedFile file, long offset, long length) {
      this.file = file;
      this.offset = offset;
      this.length = length;
    }

    /**
     * The bytes of {@code text.encode("latin1")}, which is how protocol 2 holds bytes.
     *
     * @throws InputException when a character is beyond U+00FF, or the text is not UTF-8
     */
    LatinBytes latin() {
      if (latin != null) {
        return latin; // a file may ask a thousand times for the same text
      }
      ByteBuffer in = file.slice(offset, length);
      byte[] chunk = new byte[(int) Math.min(1 << 16, length)];
      long count = 0;
      // U+0080 to U+00FF are C2 80 to C3 BF: one lead, then one that continues it. Without
      // branches, since random weights make every one of them a guess.
      int lead = 0;
      int bad = 0;
      while (in.hasRemaining()) {
        int n = Math.min(chunk.length, in.remaining());
        in.get(chunk, 0, n);
        for (int i = 0; i < n; i++) {
          int b = chunk[i];
          int continues = (b & 0xc0) == 0x80 ? 1 : 0;
          bad |= lead ^ continues;
          lead = (b & 0xfe) == 0xc2 ? 1 : 0;
          bad |= (b >>> 31) ^ (lead | continues);
          count += 1 - lead;
        }
      }
      if ((bad | lead) != 0) {
        throw file.broken("a text at offset " + offset + " holds what bytes do not");
      }
      latin = new LatinBytes(this, count);
      return latin;
    }
  }

  /** A {@link LongText} as bytes; decoded when it is read. */
  record LatinBytes(LongText text, long length) implements PickleValue, StoredTensor.Bytes {
    @Override
    public ByteBuffer read(long from, long count) {
      ByteBuffer in = text.file.slice(text.offset, text.length);
      byte[] out = new byte[(int) (from + count)];
      byte[] chunk = new byte[(int) Math.min(1 << 16, text.length)];
      int at = 0;
      int last = 0;
      while (at < out.length) {
        int n = Math.min(chunk.length, in.remaining());
        if (n == 0) {
          throw text.file.broken("it changed while it was read");
        }
        in.get(chunk, 0, n);
        for (int i = 0; i < n && at < out.length; i++) {
          int b = chunk[i];
          int high = b >> 31; // all ones for a byte of a pair; the second one puts the pair
          out[at] = (byte) (b & ~high | (last << 6 | b & 0x3f) & high);
          at += (b & 0xfe) == 0xc2 ? 0 : 1;
          last = b;
        }
      }
      in = ByteBuffer.wrap(out, (int) from, (int) count).slice();
      return in.order(ByteOrder.LITTLE_ENDIAN);
    }
  }

  /** Short bytes that a text held. */
  record HeapBytes(byte[] bytes) implements PickleValue, StoredTensor.Bytes {
    static HeapBytes of(String latin) {
      return new HeapBytes(latin.getBytes(StandardCharsets.ISO_8859_1));
    }

    @Override
    public long length() {
      return bytes.length;
    }

    @Override
    public ByteBuffer read(long from, long count) {
      return ByteBuffer.wrap(bytes, (int) from, (int) count).slice().order(ByteOrder.LITTLE_ENDIAN);
    }
  }

  /** A storage of PyTorch: where it lies is known to the container, by its key. */
  final class Storage implements PickleValue {
    private final String key;
    private final StoredType type;
    private final long elements;
    private final long offset;

    /**
     * @param type null for a storage of bytes
     * @param elements how many of the type it has
     * @param offset where this view of the storage begins, in elements
     */
    Storage(String key, StoredType type, long elements, long offset) {
      this.key = key;
      this.type = type;
      this.elements = elements;
      this.offset = offset;
    }

    String key() {
      return key;
    }

    StoredType type() {
      return type;
    }

    long elements() {
      return elements;
    }

    long offset() {
      return offset;
    }
  }

  /** A view of a storage, not yet checked against it. */
  final class TorchTensor implements PickleValue {
    final Storage storage;
    final StoredType type;
    final long offset;
    final long[] size;
    final long[] strides;

    TorchTensor(Storage storage, StoredType type, long offset, long[] size, long[] strides) {
      this.storage = storage;
      this.type = type;
      this.offset = offset;
      this.size = size;
      this.strides = strides;
    }
  }

  /** numpy.dtype; the byte order comes with its state. */
  final class NumpyType implements PickleValue {
    final String name;
    final StoredType type;
    boolean bigEndian;

    /**
     * @param type null for one that is not read: objects, text, structures
     */
    NumpyType(String name, StoredType type, boolean bigEndian) {
      this.name = name;
      this.type = type;
      this.bigEndian = bigEndian;
    }
  }

  /** numpy.ndarray; empty until its state is set. */
  final class NumpyArray implements PickleValue {
    NumpyType type;
    Shape shape;
    boolean columnMajor;
    StoredTensor.Bytes bytes;
  }

  /** A plain value whose content nobody asks for: a torch.device, a NumPy number. */
  enum Opaque implements PickleValue {
    OPAQUE
  }
}
