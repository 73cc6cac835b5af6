package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.deixis.backend.Array;
import org.deixis.backend.Buffer;
import org.deixis.backend.HostBuffer;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * A CPU backend with arrays for tests: each lies at an odd element of its buffer, with marked
 * elements before and behind it that no kernel may touch.
 */
final class CpuArrays implements AutoCloseable {
  private static final float MARK = 12345.678f;
  private static final int BEFORE = 3;
  private static final int AFTER = 17;

  final CpuBackend backend;
  private final Random random;
  private final List<Buffer> buffers = new ArrayList<>();
  private final List<Array> arrays = new ArrayList<>();

  CpuArrays(int threads) {
    backend = new CpuBackend(threads);
    long seed = Long.getLong("test.seed", 7);
    random = new Random(seed);
  }

  double[] gaussian(long n) {
    double[] values = new double[Math.toIntExact(n)];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  int below(int bound) {
    return random.nextInt(bound);
  }

  /** An F32 array of NaNs, which a result must replace. */
  Array empty(int... dims) {
    double[] values = new double[Math.toIntExact(Shape.of(dims).size())];
    Arrays.fill(values, Double.NaN);
    return of(values, dims);
  }

  Array of(double[] values, int... dims) {
    Shape shape = Shape.of(dims);
    assertEquals(values.length, shape.size());
    Buffer buffer = backend.memory().allocate(4 * (shape.size() + BEFORE + AFTER));
    buffers.add(buffer);
    HostBuffer host = (HostBuffer) buffer;
    for (int i = 0; i < shape.size() + BEFORE + AFTER; i++) {
      host.floats().put(i, MARK);
    }
    Array array = new Array(buffer, BEFORE, shape, DType.F32);
    ByteBuffer bytes = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
    for (double value : values) {
      bytes.putFloat((float) value);
    }
    backend.upload(bytes.flip(), array);
    arrays.add(array);
    return array;
  }

  /** An array of another type at the same odd place, its bytes given. */
  Array raw(DType type, byte[] content, int... dims) {
    Shape shape = Shape.of(dims);
    int width = type.bytes();
    Buffer buffer = backend.memory().allocate(width * (shape.size() + BEFORE + AFTER));
    buffers.add(buffer);
    Array array = new Array(buffer, BEFORE, shape, type);
    backend.upload(ByteBuffer.wrap(content), array);
    return array;
  }

  byte[] bytes(Array array) {
    byte[] content = new byte[Math.toIntExact(array.bytes())];
    backend.download(array, ByteBuffer.wrap(content));
    return content;
  }

  double[] values(Array array) {
    ByteBuffer bytes =
        ByteBuffer.allocate(Math.toIntExact(array.bytes())).order(ByteOrder.LITTLE_ENDIAN);
    backend.download(array, bytes);
    double[] values = new double[Math.toIntExact(array.size())];
    for (int i = 0; i < values.length; i++) {
      values[i] = bytes.getFloat(4 * i);
    }
    return values;
  }

  /** ‖actual − expected‖ ≤ tolerance·‖expected‖, and no marked element was touched. */
  void check(String what, double[] expected, Array actual, double tolerance) {
    check(what, expected, expected, actual, tolerance);
  }

  /** ‖actual − expected‖ ≤ tolerance·‖measure‖, and no marked element was touched. */
  void check(String what, double[] expected, double[] measure, Array actual, double tolerance) {
    double[] got = values(actual);
    assertEquals(expected.length, got.length, what);
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < got.length; i++) {
      if (got[i] != expected[i]) { // infinities may be equal
        difference += (got[i] - expected[i]) * (got[i] - expected[i]);
      }
    }
    for (double value : measure) {
      norm += value * value;
    }
    double error = norm == 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
    assertTrue(error <= tolerance, what + ": error " + error + " exceeds " + tolerance);
    marks(what);
  }

  private void marks(String what) {
    for (Array array : arrays) {
      HostBuffer host = HostBuffer.of(array);
      int end = (int) (BEFORE + array.size());
      for (int i = 0; i < end + AFTER; i = i + 1 == BEFORE ? end : i + 1) {
        assertEquals(MARK, host.floats().get(i), what + " wrote beside its result");
      }
    }
  }

  /** Frees the arrays made so far. */
  void clear() {
    buffers.forEach(Buffer::release);
    buffers.clear();
    arrays.clear();
  }

  @Override
  public void close() {
    clear();
    backend.close();
  }
}
