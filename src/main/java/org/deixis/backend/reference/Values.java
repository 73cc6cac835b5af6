package org.deixis.backend.reference;

import java.nio.ByteBuffer;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.ShortBuffer;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.core.DType;
import org.deixis.core.Half;

/**
 * The elements of an array as doubles, whatever their type, so that each kernel is written once and
 * rounds only when it stores. Integers are read exactly up to 2^53; storing truncates.
 */
abstract class Values {
  abstract double get(int i);

  abstract void set(int i, double value);

  /** this[i] = from[j], exact also for 64-bit integers. */
  void move(int i, Values from, int j) {
    set(i, from.get(j));
  }

  static Values of(Array array) {
    HostBuffer buffer = HostBuffer.of(array);
    int offset = Math.toIntExact(array.offset());
    return switch (array.dtype()) {
      case F64 -> new F64(buffer.doubles(), offset);
      case F32 -> new F32(buffer.floats(), offset);
      case F16, BF16 -> new F16(buffer.shorts(), offset, array.dtype());
      case I64 -> new I64(buffer.longs(), offset);
      case I32 -> new I32(buffer.ints(), offset);
      case U8, BOOL -> new U8(buffer.bytesView(), offset);
      case I16, I8 -> throw new IllegalArgumentException("no kernel reads " + array.dtype());
    };
  }

  /** All elements; null for null. */
  static double[] read(Array array) {
    if (array == null) {
      return null;
    }
    Values values = of(array);
    double[] all = new double[Math.toIntExact(array.size())];
    for (int i = 0; i < all.length; i++) {
      all[i] = values.get(i);
    }
    return all;
  }

  /** Stores all elements; nothing when the array is null. */
  static void write(double[] all, Array array) {
    if (array == null) {
      return;
    }
    Values values = of(array);
    for (int i = 0; i < all.length; i++) {
      values.set(i, all[i]);
    }
  }

  /**
   * The float to which a double may be shortened before a second rounding to 16 bits: toward zero,
   * with the last bit set when inexact ("round to odd"), so that the second rounding is that of the
   * double itself (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
   */
  static float toOdd(double value) {
    float f = (float) value;
    if (f == value || value != value) {
      return f;
    }
    int bits = Float.floatToRawIntBits(f);
    if (Math.abs((double) f) > Math.abs(value)) {
      bits--;
    }
    return Float.intBitsToFloat(bits | 1);
  }

  private static final class F64 extends Values {
    private final DoubleBuffer buffer;
    private final int offset;

    F64(DoubleBuffer buffer, int offset) {
      this.buffer = buffer;
      this.offset = offset;
    }

    @Override
    double get(int i) {
      return buffer.get(offset + i);
    }

    @Override
    void set(int i, double value) {
      buffer.put(offset + i, value);
    }
  }

  private static final class F32 extends Values {
    private final FloatBuffer buffer;
    private final int offset;

    F32(FloatBuffer buffer, int offset) {
      this.buffer = buffer;
      this.offset = offset;
    }

    @Override
    double get(int i) {
      return buffer.get(offset + i);
    }

    @Override
    void set(int i, double value) {
      buffer.put(offset + i, (float) value);
    }
  }

  /** Both 16-bit formats. */
  private static final class F16 extends Values {
    private final ShortBuffer buffer;
    private final int offset;
    private final DType type;

    F16(ShortBuffer buffer, int offset, DType type) {
      this.buffer = buffer;
      this.offset = offset;
      this.type = type;
    }

    @Override
    double get(int i) {
      return Half.toFloat(type, buffer.get(offset + i));
    }

    @Override
    void set(int i, double value) {
      buffer.put(offset + i, Half.fromFloat(type, toOdd(value)));
    }
  }

  private static final class I64 extends Values {
    private final LongBuffer buffer;
    private final int offset;

    I64(LongBuffer buffer, int offset) {
      this.buffer = buffer;
      this.offset = offset;
    }

    @Override
    double get(int i) {
      return buffer.get(offset + i);
    }

    @Override
    void set(int i, double value) {
      buffer.put(offset + i, (long) value);
    }

    @Override
    void move(int i, Values from, int j) {
      if (from instanceof I64 other) {
        buffer.put(offset + i, other.buffer.get(other.offset + j));
      } else {
        set(i, from.get(j));
      }
    }
  }

  private static final class I32 extends Values {
    private final IntBuffer buffer;
    private final int offset;

    I32(IntBuffer buffer, int offset) {
      this.buffer = buffer;
      this.offset = offset;
    }

    @Override
    double get(int i) {
      return buffer.get(offset + i);
    }

    @Override
    void set(int i, double value) {
      buffer.put(offset + i, (int) value);
    }
  }

  private static final class U8 extends Values {
    private final ByteBuffer buffer;
    private final int offset;

    U8(ByteBuffer buffer, int offset) {
      this.buffer = buffer;
      this.offset = offset;
    }

    @Override
    double get(int i) {
      return buffer.get(offset + i) & 0xff;
    }

    @Override
    void set(int i, double value) {
      buffer.put(offset + i, (byte) (int) value);
    }
  }
}
