package org.deixis.backend.reference;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Binary;
import org.deixis.backend.Gemm;
import org.deixis.backend.MaskLoss;
import org.deixis.backend.PatchGather;
import org.deixis.backend.Reduction;
import org.deixis.backend.Scope;
import org.deixis.backend.Unary;
import org.deixis.backend.WindowAttention;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Rng;
import org.deixis.core.Shape;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** What neither golden data nor finite differences see: movement, types, strides, edges. */
class ReferenceKernelTest {
  private final Backend backend = Backends.get("reference");
  private final TestArrays arrays = new TestArrays(backend, DType.F64);
  private final Rng rng = new Rng(Long.getLong("test.seed", 5));
  private Scope scope;

  @BeforeEach
  void open() {
    scope = Scope.open();
  }

  @AfterEach
  void close() {
    scope.close();
  }

  private double[] r(int... dims) {
    return TestArrays.gaussian(rng, dims);
  }

  private static double[] values(Array a) {
    return TestArrays.values(a);
  }

  private static double[] numbers(double... values) {
    return values;
  }

  @ParameterizedTest
  @CsvSource({
    "0.1, 0.1124629160182849, 0.8875370839817152",
    "0.5, 0.5204998778130465, 0.4795001221869535",
    "1, 0.8427007929497149, 0.15729920705028513",
    "2.4, 0.999311486103355, 0.0006885138966450789",
    "2.6, 0.9997639655834707, 0.00023603441652934908",
    "5, 0.9999999999984626, 1.5374597944280351e-12",
    "10, 1.0, 2.088487583762545e-45"
  })
  void errorFunction(double x, double erf, double erfc) { // values of the C library
    assertEquals(erf, Erf.erf(x), 3e-16);
    assertEquals(-erf, Erf.erf(-x), 3e-16);
    assertEquals(erfc, Erf.erfc(x), 1e-12 * erfc);
    assertEquals(1 + erf, Erf.erfc(-x), 5e-16);
  }

  @Test
  void registered() {
    assertEquals("reference", backend.name());
    assertTrue(
        Backends.providers().stream().anyMatch(p -> p instanceof ReferenceProvider),
        "announced as a service");
  }

  @Test
  void transferKeepsPositionsAndViews() {
    Array whole = arrays.of(numbers(1, 2, 3, 4, 5, 6), 3, 2);
    ByteBuffer row = ByteBuffer.allocate(32).order(ByteOrder.LITTLE_ENDIAN);
    row.putDouble(0, -1).putDouble(8, 30).putDouble(16, 40).position(8);
    backend.upload(row, whole.slice(1, 2));
    assertEquals(8, row.position());
    assertArrayEquals(numbers(1, 2, 30, 40, 5, 6), values(whole));
    backend.download(whole.slice(2, 3), row);
    assertEquals(5, row.getDouble(8));
    assertEquals(6, row.getDouble(16));
  }

  @ParameterizedTest
  @EnumSource(names = {"F64", "F32", "F16", "BF16", "I64", "I32", "U8"})
  void transpose(DType type) {
    double[] x = new double[24];
    for (int i = 0; i < 24; i++) {
      x[i] = i;
    }
    Array y = arrays.of(type, new double[24], 4, 2, 3);
    backend.transpose(arrays.of(type, x, 2, 3, 4), new int[] {2, 0, 1}, y);
    double[] result = values(y);
    for (int a = 0; a < 2; a++) {
      for (int b = 0; b < 3; b++) {
        for (int c = 0; c < 4; c++) {
          assertEquals(x[(a * 3 + b) * 4 + c], result[(c * 2 + a) * 3 + b]);
        }
      }
    }
  }

  @Test
  void columnsRepeatReduceFill() {
    Array y = arrays.of(numbers(1, 1, 1, 1, 1, 1), 2, 3);
    Array x = arrays.of(numbers(10, 20, 30, 40), 2, 2);
    backend.copyColumns(2, 1, x, 1, 2, y, 2, 3, false);
    assertArrayEquals(numbers(1, 1, 20, 1, 1, 40), values(y));
    backend.copyColumns(2, 2, x, 0, 2, y, 1, 3, true);
    assertArrayEquals(numbers(1, 11, 40, 1, 31, 80), values(y));
    Array repeated = arrays.result(2, 3, 2);
    backend.repeat(2, 3, 2, x, repeated);
    assertArrayEquals(numbers(10, 20, 10, 20, 10, 20, 30, 40, 30, 40, 30, 40), values(repeated));
    Array folded = arrays.result(2, 1);
    backend.reduce(Reduction.SUM, 2, 3, 1, y, folded);
    assertArrayEquals(numbers(52, 112), values(folded));
    backend.reduce(Reduction.MAX, 2, 3, 1, y, folded);
    assertArrayEquals(numbers(40, 80), values(folded));
    Array columns = arrays.result(3);
    backend.reduce(Reduction.MEAN, 1, 2, 3, y, columns);
    assertArrayEquals(numbers(1, 21, 60), values(columns));
    backend.fill(columns.slice(1, 3), -2);
    assertArrayEquals(numbers(1, -2, -2), values(columns));
  }

  @Test
  void broadcasts() {
    double[] a = r(2, 3, 4);
    for (int flags = 0; flags < 8; flags++) {
      boolean o = (flags & 4) != 0;
      boolean m = (flags & 2) != 0;
      boolean n = (flags & 1) != 0;
      int[] dims = {o ? 2 : 1, m ? 3 : 1, n ? 4 : 1};
      double[] b = r(dims);
      for (Binary kind : Binary.values()) {
        Array y = arrays.of(a, 2, 3, 4);
        backend.binary(kind, 2, 3, 4, o, m, n, y, arrays.of(b, dims), y);
        double[] result = values(y);
        for (int i = 0; i < 24; i++) {
          int row = (o ? i / 12 : 0) * dims[1] + (m ? i / 4 % 3 : 0);
          double q = b[row * dims[2] + (n ? i % 4 : 0)];
          double expected =
              switch (kind) {
                case ADD -> a[i] + q;
                case SUB -> a[i] - q;
                case MUL -> a[i] * q;
                case DIV -> a[i] / q;
              };
          assertEquals(expected, result[i]);
        }
      }
    }
  }

  /** Every stride, transpose and factor at once, against the definition by index. */
  @ParameterizedTest
  @CsvSource({"false, false", "false, true", "true, false", "true, true"})
  void gemmWithStrides(boolean transA, boolean transB) {
    Gemm spec =
        new Gemm(2, 3, 4, 5, transA, transB, 0.5f, 0.25f, 7, 8, 6, 40, 0, 20, Activation.RELU);
    double[] a = r(80);
    double[] b = r(50);
    double[] c = r(40);
    Array result = arrays.of(c, 40);
    backend.gemm(spec, arrays.of(a, 80), arrays.of(b, 50), null, null, result);
    double[] expected = c.clone();
    for (int batch = 0; batch < 2; batch++) {
      for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 4; j++) {
          double sum = 0;
          for (int l = 0; l < 5; l++) {
            sum +=
                a[batch * 40 + (transA ? l * 7 + i : i * 7 + l)]
                    * b[transB ? j * 8 + l : l * 8 + j];
          }
          int at = batch * 20 + i * 6 + j;
          expected[at] = Math.max(0, 0.5 * sum) + 0.25 * c[at];
        }
      }
    }
    assertArrayEquals(expected, values(result), 1e-14);
  }

  @Test
  void gemmKeepsTheArgumentOfItsActivation() {
    Gemm spec = Gemm.of(1, 2, 0, false, false).activated(Activation.RELU);
    Array before = arrays.result(1, 2);
    Array c = arrays.result(1, 2);
    Array bias = arrays.of(numbers(-1, 2), 2);
    backend.gemm(
        spec, arrays.of(new double[0], 1, 0), arrays.of(new double[0], 0, 2), bias, before, c);
    assertArrayEquals(numbers(-1, 2), values(before));
    assertArrayEquals(numbers(0, 2), values(c));
  }

  /** Padding, then rolling equals windows over the map that was padded by hand. */
  @Test
  void padFirstIsAWholeFrameWithPaddedRows() {
    WindowAttention spec = new WindowAttention(1, 5, 4, 2, 3, 3, 3, 1, 2, true);
    WindowAttention whole = new WindowAttention(1, 6, 6, 2, 3, 3, 3, 1, 2, false);
    double[] qkv = r(5, 4, 18);
    double[] bias = r(18);
    double[] frame = new double[36 * 18];
    for (int i = 0; i < 36; i++) {
      boolean inside = i / 6 < 5 && i % 6 < 4;
      System.arraycopy(
          inside ? qkv : bias, inside ? (i / 6 * 4 + i % 6) * 18 : 0, frame, i * 18, 18);
    }
    Array table = arrays.of(r(25, 2), 25, 2);
    Array y = arrays.result(1, 5, 4, 6);
    Array lse = arrays.result(1, 4, 2, 9);
    backend.windowAttention(spec, arrays.of(qkv, 1, 5, 4, 18), arrays.of(bias, 18), table, y, lse);
    Array full = arrays.result(1, 6, 6, 6);
    Array fullLse = arrays.result(1, 4, 2, 9);
    backend.windowAttention(whole, arrays.of(frame, 1, 6, 6, 18), null, table, full, fullLse);
    double[] all = values(full);
    double[] expected = new double[5 * 4 * 6];
    for (int i = 0; i < 20; i++) {
      System.arraycopy(all, (i / 4 * 6 + i % 4) * 6, expected, i * 6, 6);
    }
    assertArrayEquals(expected, values(y), 1e-14);
    assertArrayEquals(values(fullLse), values(lse), 1e-14);
  }

  @Test
  void bytesOfAPictureAreNormalisedAndPadded() {
    int h = 5;
    int w = 7;
    double[] bytes = new double[2 * h * w * 3];
    double[] floats = new double[bytes.length];
    for (int i = 0; i < bytes.length; i++) {
      bytes[i] = rng.nextInt(256);
      int c = i % 3;
      int pixel = i / 3 % (h * w);
      floats[(i / (3 * h * w) * 3 + c) * h * w + pixel] =
          (bytes[i] / 255 - PatchGather.IMAGENET_MEAN[c]) / PatchGather.IMAGENET_STD[c];
    }
    PatchGather spec =
        new PatchGather(2, h, w, 4, PatchGather.IMAGENET_MEAN, PatchGather.IMAGENET_STD);
    Array fromBytes = arrays.result(2, 2, 2, 48);
    Array fromFloats = arrays.result(2, 2, 2, 48);
    backend.patchGather(spec, arrays.of(DType.U8, bytes, 2, h, w, 3), fromBytes);
    backend.patchGather(spec, arrays.of(floats, 2, 3, h, w), fromFloats);
    assertArrayEquals(values(fromFloats), values(fromBytes), 1e-15);
    // Patch (1, 1) of the first picture holds row 4 of columns 4 to 6, then only padding.
    double[] patch = Arrays.copyOfRange(values(fromFloats), 3 * 48, 4 * 48);
    assertEquals(floats[4 * w + 6], patch[2]);
    assertEquals(0, patch[3]);
    assertEquals(0, patch[4]);
  }

  @Test
  void poolingOfBytesAndAccumulatingResize() {
    Array bits = arrays.of(DType.U8, numbers(1, 0, 0, 200, 1, 1, 0, 0), 1, 2, 4);
    Array y = arrays.result(1, 2);
    backend.regionPool(1, 2, 4, 1, 2, bits, y);
    assertArrayEquals(numbers(0.75, 50), values(y), 1e-14);
    Array sum = arrays.of(numbers(1, 2, 3, 4), 1, 1, 4, 1);
    backend.resize(1, 1, 2, 1, 1, 4, true, arrays.of(numbers(0, 4), 1, 1, 2, 1), sum);
    assertArrayEquals(numbers(1, 3, 6, 8), values(sum));
  }

  /**
   * BCE plus weighted Dice at full resolution, from the formula, over separately resized logits.
   */
  @Test
  void maskLossIsMeanCrossEntropyPlusDice() {
    double[] low = r(1, 3, 2);
    double[] t = new double[35];
    for (int i = 0; i < t.length; i++) {
      t[i] = rng.nextInt(2);
    }
    Array z = arrays.result(1, 5, 7, 1);
    backend.resize(1, 3, 2, 1, 5, 7, false, arrays.of(low, 1, 3, 2, 1), z);
    double[] logits = values(z);
    double bce = 0;
    double p = 0;
    double pt = 0;
    for (int i = 0; i < t.length; i++) {
      double share = 1 / (1 + Math.exp(-logits[i]));
      bce -= Math.log(t[i] == 1 ? share : 1 - share) / t.length;
      p += share;
      pt += share * t[i];
    }
    double sumT = Arrays.stream(t).sum();
    Array loss = arrays.result(1);
    MaskLoss spec = new MaskLoss(1, 3, 2, 5, 7, false, 0, 0, 0.5f);
    backend.maskLoss(spec, arrays.of(low, 1, 3, 2), arrays.of(DType.U8, t, 1, 5, 7), loss, null);
    double expected = bce + 0.5 * (1 - (2 * pt + 1) / (p + sumT + 1));
    assertEquals(expected, values(loss)[0], 1e-13);
  }

  /** Huge logits must not overflow: the loss is the logit itself, or nothing. */
  @Test
  void lossesOfHugeLogits() {
    Array x = arrays.of(numbers(800, 800, -800, -800), 4);
    Array t = arrays.of(numbers(1, 0, 1, 0), 4);
    Array loss = arrays.result(4);
    Array dx = arrays.result(4);
    backend.binaryLoss(false, 0, 0, x, t, loss, dx);
    assertArrayEquals(numbers(0, 800, 800, 0), values(loss));
    assertArrayEquals(numbers(0, 1, -1, 0), values(dx));
    backend.binaryLoss(true, 0.25f, 0.5f, x, t, loss, dx);
    assertArrayEquals(numbers(0, 200, 200, 0), values(loss));
    assertArrayEquals(numbers(0, 0.25, -0.25, 0), values(dx));
  }

  @ParameterizedTest
  @CsvSource({"1, 0", "1, 7", "5, 3"})
  void dropoutDrawsFromPhilox(int block, int offset) {
    int n = 200;
    double[] x = r(n);
    Array y = arrays.of(x, n);
    Array state = arrays.of(DType.I64, numbers(42, 9), 2);
    backend.dropout(0.3, block, offset, state, y, y);
    Rng draws = new Rng(42, 9, offset);
    double[] expected = new double[n];
    int dropped = 0;
    for (int start = 0; start < n; start += block) {
      boolean kept = draws.nextFloat() >= 0.3;
      dropped += kept ? 0 : 1;
      for (int i = start; i < Math.min(n, start + block); i++) {
        expected[i] = kept ? x[i] / 0.7 : 0;
      }
    }
    assertArrayEquals(expected, values(y), 1e-15);
    assertTrue(dropped > 0 && dropped < n / block);
    backend.dropout(1, 1, 0, state, y, y);
    assertArrayEquals(new double[n], values(y));
  }

  /** The nearest 16-bit number by exact decimal arithmetic, ties to the even one. */
  private static double nearest(DType type, double value) {
    short guess = Half.fromFloat(type, (float) value);
    double best = 0;
    BigDecimal distance = null;
    for (int step = -1; step <= 1; step++) {
      short bits = (short) (guess + step);
      float candidate = Half.toFloat(type, bits);
      BigDecimal d = new BigDecimal(candidate).subtract(new BigDecimal(value)).abs();
      int order = distance == null ? -1 : d.compareTo(distance);
      if (order < 0 || order == 0 && (bits & 1) == 0) {
        best = candidate;
        distance = d;
      }
    }
    return best;
  }

  /** Storing a double in 16 bits rounds once, not twice over float. */
  @ParameterizedTest
  @EnumSource(names = {"F16", "BF16"})
  void halvesRoundOnce(DType type) {
    double ulp = type == DType.F16 ? 0x1p-10 : 0x1p-7;
    double[] x = r(100);
    x[0] = 1 + ulp / 2 + 1e-12; // over float a tie, which goes to 1
    x[1] = -(1 + 1.5 * ulp - 1e-12); // over float a tie, which goes to -(1 + 2 ulp)
    x[2] = 1 + ulp / 2;
    Array y = arrays.of(type, new double[100], 100);
    backend.copy(arrays.of(x, 100), y);
    double[] result = values(y);
    assertEquals(1 + ulp, result[0]);
    assertEquals(-(1 + ulp), result[1]);
    assertEquals(1, result[2]);
    for (int i = 0; i < 100; i++) {
      assertEquals(nearest(type, x[i]), result[i]);
    }
  }

  /** With half inputs a kernel gives the exact result, rounded once. */
  @ParameterizedTest
  @EnumSource(names = {"F32", "F16", "BF16"})
  void otherTypesAreTheDoubleResultRounded(DType type) {
    TestArrays narrow = new TestArrays(backend, type);
    Array x = narrow.of(r(4, 6), 4, 6);
    Array gamma = narrow.of(r(6), 6);
    Array stats = arrays.of(DType.F32, new double[8], 4, 2);
    Array y = narrow.result(4, 6);
    backend.layerNorm(4, 6, 1e-5, x, null, gamma, gamma, null, y, stats);
    Array wide = arrays.of(values(x), 4, 6);
    Array wideGamma = arrays.of(values(gamma), 6);
    Array exact = arrays.result(4, 6);
    Array exactStats = arrays.result(4, 2);
    backend.layerNorm(4, 6, 1e-5, wide, null, wideGamma, wideGamma, null, exact, exactStats);
    Array rounded = narrow.result(4, 6);
    backend.copy(exact, rounded);
    assertArrayEquals(values(rounded), values(y));
    assertTrue(TestArrays.distance(values(exactStats), values(stats)) < 1e-7);
    Array gelu = narrow.result(4, 6);
    backend.unary(Unary.GELU, x, gelu);
    backend.unary(Unary.GELU, wide, exact);
    backend.copy(exact, rounded);
    assertArrayEquals(values(rounded), values(gelu));
  }

  @Test
  void emptyArrays() {
    Array none = arrays.of(new double[0], 0, 5);
    backend.softmax(0, 5, none, none);
    backend.unary(Unary.EXP, none, none);
    backend.axpby(1, none, 1, none);
    Array sums = arrays.result(5);
    backend.reduce(Reduction.SUM, 1, 0, 5, none, sums);
    assertArrayEquals(new double[5], values(sums));
    backend.fill(sums, 7);
    Array stats = arrays.of(new double[0], 0, 2);
    Array dBeta = arrays.result(5);
    backend.layerNormBackward(0, 5, none, dBeta, stats, none, null, none, sums, dBeta);
    assertArrayEquals(new double[5], values(sums));
    assertArrayEquals(new double[5], values(dBeta));
    Array loss = arrays.result(1);
    backend.crossEntropy(0, 5, none, arrays.ints(new long[0], 0), null, loss, null);
    assertEquals(0, values(loss)[0]);
    Array table = arrays.result(2, 5);
    backend.embeddingBackward(arrays.ints(new long[0], 0), none, table);
    assertArrayEquals(new double[10], values(table));
    assertEquals(0, Shape.of(0, 5).size());
  }
}
