package org.deixis.backend.cpu;

import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;

/**
 * Vectors of floats read from and written to memory outside the heap. The Vector API did so by
 * {@code ByteBuffer} up to JDK 18 and does so by {@code MemorySegment} from 19 on; which of the two
 * it is, two constant method handles say, that the compiler looks through.
 *
 * <p>For kernels that stream many arrays at once: beside copies through tiles of {@link Tile},
 * loads overlap with arithmetic. A kernel that reads one or two arrays and computes much is as fast
 * with tiles.
 */
final class NativeVectors {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;

  /** Last JDK whose vectors come from byte buffers. */
  private static final int LAST_WITH_BUFFERS = 18;

  private static final MethodHandle LOAD;
  private static final MethodHandle STORE;
  private static final MethodHandle OF_BUFFER;

  static {
    try {
      boolean buffers = Runtime.version().feature() <= LAST_WITH_BUFFERS;
      Class<?> memory =
          buffers ? ByteBuffer.class : Class.forName("java.lang.foreign.MemorySegment");
      Class<?> offset = buffers ? int.class : long.class;
      MethodHandles.Lookup lookup = MethodHandles.publicLookup();
      MethodHandle load =
          lookup.findStatic(
              FloatVector.class,
              buffers ? "fromByteBuffer" : "fromMemorySegment",
              MethodType.methodType(
                  FloatVector.class, VectorSpecies.class, memory, offset, ByteOrder.class));
      MethodHandle store =
          lookup.findVirtual(
              FloatVector.class,
              buffers ? "intoByteBuffer" : "intoMemorySegment",
              MethodType.methodType(void.class, memory, offset, ByteOrder.class));
      load = MethodHandles.insertArguments(load, 3, ByteOrder.nativeOrder());
      load = MethodHandles.insertArguments(load, 0, S);
      store = MethodHandles.insertArguments(store, 3, ByteOrder.nativeOrder());
      LOAD =
          MethodHandles.explicitCastArguments(
              load, MethodType.methodType(FloatVector.class, Object.class, long.class));
      STORE =
          MethodHandles.explicitCastArguments(
              store,
              MethodType.methodType(void.class, FloatVector.class, Object.class, long.class));
      OF_BUFFER =
          buffers
              ? MethodHandles.identity(Object.class)
              : lookup
                  .findStatic(memory, "ofBuffer", MethodType.methodType(memory, Buffer.class))
                  .asType(MethodType.methodType(Object.class, Object.class));
    } catch (ReflectiveOperationException e) {
      throw new ExceptionInInitializerError(e);
    }
  }

  private NativeVectors() {}

  /** The array's memory, for {@link #load} and {@link #store}; offset 0 is its first element. */
  static Object memory(Array array) {
    Native.floats(array);
    int first = Math.toIntExact(array.offset() * Float.BYTES);
    ByteBuffer bytes =
        HostBuffer.of(array)
            .bytesView()
            .slice(first, Math.toIntExact(array.size() * Float.BYTES))
            .order(ByteOrder.nativeOrder());
    try {
      return (Object) OF_BUFFER.invokeExact((Object) bytes);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  /**
   * {@link VectorMath#LANES} floats.
   *
   * @param offset of the first, in bytes
   */
  static FloatVector load(Object memory, long offset) {
    try {
      return (FloatVector) LOAD.invokeExact(memory, offset);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  /**
   * Writes all lanes.
   *
   * @param offset of the first, in bytes
   */
  static void store(FloatVector vector, Object memory, long offset) {
    try {
      STORE.invokeExact(vector, memory, offset);
    } catch (Throwable t) {
      throw unexpected(t);
    }
  }

  /** The handles declare Throwable; what they throw is the Vector API's own, for a bad offset. */
  private static RuntimeException unexpected(Throwable t) {
    if (t instanceof RuntimeException e) {
      return e;
    }
    if (t instanceof Error e) {
      throw e;
    }
    return new IllegalStateException(t);
  }
}
