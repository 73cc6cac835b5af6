package org.deixis.backend.cpu;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import org.bytedeco.javacpp.FloatPointer;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;

/**
 * A thread's float arrays on the Java heap, into which kernels copy a few thousand elements at a
 * time: loops over {@code float[]} become vector instructions on every JDK, loops over memory
 * outside the heap do not, and the copies stay in the first-level cache.
 */
final class Tile {
  /** Elements of one array: 16 KiB, so that two of them fit the first-level cache. */
  static final int SIZE = 4096;

  private static final ThreadLocal<Tile> HERE = ThreadLocal.withInitial(Tile::new);

  final float[] a = new float[SIZE];
  final float[] b = new float[SIZE];
  final float[] c = new float[SIZE];
  private short[] shorts;
  private final float[][] wide = new float[4][];

  /** Most rows whose statistics {@link #direct} holds. */
  static final int ROWS = 2048;

  /** Memory outside the heap that oneDNN and loops exchange rows' statistics through. */
  final FloatBuffer direct =
      ByteBuffer.allocateDirect(4 * 2 * ROWS).order(ByteOrder.nativeOrder()).asFloatBuffer();

  final long directAddress = new FloatPointer(direct).address();

  private Tile() {}

  static Tile here() {
    return HERE.get();
  }

  short[] shorts() {
    if (shorts == null) {
      shorts = new short[SIZE];
    }
    return shorts;
  }

  /** Array {@code slot} (0 to 3) of at least {@code length} elements, its contents undefined. */
  float[] wide(int slot, int length) {
    if (wide[slot] == null || wide[slot].length < length) {
      wide[slot] = new float[length];
    }
    return wide[slot];
  }

  /** The array's buffer; its first element is at {@link #start}. */
  static FloatBuffer floats(Array array) {
    return HostBuffer.of(array).floats();
  }

  static int start(Array array) {
    return Math.toIntExact(array.offset());
  }
}
