package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Rng;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Conversions by vectors against the scalar ones, bit for bit. */
class HalfTileTest {
  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F16", "BF16"})
  void everyHalf(DType type) {
    short[] bits = new short[1 << 16];
    for (int i = 0; i < bits.length; i++) {
      bits[i] = (short) i;
    }
    float[] values = new float[bits.length];
    HalfTile.toFloats(type, bits, bits.length, values);
    for (int i = 0; i < bits.length; i++) {
      assertEquals(
          Float.floatToIntBits(Half.toFloat(type, bits[i])),
          Float.floatToIntBits(values[i]),
          "bits " + i);
    }
  }

  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F16", "BF16"})
  void floats(DType type) {
    Rng rng = new Rng(11);
    int n = 1 << 18;
    float[] values = new float[n];
    for (int i = 0; i < n; i++) {
      // all bit patterns, then the neighbourhood of F16's numbers with its ties
      values[i] =
          i < n / 2
              ? Float.intBitsToFloat(rng.nextInt())
              : Math.scalb(rng.nextInt(0, 1 << 13), rng.nextInt(-40, 6));
    }
    short[] bits = new short[n];
    HalfTile.toHalves(type, values, n, bits);
    for (int i = 0; i < n; i++) {
      assertEquals(Half.fromFloat(type, values[i]), bits[i], "value " + values[i]);
    }
  }
}
