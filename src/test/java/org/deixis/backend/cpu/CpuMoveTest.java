package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.Random;
import org.deixis.backend.Array;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Shape;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Moving kernels, bit for bit. */
class CpuMoveTest {
  private static byte[] random(long bytes) {
    byte[] content = new byte[Math.toIntExact(bytes)];
    new Random(Long.getLong("test.seed", 7)).nextBytes(content);
    return content;
  }

  @ParameterizedTest
  @EnumSource
  void transposesAnyTypeBitForBit(DType type) {
    int[][][] cases = {
      {{5}, {0}},
      {{3, 7}, {1, 0}},
      {{1, 1}, {1, 0}},
      {{2, 3, 4}, {2, 0, 1}},
      {{2, 3, 4}, {0, 2, 1}},
      {{4, 1, 5, 3}, {3, 1, 0, 2}},
      {{2, 9, 8, 3}, {0, 3, 1, 2}},
      {{2, 3, 4, 2, 3, 4}, {0, 2, 4, 1, 3, 5}},
      {{131, 257}, {1, 0}},
      {{3, 64, 49}, {1, 2, 0}},
      {{0, 4}, {1, 0}},
    };
    for (int threads : new int[] {1, 3}) {
      try (CpuArrays t = new CpuArrays(threads)) {
        for (int[][] c : cases) {
          int[] dims = c[0];
          int[] permutation = c[1];
          int rank = dims.length;
          int[] to = new int[rank];
          int[] stride = new int[rank];
          for (int i = rank - 1, s = 1; i >= 0; i--) {
            stride[i] = s;
            s *= dims[i];
          }
          for (int i = 0; i < rank; i++) {
            to[i] = dims[permutation[i]];
          }
          int width = type.bytes();
          byte[] content = random(Shape.of(dims).size() * width);
          byte[] expected = new byte[content.length];
          for (int i = 0; i < expected.length / width; i++) {
            int rest = i;
            int from = 0;
            for (int j = rank - 1; j >= 0; j--) {
              from += rest % to[j] * stride[permutation[j]];
              rest /= to[j];
            }
            System.arraycopy(content, from * width, expected, i * width, width);
          }
          Array x = t.raw(type, content, dims);
          Array y = t.raw(type, new byte[content.length], to);
          t.backend.transpose(x, permutation, y);
          assertArrayEquals(expected, t.bytes(y), type + " " + Arrays.toString(dims));
          t.clear();
        }
      }
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void copiesAndAddsColumns(int threads) {
    try (CpuArrays t = new CpuArrays(threads)) {
      int[][] cases = {
        {1, 1, 0, 1, 0, 1}, {7, 3, 2, 9, 1, 5}, {500, 96, 96, 288, 0, 96},
        {5000, 33, 5, 50, 60, 101}, {3, 5000, 0, 5000, 3, 5003}, {0, 4, 0, 4, 0, 4}
      };
      for (int[] c : cases) {
        int rows = c[0];
        int columns = c[1];
        double[] x = t.gaussian(Math.max(1, rows) * c[3]);
        double[] y = t.gaussian(Math.max(1, rows) * c[5]);
        double[] copied = y.clone();
        double[] added = y.clone();
        for (int r = 0; r < rows; r++) {
          for (int j = 0; j < columns; j++) {
            copied[r * c[5] + c[4] + j] = x[r * c[3] + c[2] + j];
            added[r * c[5] + c[4] + j] += x[r * c[3] + c[2] + j];
          }
        }
        Array arrayX = t.of(x, x.length);
        Array to = t.of(y, y.length);
        t.backend.copyColumns(rows, columns, arrayX, c[2], c[3], to, c[4], c[5], false);
        t.check("copy " + Arrays.toString(c), copied, to, 0);
        Array sum = t.of(y, y.length);
        t.backend.copyColumns(rows, columns, arrayX, c[2], c[3], sum, c[4], c[5], true);
        t.check("add " + Arrays.toString(c), added, sum, 1e-7);
        t.clear();
      }
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 3})
  void repeats(int threads) {
    try (CpuArrays t = new CpuArrays(threads)) {
      int[][] cases = {
        {1, 1, 1},
        {3, 4, 1},
        {3, 4, 63},
        {3, 4, 64},
        {1, 5, 10_007},
        {5000, 7, 3},
        {2, 9000, 1},
        {2, 0, 3}
      };
      for (int[] c : cases) {
        double[] x = t.gaussian(c[0] * c[2]);
        double[] y = new double[c[0] * c[1] * c[2]];
        for (int i = 0; i < y.length; i++) {
          y[i] = x[i / c[2] / c[1] * c[2] + i % c[2]];
        }
        Array to = t.empty(c);
        t.backend.repeat(c[0], c[1], c[2], t.of(x, c[0], c[2]), to);
        t.check(Arrays.toString(c), y, to, 0);
        t.clear();
      }
    }
  }

  @ParameterizedTest
  @EnumSource
  void fills(DType type) {
    try (CpuArrays t = new CpuArrays(3)) {
      for (int n : new int[] {0, 1, 5, 4096, 4097, 100_003}) {
        for (double value : new double[] {0, 3, -0.0}) {
          ByteBuffer one = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
          switch (type) {
            case F64 -> one.putDouble(0, value);
            case F32 -> one.putFloat(0, (float) value);
            case F16, BF16 -> one.putShort(0, Half.fromFloat(type, (float) value));
            default -> one.putLong(0, (long) value);
          }
          Array y = t.raw(type, random((long) n * type.bytes()), n);
          t.backend.fill(y, value);
          byte[] got = t.bytes(y);
          for (int i = 0; i < got.length; i++) {
            assertEquals(one.get(i % type.bytes()), got[i], type + " " + n);
          }
          t.clear();
        }
      }
    }
  }

  @Test
  void binary16OfEveryBitPatternAndHardFloats() {
    try (CpuArrays t = new CpuArrays(3)) {
      int n = 1 << 16;
      ByteBuffer bits = ByteBuffer.allocate(2 * n).order(ByteOrder.LITTLE_ENDIAN);
      for (int i = 0; i < n; i++) {
        bits.putShort((short) i);
      }
      Array half = t.raw(DType.F16, bits.array(), n);
      Array wide = t.empty(n);
      t.backend.copy(half, wide);
      double[] got = t.values(wide);
      for (int i = 0; i < n; i++) {
        assertEquals((double) Half.f16ToFloat((short) i), got[i], "bits " + i);
      }
      double[] hard = new double[n];
      for (int i = 0; i < n; i++) {
        // Halfway between neighbours, and a float to either side of it.
        float middle = (Half.f16ToFloat((short) (i & 0xfbff)) + Half.f16ToFloat(next(i))) / 2;
        hard[i] = i % 3 == 0 ? middle : i % 3 == 1 ? Math.nextUp(middle) : Math.nextDown(middle);
      }
      hard[0] = 65_519.996;
      hard[1] = 65_520;
      hard[2] = Double.POSITIVE_INFINITY;
      hard[3] = Double.NaN;
      hard[4] = -1e30;
      hard[5] = 1e-30;
      Array x = t.of(hard, n);
      Array y = t.raw(DType.F16, new byte[2 * n], n);
      t.backend.copy(x, y);
      ByteBuffer result = ByteBuffer.wrap(t.bytes(y)).order(ByteOrder.LITTLE_ENDIAN);
      for (int i = 0; i < n; i++) {
        short expected = Half.floatToF16((float) hard[i]);
        assertEquals(expected, result.getShort(2 * i), "value " + hard[i]);
      }
    }
  }

  private static short next(int i) {
    return (short) ((i & 0xfbff) == 0xfbff ? i : (i & 0xfbff) + 1);
  }

  @Test
  void convertsBetweenTheOtherFloatingTypes() {
    try (CpuArrays t = new CpuArrays(3)) {
      int n = 70_001;
      double[] x = t.gaussian(n);
      Array from = t.of(x, n);
      Array bf16 = t.raw(DType.BF16, new byte[2 * n], n);
      Array f16 = t.raw(DType.F16, new byte[2 * n], n);
      Array f64 = t.raw(DType.F64, new byte[8 * n], n);
      Array back = t.empty(n);
      t.backend.copy(from, bf16);
      t.backend.copy(bf16, back);
      double[] got = t.values(back);
      double[] rounded = new double[n];
      for (int i = 0; i < n; i++) {
        rounded[i] = Half.bf16ToFloat(Half.floatToBf16((float) x[i]));
      }
      assertArrayEquals(rounded, got);
      t.backend.copy(bf16, f16);
      t.backend.copy(f16, f64);
      t.backend.copy(f64, back);
      for (int i = 0; i < n; i++) {
        rounded[i] = Half.f16ToFloat(Half.floatToF16((float) rounded[i]));
      }
      assertArrayEquals(rounded, t.values(back));
      t.backend.copy(f64, bf16);
      t.backend.copy(bf16, back);
      for (int i = 0; i < n; i++) {
        rounded[i] = Half.bf16ToFloat(Half.floatToBf16((float) rounded[i]));
      }
      assertArrayEquals(rounded, t.values(back));
    }
  }
}
