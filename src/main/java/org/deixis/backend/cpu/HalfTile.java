package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.nio.ShortBuffer;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.core.DType;

/**
 * Tiles of floats read from and written to an array of F32, F16 or BF16; written to the last two
 * they are rounded to nearest even, with the bits of {@link org.deixis.core.Half}.
 *
 * <p>Tiles need room for a whole vector behind their last element.
 */
final class HalfTile {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final VectorSpecies<Integer> INTS = IntVector.SPECIES_PREFERRED;
  private static final int L = VectorMath.LANES;

  /** As many shorts as {@link #S} has floats. */
  private static final VectorSpecies<Short> SHORTS =
      L == 16 ? ShortVector.SPECIES_256 : L == 8 ? ShortVector.SPECIES_128 : ShortVector.SPECIES_64;

  private final DType type;
  private final FloatBuffer floats;
  private final ShortBuffer shorts;
  private final int start;

  private HalfTile(DType type, FloatBuffer floats, ShortBuffer shorts, int start) {
    this.type = type;
    this.floats = floats;
    this.shorts = shorts;
    this.start = start;
  }

  static HalfTile of(Array array) {
    int start = Math.toIntExact(array.offset());
    HostBuffer buffer = HostBuffer.of(array);
    return switch (array.dtype()) {
      case F32 -> new HalfTile(array.dtype(), buffer.floats(), null, start);
      case F16, BF16 -> new HalfTile(array.dtype(), null, buffer.shorts(), start);
      default -> throw new IllegalStateException("a kernel for floats was given " + array);
    };
  }

  /** Copies n elements from element {@code from} on to the tile's beginning. */
  void read(Scratch scratch, int from, int n, float[] tile) {
    if (floats != null) {
      floats.get(start + from, tile, 0, n);
      return;
    }
    short[] raw = scratch.shorts(n + L);
    shorts.get(start + from, raw, 0, n);
    toFloats(type, raw, n, tile);
  }

  /** Copies the tile's first n elements to element {@code to} on. */
  void write(Scratch scratch, int to, int n, float[] tile) {
    if (floats != null) {
      floats.put(start + to, tile, 0, n);
      return;
    }
    short[] raw = scratch.shorts(n + L);
    toHalves(type, tile, n, raw);
    shorts.put(start + to, raw, 0, n);
  }

  static void toFloats(DType type, short[] from, int n, float[] to) {
    if (type == DType.BF16) {
      for (int i = 0; i < n; i += L) {
        widen(from, i).lanewise(VectorOperators.LSHL, 16).reinterpretAsFloats().intoArray(to, i);
      }
    } else {
      for (int i = 0; i < n; i += L) {
        f16ToFloat(widen(from, i)).intoArray(to, i);
      }
    }
  }

  static void toHalves(DType type, float[] from, int n, short[] to) {
    if (type == DType.BF16) {
      for (int i = 0; i < n; i += L) {
        narrow(floatToBf16(FloatVector.fromArray(S, from, i)), to, i);
      }
    } else {
      for (int i = 0; i < n; i += L) {
        narrow(floatToF16(FloatVector.fromArray(S, from, i)), to, i);
      }
    }
  }

  private static IntVector widen(short[] from, int i) {
    return (IntVector)
        ShortVector.fromArray(SHORTS, from, i).convertShape(VectorOperators.S2I, INTS, 0);
  }

  private static void narrow(IntVector bits, short[] to, int i) {
    ((ShortVector) bits.convertShape(VectorOperators.I2S, SHORTS, 0)).intoArray(to, i);
  }

  private static FloatVector f16ToFloat(IntVector half) {
    IntVector sign = half.lanewise(VectorOperators.AND, 0x8000).lanewise(VectorOperators.LSHL, 16);
    IntVector rest = half.lanewise(VectorOperators.AND, 0x7fff).lanewise(VectorOperators.LSHL, 13);
    // the exponent's bias is put right by a product, which normalises subnormal numbers too
    IntVector finite = rest.reinterpretAsFloats().mul(0x1p112f).reinterpretAsInts();
    VectorMask<Integer> special = rest.compare(VectorOperators.GE, 0x7c00 << 13);
    IntVector bits = finite.blend(rest.lanewise(VectorOperators.OR, 0x7f800000), special);
    return bits.lanewise(VectorOperators.OR, sign).reinterpretAsFloats();
  }

  private static IntVector floatToF16(FloatVector value) {
    IntVector bits = value.reinterpretAsInts();
    IntVector sign = bits.lanewise(VectorOperators.LSHR, 16).lanewise(VectorOperators.AND, 0x8000);
    IntVector magnitude = bits.lanewise(VectorOperators.AND, 0x7fffffff);
    IntVector even = magnitude.lanewise(VectorOperators.LSHR, 13).lanewise(VectorOperators.AND, 1);
    IntVector half = magnitude.add(even).add(0xfff - 0x38000000).lanewise(VectorOperators.ASHR, 13);
    // Below the smallest normal: adding ½ leaves the multiple of 2⁻²⁴ in the low mantissa bits.
    IntVector subnormal =
        magnitude.reinterpretAsFloats().add(0.5f).reinterpretAsInts().sub(0x3f000000);
    half = half.blend(subnormal, magnitude.compare(VectorOperators.LT, 0x38800000));
    half =
        half.blend(
            IntVector.broadcast(INTS, 0x7c00), magnitude.compare(VectorOperators.GE, 0x47800000));
    half =
        half.blend(
            IntVector.broadcast(INTS, 0x7e00), magnitude.compare(VectorOperators.GT, 0x7f800000));
    return half.lanewise(VectorOperators.OR, sign);
  }

  private static IntVector floatToBf16(FloatVector value) {
    IntVector bits = value.reinterpretAsInts();
    IntVector high = bits.lanewise(VectorOperators.LSHR, 16);
    IntVector rounded =
        bits.add(high.lanewise(VectorOperators.AND, 1))
            .add(0x7fff)
            .lanewise(VectorOperators.LSHR, 16);
    VectorMask<Integer> nan =
        bits.lanewise(VectorOperators.AND, 0x7fffffff).compare(VectorOperators.GT, 0x7f800000);
    return rounded.blend(high.lanewise(VectorOperators.OR, 0x40), nan);
  }
}
