package org.deixis.backend.cpu;

import java.util.Arrays;

/**
 * A thread's scratch arrays on the Java heap, kept from call to call so that kernels allocate
 * nothing. What an array holds when it is handed out is undefined.
 *
 * <p>Slots below {@link #CALL} belong to the bodies of parallel loops; those from it on to a
 * kernel's calling thread, whose arrays all bodies may see.
 */
final class Scratch {
  /** First slot of a call's own arrays. */
  static final int CALL = 16;

  private static final int SLOTS = 24;

  private static final ThreadLocal<Scratch> HERE = ThreadLocal.withInitial(Scratch::new);

  private final float[][] floats = new float[SLOTS][];
  private double[] doubles = new double[0];
  private long[] longs = new long[0];
  private int[] ints = new int[0];
  private short[] shorts = new short[0];
  private byte[] bytes = new byte[0];

  private Scratch() {}

  static Scratch here() {
    return HERE.get();
  }

  /** At least {@code length} floats, undefined; the same array until more is asked of the slot. */
  float[] floats(int slot, long length) {
    float[] array = floats[slot];
    if (array == null || array.length < length) {
      array = new float[grown(length)];
      floats[slot] = array;
    }
    return array;
  }

  /** {@link #floats} with its first {@code length} elements 0. */
  float[] zeros(int slot, long length) {
    float[] array = floats(slot, length);
    Arrays.fill(array, 0, (int) length, 0);
    return array;
  }

  double[] doubles(int length) {
    if (doubles.length < length) {
      doubles = new double[grown(length)];
    }
    return doubles;
  }

  long[] longs(int length) {
    if (longs.length < length) {
      longs = new long[grown(length)];
    }
    return longs;
  }

  int[] ints(int length) {
    if (ints.length < length) {
      ints = new int[grown(length)];
    }
    return ints;
  }

  short[] shorts(int length) {
    if (shorts.length < length) {
      shorts = new short[grown(length)];
    }
    return shorts;
  }

  byte[] bytes(int length) {
    if (bytes.length < length) {
      bytes = new byte[grown(length)];
    }
    return bytes;
  }

  private static int grown(long length) {
    return Math.toIntExact(length + (length >> 3) + 64);
  }
}
