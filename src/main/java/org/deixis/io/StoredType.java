package org.deixis.io;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.deixis.core.DType;

/**
 * Element types as files hold them, all that safetensors knows among them. The engine has no
 * unsigned types wider than a byte and no eight-bit floats; those are read as the next type that
 * holds all their values. What no type of the engine holds in an element of its own, complex
 * numbers and floats of less than a byte, is listed and not read.
 */
enum StoredType {
  F64(64, DType.F64),
  F32(32, DType.F32),
  F16(16, DType.F16),
  BF16(16, DType.BF16),
  I64(64, DType.I64),
  I32(32, DType.I32),
  I16(16, DType.I16),
  I8(8, DType.I8),
  U8(8, DType.U8),
  BOOL(8, DType.BOOL),
  /** Read as I32. */
  U16(16, DType.I32),
  /** Read as I64. */
  U32(32, DType.I64),
  /** Read as I64; a value of 2^63 and more is refused. */
  U64(64, DType.I64),
  /** One sign bit, four of exponent, three of mantissa, no infinities; read as F16, exactly. */
  F8_E4M3(8, DType.F16),
  /** The upper byte of an F16; read as F16. */
  F8_E5M2(8, DType.F16),
  /** As E4M3, half as large, and what would be -0 is the only NaN; read as F16, exactly. */
  F8_E4M3FNUZ(8, DType.F16),
  /** As E5M2, half as large, and what would be -0 is the only NaN; read as F16, exactly. */
  F8_E5M2FNUZ(8, DType.F16),
  /** An exponent alone, a scale of 2^-127 to 2^127; read as F32, exactly. */
  F8_E8M0(8, DType.F32),
  /** Two F32, listed only. */
  C64(64, null),
  /** Listed only, as the next ones. */
  F6_E2M3(6, null),
  F6_E3M2(6, null),
  F4(4, null);

  private static final byte NEGATIVE_ZERO = (byte) 0x80;

  private final int bits;
  private final DType dtype;

  StoredType(int bits, DType dtype) {
    this.bits = bits;
    this.dtype = dtype;
  }

  /** Bits of an element in the file. */
  int bits() {
    return bits;
  }

  /** Bytes of an element in the file, of a type that is read. */
  int bytes() {
    return bits / 8;
  }

  /** What it is read as, or null when it is listed only. */
  DType dtype() {
    return dtype;
  }

  /** Whether the file's bytes are the engine's. */
  boolean same() {
    return ordinal() <= BOOL.ordinal();
  }

  /** The type of that safetensors name, or null. */
  static StoredType ofSafetensors(String name) {
    for (StoredType t : values()) {
      if (t.name().equals(name)) {
        return t;
      }
    }
    return null;
  }

  /** The type of a NumPy name without its byte order, "f4", or null. */
  static StoredType ofNumpy(String name) {
    return switch (name) {
      case "f8" -> F64;
      case "f4" -> F32;
      case "f2" -> F16;
      case "i8" -> I64;
      case "i4" -> I32;
      case "i2" -> I16;
      case "i1" -> I8;
      case "u1" -> U8;
      case "b1" -> BOOL;
      case "u2" -> U16;
      case "u4" -> U32;
      case "u8" -> U64;
      default -> null;
    };
  }

  /** The type of {@code torch.NAME} as a dtype or as a storage class, or null. */
  static StoredType ofTorch(String name) {
    return switch (name) {
      case "DoubleStorage", "float64", "double" -> F64;
      case "FloatStorage", "float32", "float" -> F32;
      case "HalfStorage", "float16", "half" -> F16;
      case "BFloat16Storage", "bfloat16" -> BF16;
      case "LongStorage", "int64", "long" -> I64;
      case "IntStorage", "int32", "int" -> I32;
      case "ShortStorage", "int16", "short" -> I16;
      case "CharStorage", "int8" -> I8;
      case "ByteStorage", "uint8" -> U8;
      case "BoolStorage", "bool" -> BOOL;
      case "uint16" -> U16;
      case "uint32" -> U32;
      case "uint64" -> U64;
      case "float8_e4m3fn" -> F8_E4M3;
      case "float8_e5m2" -> F8_E5M2;
      case "float8_e4m3fnuz" -> F8_E4M3FNUZ;
      case "float8_e5m2fnuz" -> F8_E5M2FNUZ;
      case "float8_e8m0fnu" -> F8_E8M0;
      default -> null;
    };
  }

  /**
   * Elements of this type as {@link #dtype}.
   *
   * @param in {@code count} elements, little-endian
   * @throws ArithmeticException for a U64 of 2^63 and more
   */
  ByteBuffer widen(ByteBuffer in, int count) {
    ByteBuffer out =
        ByteBuffer.allocate(Math.multiplyExact(count, dtype.bytes()))
            .order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < count; i++) {
      switch (this) {
        case U16 -> out.putInt(in.getShort() & 0xffff);
        case U32 -> out.putLong(in.getInt() & 0xffffffffL);
        case U64 -> {
          long value = in.getLong();
          if (value < 0) {
            throw new ArithmeticException(Long.toUnsignedString(value));
          }
          out.putLong(value);
        }
        case F8_E4M3 -> {
          byte bits8 = in.get();
          out.putShort((bits8 & 0x7f) == 0x7f ? nan(bits8) : e4m3(bits8, 7));
        }
        case F8_E4M3FNUZ -> {
          byte bits8 = in.get();
          out.putShort(bits8 == NEGATIVE_ZERO ? nan(bits8) : e4m3(bits8, 8));
        }
        case F8_E5M2 -> out.putShort((short) (in.get() << 8));
        case F8_E5M2FNUZ -> {
          byte bits8 = in.get();
          out.putShort(bits8 == NEGATIVE_ZERO ? nan(bits8) : halfOfE5m2(bits8));
        }
        case F8_E8M0 -> out.putInt(e8m0(in.get() & 0xff));
        default -> throw new AssertionError(this);
      }
    }
    return out.flip();
  }

  private static short nan(byte bits) {
    return (short) ((bits & 0x80) << 8 | 0x7e00);
  }

  /**
   * @param bias of the exponent, 7 or 8; every value is normal in fp16 then
   */
  private static short e4m3(byte bits, int bias) {
    int sign = (bits & 0x80) << 8;
    int exponent = bits >> 3 & 0xf;
    int mantissa = bits & 7;
    if (exponent == 0) {
      if (mantissa == 0) {
        return (short) sign;
      }
      // Subnormal, mantissa * 2^(-2 - bias).
      int shift = Integer.numberOfLeadingZeros(mantissa) - 28;
      return (short) (sign | (16 - bias - shift) << 10 | (mantissa << shift & 7) << 7);
    }
    return (short) (sign | exponent + 15 - bias << 10 | mantissa << 7);
  }

  /** Half of the E5M2 float of these bits, which fp16 holds with its longer subnormals. */
  private static short halfOfE5m2(byte bits) {
    int sign = (bits & 0x80) << 8;
    int magnitude = bits & 0x7f;
    int half = magnitude < 8 ? magnitude << 7 : (magnitude << 8) - (1 << 10);
    return (short) (sign | half);
  }

  /** The bits of the F32 2^(exponent - 127). */
  private static int e8m0(int exponent) {
    return exponent == 255 ? 0x7fc00000 : exponent == 0 ? 1 << 22 : exponent << 23;
  }
}
