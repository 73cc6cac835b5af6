package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.ShortBuffer;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.bytedeco.dnnl.dnnl_memory_desc;
import org.bytedeco.dnnl.dnnl_primitive_desc;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.core.DType;
import org.deixis.core.Half;

/**
 * Conversions between floating types, rounding to nearest even. bfloat16 is oneDNN's; its binary16
 * takes 17 to 30 ns an element where the processor lacks avx512_fp16, so that one is ours.
 */
final class Conversion {
  private static final VectorSpecies<Integer> INTS = IntVector.SPECIES_PREFERRED;
  private static final VectorSpecies<Float> FLOATS = FloatVector.SPECIES_PREFERRED;
  private static final VectorSpecies<Short> SHORTS =
      VectorSpecies.of(
          short.class, jdk.incubator.vector.VectorShape.forBitSize(INTS.vectorBitSize() / 2));

  private Conversion() {}

  /** y[i] = x[i] for i in [first, first + n), on the calling thread. */
  static void convert(Array x, Array y, long first, long n) {
    DType from = x.dtype();
    DType to = y.dtype();
    if (!from.isFloating() || !to.isFloating()) {
      throw new IllegalStateException("no conversion from " + x + " to " + y);
    }
    if (from != DType.F64 && to != DType.F64 && from != DType.F16 && to != DType.F16) {
      reorder(
          Dnnl.here(),
          from,
          to,
          n,
          Native.address(x) + first * from.bytes(),
          Native.address(y) + first * to.bytes());
      return;
    }
    int startX = Math.toIntExact(x.offset() + first);
    int startY = Math.toIntExact(y.offset() + first);
    if (to == DType.F64) {
      DoubleBuffer target = HostBuffer.of(y).doubles();
      for (int i = 0; i < n; i++) {
        target.put(startY + i, read(x, startX + i));
      }
      return;
    }
    Tile tile = Tile.here();
    short[] bits = tile.shorts();
    for (int i = 0; i < n; i += Tile.SIZE) {
      int count = (int) Math.min(Tile.SIZE, n - i);
      load(x, startX + i, count, tile.a, bits);
      store(y, startY + i, count, tile.a, bits);
    }
  }

  private static double read(Array x, int index) {
    HostBuffer buffer = HostBuffer.of(x);
    return x.dtype() == DType.F32
        ? buffer.floats().get(index)
        : Half.toFloat(x.dtype(), buffer.shorts().get(index));
  }

  private static void load(Array x, int start, int n, float[] values, short[] bits) {
    HostBuffer buffer = HostBuffer.of(x);
    switch (x.dtype()) {
      case F32 -> buffer.floats().get(start, values, 0, n);
      case F64 -> {
        DoubleBuffer doubles = buffer.doubles();
        for (int i = 0; i < n; i++) {
          values[i] = (float) doubles.get(start + i);
        }
      }
      case F16 -> {
        buffer.shorts().get(start, bits, 0, n);
        toFloats(bits, values, n);
      }
      default -> {
        ShortBuffer shorts = buffer.shorts();
        for (int i = 0; i < n; i++) {
          values[i] = Half.bf16ToFloat(shorts.get(start + i));
        }
      }
    }
  }

  private static void store(Array y, int start, int n, float[] values, short[] bits) {
    HostBuffer buffer = HostBuffer.of(y);
    switch (y.dtype()) {
      case F32 -> {
        FloatBuffer floats = buffer.floats();
        floats.put(start, values, 0, n);
      }
      case F16 -> {
        fromFloats(values, bits, n);
        buffer.shorts().put(start, bits, 0, n);
      }
      default -> {
        ShortBuffer shorts = buffer.shorts();
        for (int i = 0; i < n; i++) {
          shorts.put(start + i, Half.floatToBf16(values[i]));
        }
      }
    }
  }

  /** Values of binary16 bits. */
  static void toFloats(short[] bits, float[] values, int n) {
    int i = 0;
    for (; i <= n - INTS.length(); i += INTS.length()) {
      IntVector h =
          (IntVector)
              ShortVector.fromArray(SHORTS, bits, i).convertShape(VectorOperators.S2I, INTS, 0);
      IntVector magnitude = h.and(0x7fff).lanewise(VectorOperators.LSHL, 13);
      // Scaling moves the exponent's bias and makes subnormals normal in one exact step.
      FloatVector scaled = magnitude.reinterpretAsFloats().mul(0x1p112f);
      IntVector result = scaled.reinterpretAsInts();
      VectorMask<Integer> special = magnitude.compare(VectorOperators.GE, 0x1f << 23);
      result = result.blend(magnitude.or(0x7f800000), special);
      result
          .or(h.and(0x8000).lanewise(VectorOperators.LSHL, 16))
          .reinterpretAsFloats()
          .intoArray(values, i);
    }
    for (; i < n; i++) {
      values[i] = Half.f16ToFloat(bits[i]);
    }
  }

  /** Binary16 bits nearest to the values, ties to even; beyond 65,504 infinity. */
  static void fromFloats(float[] values, short[] bits, int n) {
    int i = 0;
    for (; i <= n - INTS.length(); i += INTS.length()) {
      IntVector v = FloatVector.fromArray(FLOATS, values, i).reinterpretAsInts();
      IntVector sign = v.lanewise(VectorOperators.LSHR, 16).and(0x8000);
      IntVector magnitude = v.and(0x7fffffff);
      IntVector odd = magnitude.lanewise(VectorOperators.LSHR, 13).and(1);
      IntVector normal =
          magnitude.add(0xfff - 0x38000000).add(odd).lanewise(VectorOperators.LSHR, 13);
      // Adding 0.5 leaves a subnormal's rounded bits at the end of the fraction.
      IntVector subnormal =
          magnitude.reinterpretAsFloats().add(0.5f).reinterpretAsInts().sub(0x3f000000);
      IntVector result = normal.blend(subnormal, magnitude.compare(VectorOperators.LT, 0x38800000));
      result = result.blend(0x7c00, magnitude.compare(VectorOperators.GE, 0x47800000));
      result = result.blend(0x7e00, magnitude.compare(VectorOperators.GT, 0x7f800000));
      ((ShortVector) result.or(sign).convertShape(VectorOperators.I2S, SHORTS, 0))
          .intoArray(bits, i);
    }
    for (; i < n; i++) {
      bits[i] = Half.floatToF16(values[i]);
    }
  }

  /** n elements at raw addresses; neither type is F16 or F64. */
  static void reorder(Dnnl d, DType from, DType to, long n, long x, long y) {
    d.key(Dnnl.CONVERT).add(from.ordinal()).add(to.ordinal()).add(n);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        long[] dims = {n};
        long[] strides = {1};
        dnnl_memory_desc source = builder.strided(DnnlBuilder.type(from), dims, strides);
        dnnl_memory_desc target = builder.strided(DnnlBuilder.type(to), dims, strides);
        dnnl_primitive_desc pd = builder.descriptor();
        Dnnl.check(
            dnnl_reorder_primitive_desc_create(
                pd, source, Dnnl.engine(), target, Dnnl.engine(), builder.attributes()),
            "conversion");
        kernel = builder.argument(DNNL_ARG_FROM, source).argument(DNNL_ARG_TO, target).build(pd);
      }
    }
    kernel.run(x, y);
  }
}
