package org.deixis.backend.reference;

import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.backend.Conv2d;
import org.deixis.backend.Unary;
import org.deixis.backend.WindowAttention;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Every backward kernel against central differences of its forward kernel, in double. */
class ReferenceGradientTest extends FiniteDifferences {
  @ParameterizedTest
  @EnumSource(Unary.class)
  void unary(Unary kind) {
    check(
        in -> {
          Array y = arrays.result(40);
          backend.unary(kind, arrays.of(in[0], 40), y);
          return all(y);
        },
        (in, up) -> {
          Array x = arrays.of(in[0], 40);
          Array y = arrays.result(40);
          backend.unary(kind, x, y);
          Array dx = arrays.of(up[0], 40);
          backend.unaryBackward(kind, x, y, dx, dx);
          return all(dx);
        },
        r(40));
  }

  @Test
  void softmax() {
    check(
        in -> {
          Array y = arrays.result(3, 7);
          backend.softmax(3, 7, arrays.of(in[0], 3, 7), y);
          return all(y);
        },
        (in, up) -> {
          Array y = arrays.result(3, 7);
          backend.softmax(3, 7, arrays.of(in[0], 3, 7), y);
          Array dx = arrays.of(up[0], 3, 7);
          backend.softmaxBackward(3, 7, y, dx, dx);
          return all(dx);
        },
        r(3, 7));
  }

  @Test
  void layerNormWithResidualWhoseStreamGoesOn() {
    int rows = 4;
    int columns = 6;
    check(
        in -> {
          Array sum = arrays.result(rows, columns);
          Array y = arrays.result(rows, columns);
          backend.layerNorm(
              rows,
              columns,
              1e-5,
              arrays.of(in[0], rows, columns),
              arrays.of(in[1], rows, columns),
              arrays.of(in[2], columns),
              arrays.of(in[3], columns),
              sum,
              y,
              arrays.result(rows, 2));
          return all(y, sum);
        },
        (in, up) -> {
          Array gamma = arrays.of(in[2], columns);
          Array sum = arrays.result(rows, columns);
          Array stats = arrays.result(rows, 2);
          backend.layerNorm(
              rows,
              columns,
              1e-5,
              arrays.of(in[0], rows, columns),
              arrays.of(in[1], rows, columns),
              gamma,
              arrays.of(in[3], columns),
              sum,
              arrays.result(rows, columns),
              stats);
          Array dx = arrays.result(rows, columns);
          Array dGamma = arrays.result(columns);
          Array dBeta = arrays.result(columns);
          Array dy = arrays.of(up[0], rows, columns);
          Array extra = arrays.of(up[1], rows, columns);
          backend.layerNormBackward(rows, columns, sum, gamma, stats, dy, extra, dx, dGamma, dBeta);
          return all(dx, dx, dGamma, dBeta);
        },
        r(rows, columns),
        r(rows, columns),
        r(columns),
        r(columns));
  }

  @Test
  void layerNormWithoutAffine() {
    check(
        in -> {
          Array y = arrays.result(3, 5);
          Array x = arrays.of(in[0], 3, 5);
          backend.layerNorm(3, 5, 1e-5, x, null, null, null, null, y, arrays.result(3, 2));
          return all(y);
        },
        (in, up) -> {
          Array x = arrays.of(in[0], 3, 5);
          Array stats = arrays.result(3, 2);
          Array dx = arrays.result(3, 5);
          backend.layerNorm(3, 5, 1e-5, x, null, null, null, null, arrays.result(3, 5), stats);
          Array dy = arrays.of(up[0], 3, 5);
          backend.layerNormBackward(3, 5, x, null, stats, dy, null, dx, null, null);
          return all(dx);
        },
        r(3, 5));
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void groupNorm(boolean affine) {
    int b = 2;
    int pixels = 5;
    int c = 6;
    int groups = 3;
    Forward forward =
        in -> {
          Array y = arrays.result(b, pixels, c);
          backend.groupNorm(
              b,
              pixels,
              c,
              groups,
              1e-5,
              arrays.of(in[0], b, pixels, c),
              affine ? arrays.of(in[1], c) : null,
              affine ? arrays.of(in[2], c) : null,
              y,
              arrays.result(b, groups, 2));
          return all(y);
        };
    Backward backward =
        (in, up) -> {
          Array x = arrays.of(in[0], b, pixels, c);
          Array gamma = affine ? arrays.of(in[1], c) : null;
          Array beta = affine ? arrays.of(in[2], c) : null;
          Array stats = arrays.result(b, groups, 2);
          Array y = arrays.result(b, pixels, c);
          backend.groupNorm(b, pixels, c, groups, 1e-5, x, gamma, beta, y, stats);
          Array dy = arrays.of(up[0], b, pixels, c);
          Array dx = arrays.result(b, pixels, c);
          Array dGamma = affine ? arrays.result(c) : null;
          Array dBeta = affine ? arrays.result(c) : null;
          backend.groupNormBackward(b, pixels, c, groups, x, gamma, stats, dy, dx, dGamma, dBeta);
          return affine ? all(dx, dGamma, dBeta) : all(dx);
        };
    if (affine) {
      check(forward, backward, r(b, pixels, c), r(c), r(c));
    } else {
      check(forward, backward, r(b, pixels, c));
    }
  }

  @ParameterizedTest
  @CsvSource({"5, 6, 3, 1, 1", "7, 5, 3, 2, 1", "6, 8, 2, 2, 0"})
  void conv2d(int height, int width, int kernel, int stride, int padding) {
    Conv2d spec = new Conv2d(2, height, width, 3, 4, kernel, stride, padding);
    int[] xDims = {2, height, width, 3};
    int[] wDims = {4, 3, kernel, kernel};
    int[] yDims = {2, spec.outHeight(), spec.outWidth(), 4};
    check(
        in -> {
          Array y = arrays.result(yDims);
          backend.conv2d(spec, arrays.of(in[0], xDims), arrays.of(in[1], wDims), null, y);
          return all(y);
        },
        (in, up) -> {
          Array dx = arrays.result(xDims);
          Array dw = arrays.result(wDims);
          Array dy = arrays.of(up[0], yDims);
          backend.conv2dBackwardData(spec, arrays.of(in[1], wDims), dy, dx);
          backend.conv2dBackwardWeight(spec, arrays.of(in[0], xDims), dy, dw);
          return all(dx, dw);
        },
        r(xDims),
        r(wDims));
  }

  @ParameterizedTest
  @CsvSource({
    "4, 6, 2, 3, 0, 0, false", // whole windows, rectangular
    "4, 4, 2, 2, 1, 1, false", // shifted
    "5, 4, 3, 2, 1, 1, false", // padded (roll, then pad), shifted
    "5, 4, 3, 2, 1, 1, true", // padded (pad, then roll), shifted
    "4, 5, 3, 3, 0, 0, false", // padded
    "3, 5, 3, 2, 0, 1, true" // one axis shifted
  })
  void windowAttention(
      int height, int width, int windowH, int windowW, int shiftH, int shiftW, boolean padFirst) {
    int heads = 2;
    int d = 2;
    WindowAttention spec =
        new WindowAttention(2, height, width, heads, d, windowH, windowW, shiftH, shiftW, padFirst);
    int c = heads * d;
    int[] qkvDims = {2, height, width, 3 * c};
    int[] tableDims = {(2 * windowH - 1) * (2 * windowW - 1), heads};
    int[] yDims = {2, height, width, c};
    boolean padded = spec.frameHeight() != height || spec.frameWidth() != width;
    int[] lseDims = {2, spec.windows(), heads, windowH * windowW};
    Forward forward =
        in -> {
          Array y = arrays.result(yDims);
          backend.windowAttention(
              spec,
              arrays.of(in[0], qkvDims),
              padded ? arrays.of(in[2], 3 * c) : null,
              arrays.of(in[1], tableDims),
              y,
              null);
          return all(y);
        };
    Backward backward =
        (in, up) -> {
          Array qkv = arrays.of(in[0], qkvDims);
          Array table = arrays.of(in[1], tableDims);
          Array bias = padded ? arrays.of(in[2], 3 * c) : null;
          Array y = arrays.result(yDims);
          Array lse = arrays.result(lseDims);
          backend.windowAttention(spec, qkv, bias, table, y, lse);
          Array dqkv = arrays.result(qkvDims);
          Array dTable = arrays.result(tableDims);
          Array dBias = padded ? arrays.result(3 * c) : null;
          Array dy = arrays.of(up[0], yDims);
          backend.windowAttentionBackward(spec, qkv, bias, table, y, lse, dy, dqkv, dBias, dTable);
          return padded ? all(dqkv, dTable, dBias) : all(dqkv, dTable);
        };
    if (padded) {
      check(forward, backward, r(qkvDims), r(tableDims), r(3 * c));
    } else {
      check(forward, backward, r(qkvDims), r(tableDims));
    }
  }

  @Test
  void selfAttentionOverPackedProjection() {
    Attention spec = Attention.self(2, 2, 4, 3);
    int[] packed = {2, 4, 18};
    int[] yDims = {2, 4, 6};
    check(
        in -> {
          Array qkv = arrays.of(in[0], packed);
          Array y = arrays.result(yDims);
          backend.attention(spec, qkv, qkv, qkv, null, y, null);
          return all(y);
        },
        (in, up) -> {
          Array qkv = arrays.of(in[0], packed);
          Array y = arrays.result(yDims);
          Array lse = arrays.result(2, 2, 4);
          backend.attention(spec, qkv, qkv, qkv, null, y, lse);
          Array d = arrays.result(packed);
          Array dy = arrays.of(up[0], yDims);
          backend.attentionBackward(spec, qkv, qkv, qkv, null, y, lse, dy, d, d, d);
          return all(d);
        },
        r(packed));
  }

  @Test
  void crossAttentionWithPadding() {
    Attention spec = Attention.cross(2, 2, 3, 5, 3);
    int[] qDims = {2, 3, 6};
    int[] kvDims = {2, 5, 12};
    long[] mask = {1, 1, 0, 0, 0, 1, 1, 1, 1, 0};
    check(
        in -> {
          Array kv = arrays.of(in[1], kvDims);
          Array y = arrays.result(qDims);
          Array m = arrays.ints(mask, 2, 5);
          backend.attention(spec, arrays.of(in[0], qDims), kv, kv, m, y, null);
          return all(y);
        },
        (in, up) -> {
          Array q = arrays.of(in[0], qDims);
          Array kv = arrays.of(in[1], kvDims);
          Array m = arrays.ints(mask, 2, 5);
          Array y = arrays.result(qDims);
          Array lse = arrays.result(2, 2, 3);
          backend.attention(spec, q, kv, kv, m, y, lse);
          Array dq = arrays.result(qDims);
          Array dkv = arrays.result(kvDims);
          Array dy = arrays.of(up[0], qDims);
          backend.attentionBackward(spec, q, kv, kv, m, y, lse, dy, dq, dkv, dkv);
          return all(dq, dkv);
        },
        r(qDims),
        r(kvDims));
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void regionAttention(boolean mapUsed) {
    int[] qDims = {2, 3, 4};
    int[] kDims = {2, 7, 4};
    check(
        in -> {
          Array y = arrays.result(qDims);
          Array map = arrays.result(2, 3, 7);
          Array q = arrays.of(in[0], qDims);
          Array k = arrays.of(in[1], kDims);
          backend.regionAttention(2, 3, 7, 4, 0.5f, q, k, arrays.of(in[2], kDims), y, map);
          return mapUsed ? all(y, map) : all(y);
        },
        (in, up) -> {
          Array q = arrays.of(in[0], qDims);
          Array k = arrays.of(in[1], kDims);
          Array v = arrays.of(in[2], kDims);
          Array y = arrays.result(qDims);
          Array map = arrays.result(2, 3, 7);
          backend.regionAttention(2, 3, 7, 4, 0.5f, q, k, v, y, map);
          Array dq = arrays.result(qDims);
          Array dk = arrays.result(kDims);
          Array dv = arrays.result(kDims);
          Array dy = arrays.of(up[0], qDims);
          Array dMap = mapUsed ? arrays.of(up[1], 2, 3, 7) : null;
          backend.regionAttentionBackward(2, 3, 7, 4, 0.5f, q, k, v, map, dy, dMap, dq, dk, dv);
          return all(dq, dk, dv);
        },
        r(qDims),
        r(kDims),
        r(kDims));
  }
}
