package org.deixis.io;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Shape;

/**
 * A named array on the host, as files hold it: little-endian, row-major, contiguous. The bytes may
 * be mapped from a file.
 */
public record HostTensor(String name, DType dtype, Shape shape, ByteBuffer data) {

  public HostTensor {
    if (data.remaining() != Math.multiplyExact(shape.size(), dtype.bytes())) {
      throw new IllegalArgumentException(
          name + ": " + data.remaining() + " bytes for " + shape + " " + dtype);
    }
  }

  public static HostTensor ofFloats(String name, Shape shape, float[] values) {
    ByteBuffer bytes = allocate(values.length * 4L);
    bytes.asFloatBuffer().put(values);
    return new HostTensor(name, DType.F32, shape, bytes);
  }

  public static HostTensor ofInts(String name, Shape shape, int[] values) {
    ByteBuffer bytes = allocate(values.length * 4L);
    bytes.asIntBuffer().put(values);
    return new HostTensor(name, DType.I32, shape, bytes);
  }

  public static HostTensor ofLongs(String name, Shape shape, long[] values) {
    ByteBuffer bytes = allocate(values.length * 8L);
    bytes.asLongBuffer().put(values);
    return new HostTensor(name, DType.I64, shape, bytes);
  }

  public static HostTensor ofDoubles(String name, Shape shape, double[] values) {
    ByteBuffer bytes = allocate(values.length * 8L);
    bytes.asDoubleBuffer().put(values);
    return new HostTensor(name, DType.F64, shape, bytes);
  }

  private static ByteBuffer allocate(long bytes) {
    return ByteBuffer.allocate(Math.toIntExact(bytes)).order(ByteOrder.LITTLE_ENDIAN);
  }

  /** The bytes, little-endian, from the first element on. */
  public ByteBuffer bytes() {
    return data.duplicate().order(ByteOrder.LITTLE_ENDIAN);
  }

  /** All elements as floats; wider types lose what a float cannot hold. */
  public float[] toFloats() {
    float[] out = new float[Math.toIntExact(shape.size())];
    ByteBuffer in = bytes();
    if (dtype == DType.F32) {
      in.asFloatBuffer().get(out);
      return out;
    }
    for (int i = 0; i < out.length; i++) {
      out[i] =
          switch (dtype) {
            case F64 -> (float) in.getDouble();
            case F16, BF16 -> Half.toFloat(dtype, in.getShort());
            case I64 -> in.getLong();
            case I32 -> in.getInt();
            case I16 -> in.getShort();
            case I8 -> in.get();
            case U8, BOOL -> in.get() & 0xff;
            case F32 -> throw new AssertionError();
          };
    }
    return out;
  }

  /** All elements of a whole-number type as longs. */
  public long[] toLongs() {
    long[] out = new long[Math.toIntExact(shape.size())];
    ByteBuffer in = bytes();
    for (int i = 0; i < out.length; i++) {
      out[i] =
          switch (dtype) {
            case I64 -> in.getLong();
            case I32 -> in.getInt();
            case I16 -> in.getShort();
            case I8 -> in.get();
            case U8, BOOL -> in.get() & 0xff;
            default ->
                throw new IllegalStateException(name + " holds " + dtype + ", not whole numbers");
          };
    }
    return out;
  }

  /** All elements of an F64 tensor. */
  public double[] toDoubles() {
    if (dtype != DType.F64) {
      throw new IllegalStateException(name + " holds " + dtype + ", not F64");
    }
    double[] out = new double[Math.toIntExact(shape.size())];
    bytes().asDoubleBuffer().get(out);
    return out;
  }
}
