package org.deixis.io;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.deixis.core.InputException;
import org.deixis.core.Shape;

/**
 * Where a file keeps a tensor: a run of bytes, the type of its elements, and how the tensor lies in
 * it. Checked when it is made, so that reading follows no false offset.
 */
final class StoredTensor {
  /** NumPy's own limit; PyTorch's is 64 since 1.5. */
  static final int MAX_RANK = 64;

  /** Bytes that any file justifies. */
  static final long FREE = 1 << 20;

  /** A run of bytes of a file, read when asked for. */
  interface Bytes {
    /** How many. */
    long length();

    /** {@code count} of them from {@code from} on, little-endian; mapped where they can be. */
    ByteBuffer read(long from, long count);
  }

  private final MappedFile file;
  private final Bytes bytes;
  private final StoredType type;
  private final boolean bigEndian;
  private final Shape shape;
  private final long offset;
  private final long[] strides;

  private StoredTensor(
      MappedFile file,
      Bytes bytes,
      StoredType type,
      boolean bigEndian,
      Shape shape,
      long offset,
      long[] strides) {
    this.file = file;
    this.bytes = bytes;
    this.type = type;
    this.bigEndian = bigEndian;
    this.shape = shape;
    this.offset = offset;
    this.strides = strides;
  }

  /**
   * A view of a storage.
   *
   * @param where the tensor in messages
   * @param offset of the first element, in elements
   * @param strides in elements, one an axis, each at least 0
   * @throws InputException when the view leaves the bytes, or would be larger than the file
   */
  static StoredTensor view(
      MappedFile file,
      String where,
      Bytes bytes,
      StoredType type,
      boolean bigEndian,
      Shape shape,
      long offset,
      long[] strides) {
    long available = bytes.length() / type.bytes();
    boolean inside = offset >= 0 && offset <= available;
    if (inside && shape.size() > 0) {
      long last = offset;
      for (int i = 0; i < strides.length && inside; i++) {
        long steps = shape.dim(i) - 1L;
        inside = strides[i] >= 0 && (steps == 0 || strides[i] <= (available - last) / steps);
        last += inside ? steps * strides[i] : 0;
        inside &= last < available;
      }
      inside &= last < available;
    }
    if (!inside) {
      throw file.broken(
          where + " of shape " + shape + " reaches beyond its " + bytes.length() + " bytes");
    }
    // A view with a stride of 0 may be larger than what holds it; nothing beyond a megabyte is
    // allocated for one that is larger than the whole file.
    if (shape.size() > Math.max(FREE, file.size()) / type.bytes()) {
      throw file.broken(where + " of shape " + shape + " is larger than the file");
    }
    return new StoredTensor(file, bytes, type, bigEndian, shape, offset, strides.clone());
  }

  /**
   * All of a run of bytes, row-major.
   *
   * @throws InputException when it has another length than the shape needs
   */
  static StoredTensor whole(
      MappedFile file, String where, Bytes bytes, StoredType type, Shape shape) {
    return whole(file, where, bytes, type, false, shape, false);
  }

  /** The same, perhaps big-endian or column-major as NumPy writes them. */
  static StoredTensor whole(
      MappedFile file,
      String where,
      Bytes bytes,
      StoredType type,
      boolean bigEndian,
      Shape shape,
      boolean columnMajor) {
    long needed = shape.size();
    if (needed > Long.MAX_VALUE / type.bits()
        || needed * type.bits() % 8 != 0
        || needed * type.bits() / 8 != bytes.length()) {
      throw file.broken(
          where
              + " of type "
              + type
              + " and shape "
              + shape
              + " is given "
              + bytes.length()
              + " bytes");
    }
    return new StoredTensor(
        file, bytes, type, bigEndian, shape, 0, columnMajor ? columns(shape) : rows(shape));
  }

  /**
   * A shape of these extents.
   *
   * @throws InputException when one is negative or beyond 2^31 - 1, their product beyond 2^60, or
   *     their number beyond {@link #MAX_RANK}
   */
  static Shape shape(MappedFile file, String where, long[] extents) {
    if (extents.length > MAX_RANK) {
      throw file.broken(where + " has " + extents.length + " axes; at most " + MAX_RANK);
    }
    int[] dims = new int[extents.length];
    long product = 1; // of the extents that are not 0, so that (0, 2^31-1, 2^31-1, …) is seen too
    for (int i = 0; i < dims.length; i++) {
      if (extents[i] < 0 || extents[i] > Integer.MAX_VALUE) {
        throw file.broken(where + " has an extent of " + extents[i]);
      }
      dims[i] = (int) extents[i];
      if (dims[i] > 0) {
        if (product > (1L << 60) / dims[i]) {
          throw file.broken(where + " has a shape too large to exist");
        }
        product *= dims[i];
      }
    }
    return Shape.of(dims);
  }

  private static long[] rows(Shape shape) {
    long[] strides = new long[shape.rank()];
    long step = 1;
    for (int i = strides.length - 1; i >= 0; i--) {
      strides[i] = step;
      step *= Math.max(1, shape.dim(i));
    }
    return strides;
  }

  private static long[] columns(Shape shape) {
    long[] strides = new long[shape.rank()];
    long step = 1;
    for (int i = 0; i < strides.length; i++) {
      strides[i] = step;
      step *= Math.max(1, shape.dim(i));
    }
    return strides;
  }

  /** Bytes of its elements as they are stored; an element that is seen twice counts twice. */
  long storedBytes() {
    return shape.size() * type.bits() / 8;
  }

  Checkpoint.Entry entry() {
    return new Checkpoint.Entry(type.dtype(), shape, type.name(), storedBytes());
  }

  /** Whether its elements lie in the file as they are read. */
  private boolean contiguous() {
    long[] rows = rows(shape);
    for (int i = 0; i < rows.length; i++) {
      if (shape.dim(i) > 1 && strides[i] != rows[i]) {
        return false;
      }
    }
    return true;
  }

  /** Its values: the file's own bytes where they lie as the engine wants them, else a copy. */
  HostTensor read(String name) {
    if (type.dtype() == null) {
      throw file.refused(
          Lines.tensor(name) + " is of type " + type + ", which is listed and not read");
    }
    long needed = shape.size() * Math.max(type.bytes(), type.dtype().bytes());
    if (needed > Integer.MAX_VALUE - 8) {
      throw file.refused(
          Lines.tensor(name) + " has " + needed + " bytes; at most 2 GiB each are read, split it");
    }
    if (shape.size() == 0) {
      return new HostTensor(name, type.dtype(), shape, ByteBuffer.allocate(0));
    }
    int count = (int) shape.size();
    long span = 1; // elements from the first to the last one that is used
    for (int i = 0; i < strides.length; i++) {
      span += strides[i] * (shape.dim(i) - 1L);
    }
    ByteBuffer values = bytes.read(offset * type.bytes(), span * type.bytes());
    if (!contiguous()) {
      values = gather(values);
    }
    if (bigEndian && type.bytes() > 1) {
      values = swapped(values);
    }
    if (!type.same()) {
      try {
        values = type.widen(values, count);
      } catch (ArithmeticException e) {
        throw file.refused(
            Lines.tensor(name)
                + " holds "
                + e.getMessage()
                + ", more than a signed 64-bit integer does; store it as another type");
      }
    }
    return new HostTensor(name, type.dtype(), shape, values);
  }

  private ByteBuffer gather(ByteBuffer in) {
    int width = type.bytes();
    ByteBuffer out = ByteBuffer.allocate((int) shape.size() * width).order(ByteOrder.LITTLE_ENDIAN);
    int inner = shape.rank() - 1; // rank 0 is always contiguous
    int columns = shape.dim(inner);
    long step = strides[inner] * width;
    long[] at = new long[inner];
    long row = 0;
    for (long r = shape.rows(); r > 0; r--) {
      long from = row * width;
      for (int c = 0; c < columns; c++, from += step) {
        switch (width) {
          case 8 -> out.putLong(in.getLong((int) from));
          case 4 -> out.putInt(in.getInt((int) from));
          case 2 -> out.putShort(in.getShort((int) from));
          default -> out.put(in.get((int) from));
        }
      }
      for (int axis = inner - 1; axis >= 0; axis--) {
        row += strides[axis];
        if (++at[axis] < shape.dim(axis)) {
          break;
        }
        row -= strides[axis] * at[axis];
        at[axis] = 0;
      }
    }
    return out.flip();
  }

  private ByteBuffer swapped(ByteBuffer in) {
    ByteBuffer out = ByteBuffer.allocate(in.remaining()).order(ByteOrder.LITTLE_ENDIAN);
    ByteBuffer big = in.duplicate().order(ByteOrder.BIG_ENDIAN);
    while (big.hasRemaining()) {
      switch (type.bytes()) {
        case 8 -> out.putLong(big.getLong());
        case 4 -> out.putInt(big.getInt());
        default -> out.putShort(big.getShort());
      }
    }
    return out.flip();
  }

  /** Bytes of a file as they lie there. */
  static Bytes in(MappedFile file, long offset, long length) {
    return new Bytes() {
      @Override
      public long length() {
        return length;
      }

      @Override
      public ByteBuffer read(long from, long count) {
        return file.slice(offset + from, count);
      }
    };
  }
}
