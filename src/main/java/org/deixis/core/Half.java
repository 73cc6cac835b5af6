package org.deixis.core;

/**
 * Conversions between float and the two 16-bit formats, rounding to nearest even (IEEE 754-2019,
 * section 4.3.1).
 */
public final class Half {
  private Half() {}

  /** The value of a DType's 16 bits as a float. */
  public static float toFloat(DType type, short bits) {
    return type == DType.BF16 ? bf16ToFloat(bits) : f16ToFloat(bits);
  }

  /**
   * The 16 bits of {@code type} nearest to {@code value}; fp16 overflows to infinity beyond 65,504.
   */
  public static short fromFloat(DType type, float value) {
    return type == DType.BF16 ? floatToBf16(value) : floatToF16(value);
  }

  public static float bf16ToFloat(short bits) {
    return Float.intBitsToFloat(bits << 16);
  }

  public static short floatToBf16(float value) {
    int bits = Float.floatToRawIntBits(value);
    if (value != value) {
      return (short) ((bits >>> 16) | 0x40);
    }
    return (short) ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
  }

  public static float f16ToFloat(short half) {
    int sign = (half & 0x8000) << 16;
    int exponent = (half >>> 10) & 0x1f;
    int mantissa = half & 0x3ff;
    if (exponent == 0x1f) {
      return Float.intBitsToFloat(sign | 0x7f800000 | (mantissa << 13));
    }
    if (exponent != 0) {
      return Float.intBitsToFloat(sign | ((exponent + 112) << 23) | (mantissa << 13));
    }
    float subnormal = mantissa * 0x1p-24f;
    return sign == 0 ? subnormal : -subnormal;
  }

  public static short floatToF16(float value) {
    int bits = Float.floatToRawIntBits(value);
    int sign = (bits >>> 16) & 0x8000;
    int magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) {
      return (short) (sign | 0x7e00);
    }
    if (magnitude >= 0x47800000) { // 65,536 and above
      return (short) (sign | 0x7c00);
    }
    if (magnitude
        < 0x38800000) { // below the smallest normal, 2^-14: round(|v| / 2^-24), ties to even
      return (short) (sign | (int) Math.rint(Float.intBitsToFloat(magnitude) * 0x1p24));
    }
    int rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
    return (short) (sign | ((rounded - 0x38000000) >>> 13));
  }
}
