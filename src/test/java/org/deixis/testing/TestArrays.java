package org.deixis.testing;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Rng;
import org.deixis.core.Shape;

/**
 * Makes and reads arrays of one backend and floating type through upload and download alone, so
 * that a test of kernels runs on any backend. Open a scope around its use.
 */
public record TestArrays(Backend backend, DType dtype) {

  /** An array of this type that holds the given values, rounded to it. */
  public Array of(double[] values, int... dims) {
    return of(dtype, values, dims);
  }

  public Array of(float[] values, int... dims) {
    return of(dtype, doubles(values), dims);
  }

  public Array of(float[] values, Shape shape) {
    return of(values, shape.dims());
  }

  public Array ints(long[] values, int... dims) {
    double[] all = new double[values.length];
    for (int i = 0; i < all.length; i++) {
      all[i] = values[i];
    }
    return of(DType.I32, all, dims);
  }

  /** A tensor of the golden file in this type. */
  public Array of(Golden golden, String key) {
    return of(golden.floats(key), golden.shape(key));
  }

  /** An array for a result, filled with NaN so that an element left out shows. */
  public Array result(int... dims) {
    double[] poison = new double[(int) Shape.of(dims).size()];
    java.util.Arrays.fill(poison, Double.NaN);
    return of(poison, dims);
  }

  public Array of(DType type, double[] values, int... dims) {
    Array array = backend.allocate(Shape.of(dims), type);
    if (array.size() != values.length) {
      throw new IllegalArgumentException(values.length + " values for " + array);
    }
    ByteBuffer bytes = buffer(array);
    for (double value : values) {
      switch (type) {
        case F64 -> bytes.putDouble(value);
        case F32 -> bytes.putFloat((float) value);
        case F16, BF16 -> bytes.putShort(Half.fromFloat(type, (float) value));
        case I64 -> bytes.putLong((long) value);
        case I32 -> bytes.putInt((int) value);
        case U8, BOOL -> bytes.put((byte) (int) value);
        default -> throw new IllegalArgumentException(type.toString());
      }
    }
    backend.upload(bytes.flip(), array);
    return array;
  }

  private static ByteBuffer buffer(Array array) {
    return ByteBuffer.allocateDirect((int) array.bytes()).order(ByteOrder.LITTLE_ENDIAN);
  }

  /** The elements of any array. */
  public static double[] values(Array array) {
    ByteBuffer bytes = buffer(array);
    array.backend().download(array, bytes);
    bytes.clear();
    double[] values = new double[(int) array.size()];
    for (int i = 0; i < values.length; i++) {
      values[i] =
          switch (array.dtype()) {
            case F64 -> bytes.getDouble();
            case F32 -> bytes.getFloat();
            case F16, BF16 -> Half.toFloat(array.dtype(), bytes.getShort());
            case I64 -> bytes.getLong();
            case I32 -> bytes.getInt();
            case U8, BOOL -> bytes.get() & 0xff;
            default -> throw new IllegalArgumentException(array.toString());
          };
    }
    return values;
  }

  public static double[] doubles(float[] values) {
    double[] all = new double[values.length];
    for (int i = 0; i < all.length; i++) {
      all[i] = values[i];
    }
    return all;
  }

  /** Standard normal numbers. */
  public static double[] gaussian(Rng rng, int... dims) {
    double[] values = new double[(int) Shape.of(dims).size()];
    for (int i = 0; i < values.length; i++) {
      values[i] = rng.nextGaussian();
    }
    return values;
  }

  /** ‖actual − expected‖ / ‖expected‖; of an all-zero expectation ‖actual‖; NaN counts. */
  public static double distance(double[] expected, double[] actual) {
    if (expected.length != actual.length) {
      throw new IllegalArgumentException(expected.length + " against " + actual.length);
    }
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
      norm += expected[i] * expected[i];
    }
    return Math.sqrt(norm == 0 ? difference : difference / norm);
  }

  /** Permutes the axes of row-major values: result axis i is axis permutation[i]. */
  public static float[] permute(float[] x, Shape shape, int... permutation) {
    int rank = permutation.length;
    float[] y = new float[x.length];
    for (int i = 0; i < x.length; i++) {
      int[] index = new int[rank];
      for (int axis = rank - 1, rest = i; axis >= 0; axis--) {
        index[axis] = rest % shape.dim(axis);
        rest /= shape.dim(axis);
      }
      int to = 0;
      for (int axis = 0; axis < rank; axis++) {
        to = to * shape.dim(permutation[axis]) + index[permutation[axis]];
      }
      y[to] = x[i];
    }
    return y;
  }
}
