package org.deixis.backend.cpu;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.core.DType;

/** Rows of floats read from an array of floats or of unsigned bytes. */
final class ByteTile {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final int L = VectorMath.LANES;

  /** As many bytes as {@link #S} has floats; null where no vector is that short. */
  private static final VectorSpecies<Byte> BYTES =
      L == 16 ? ByteVector.SPECIES_128 : L == 8 ? ByteVector.SPECIES_64 : null;

  private static final VectorSpecies<Integer> INTS = IntVector.SPECIES_PREFERRED;

  private final FloatBuffer floats;
  private final ByteBuffer bytes;
  private final int start;

  private ByteTile(FloatBuffer floats, ByteBuffer bytes, int start) {
    this.floats = floats;
    this.bytes = bytes;
    this.start = start;
  }

  /**
   * @param array F32 or U8
   */
  static ByteTile of(Array array) {
    int start = Math.toIntExact(array.offset());
    return array.dtype() == DType.U8
        ? new ByteTile(null, HostBuffer.of(array).bytesView(), start)
        : new ByteTile(HostBuffer.of(array).floats(), null, start);
  }

  /** Copies n elements from element {@code from} on; uses the scratch's bytes. */
  void read(Scratch scratch, int from, int n, float[] to, int offset) {
    if (floats != null) {
      floats.get(start + from, to, offset, n);
      return;
    }
    byte[] raw = scratch.bytes(n + L);
    bytes.get(start + from, raw, 0, n);
    convert(raw, n, to, offset);
  }

  private static void convert(byte[] raw, int n, float[] to, int offset) {
    int i = 0;
    if (BYTES != null) {
      for (; i + L <= n; i += L) {
        IntVector wide =
            (IntVector)
                ByteVector.fromArray(BYTES, raw, i).convertShape(VectorOperators.B2I, INTS, 0);
        FloatVector floats =
            (FloatVector)
                wide.lanewise(VectorOperators.AND, 0xff).convertShape(VectorOperators.I2F, S, 0);
        floats.intoArray(to, offset + i);
      }
    }
    for (; i < n; i++) {
      to[offset + i] = raw[i] & 0xff;
    }
  }
}
