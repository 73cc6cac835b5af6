package org.deixis.testing;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Shape;

/** Carries doubles to and from arrays of any type, for comparisons. */
public final class Host {
  private Host() {}

  public static Array upload(Backend backend, double[] values, Shape shape, DType dtype) {
    ByteBuffer bytes =
        ByteBuffer.allocate(values.length * dtype.bytes()).order(ByteOrder.LITTLE_ENDIAN);
    for (double v : values) {
      switch (dtype) {
        case F64 -> bytes.putDouble(v);
        case F32 -> bytes.putFloat((float) v);
        case F16, BF16 -> bytes.putShort(Half.fromFloat(dtype, (float) v));
        case I64 -> bytes.putLong((long) v);
        case I32 -> bytes.putInt((int) v);
        case U8, BOOL, I8 -> bytes.put((byte) (int) v);
        default -> throw new IllegalArgumentException("cannot upload " + dtype);
      }
    }
    bytes.flip();
    Array array = backend.allocate(shape, dtype);
    backend.upload(bytes, array);
    return array;
  }

  public static double[] download(Array array) {
    ByteBuffer bytes =
        ByteBuffer.allocate(Math.toIntExact(array.bytes())).order(ByteOrder.LITTLE_ENDIAN);
    array.backend().download(array, bytes);
    bytes.clear();
    double[] values = new double[Math.toIntExact(array.size())];
    for (int i = 0; i < values.length; i++) {
      values[i] =
          switch (array.dtype()) {
            case F64 -> bytes.getDouble();
            case F32 -> bytes.getFloat();
            case F16, BF16 -> Half.toFloat(array.dtype(), bytes.getShort());
            case I64 -> bytes.getLong();
            case I32 -> bytes.getInt();
            case U8, BOOL -> bytes.get() & 0xff;
            default -> throw new IllegalArgumentException("cannot download " + array.dtype());
          };
    }
    return values;
  }

  /**
   * ‖actual − expected‖ / ‖expected‖; the plain difference's norm where the expected norm is below
   * 1e-12.
   */
  public static double relative(double[] actual, double[] expected) {
    if (actual.length != expected.length) {
      return Double.POSITIVE_INFINITY;
    }
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < actual.length; i++) {
      difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
      norm += expected[i] * expected[i];
    }
    double relative = norm < 1e-24 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
    return Double.isNaN(relative) ? Double.POSITIVE_INFINITY : relative;
  }
}
