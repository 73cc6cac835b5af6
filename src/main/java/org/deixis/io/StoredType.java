package org.deixis.io;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.deixis.core.DType;

/**
 * Element types as files hold them. The engine has no unsigned types wider than a byte and no
 * eight-bit floats; those are read as the next type that holds all their values.
 */
enum StoredType {
  F64(8, DType.F64),
  F32(4, DType.F32),
  F16(2, DType.F16),
  BF16(2, DType.BF16),
  I64(8, DType.I64),
  I32(4, DType.I32),
  I16(2, DType.I16),
  I8(1, DType.I8),
  U8(1, DType.U8),
  BOOL(1, DType.BOOL),
  /** Read as I32. */
  U16(2, DType.I32),
  /** Read as I64. */
  U32(4, DType.I64),
  /** Read as I64; a value of 2^63 and more is refused. */
  U64(8, DType.I64),
  /** One sign bit, four of exponent, three of mantissa, no infinities; read as F16, exactly. */
  F8_E4M3(1, DType.F16),
  /** The upper byte of an F16; read as F16. */
  F8_E5M2(1, DType.F16);

  private final int bytes;
  private final DType dtype;

  StoredType(int bytes, DType dtype) {
    this.bytes = bytes;
    this.dtype = dtype;
  }

  /** Bytes of an element in the file. */
  int bytes() {
    return bytes;
  }

  /** What it is read as. */
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
        case F8_E4M3 -> out.putShort(e4m3(in.get()));
        case F8_E5M2 -> out.putShort((short) (in.get() << 8));
        default -> throw new AssertionError(this);
      }
    }
    return out.flip();
  }

  private static short e4m3(byte bits) {
    int sign = (bits & 0x80) << 8;
    int exponent = bits >> 3 & 0xf;
    int mantissa = bits & 7;
    if (exponent == 15 && mantissa == 7) {
      return (short) (sign | 0x7e00);
    }
    if (exponent == 0) {
      if (mantissa == 0) {
        return (short) sign;
      }
      // Subnormal, mantissa * 2^-9: every such value is normal in fp16.
      int shift = Integer.numberOfLeadingZeros(mantissa) - 28;
      return (short) (sign | (9 - shift) << 10 | (mantissa << shift & 7) << 7);
    }
    return (short) (sign | exponent + 8 << 10 | mantissa << 7);
  }
}
