package org.deixis.backend.reference;

import org.deixis.backend.Array;
import org.deixis.backend.MaskLoss;
import org.deixis.backend.PatchGather;
import org.deixis.core.DType;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Backward kernels of lookups, geometry, losses and the recurrent cell against central differences.
 */
class ReferenceGeometryGradientTest extends FiniteDifferences {
  @Test
  void embedding() {
    long[] ids = {3, 0, 3, 4, 3, 0};
    check(
        in -> {
          Array y = arrays.result(6, 3);
          backend.embedding(arrays.ints(ids, 6), arrays.of(in[0], 5, 3), y);
          return all(y);
        },
        (in, up) -> {
          Array dTable = arrays.result(5, 3);
          backend.embeddingBackward(arrays.ints(ids, 6), arrays.of(up[0], 6, 3), dTable);
          return all(dTable);
        },
        r(5, 3));
  }

  @ParameterizedTest
  @CsvSource({"4, 8, 4", "5, 7, 2"})
  void patches(int height, int width, int patch) {
    PatchGather spec = new PatchGather(2, height, width, patch, null, null);
    int[] yDims = {2, spec.rows(), spec.columns(), 3 * patch * patch};
    check(
        in -> {
          Array y = arrays.result(yDims);
          backend.patchGather(spec, arrays.of(in[0], 2, 3, height, width), y);
          return all(y);
        },
        (in, up) -> {
          Array dx = arrays.result(2, 3, height, width);
          backend.patchScatter(spec, arrays.of(up[0], yDims), dx);
          return all(dx);
        },
        r(2, 3, height, width));
  }

  @ParameterizedTest
  @CsvSource({"4, 6", "5, 4", "3, 7"})
  void patchMerging(int height, int width) {
    int[] yDims = {2, (height + 1) / 2, (width + 1) / 2, 12};
    check(
        in -> {
          Array y = arrays.result(yDims);
          backend.mergeGather(2, height, width, 3, arrays.of(in[0], 2, height, width, 3), y);
          return all(y);
        },
        (in, up) -> {
          Array dx = arrays.result(2, height, width, 3);
          backend.mergeScatter(2, height, width, 3, arrays.of(up[0], yDims), dx);
          return all(dx);
        },
        r(2, height, width, 3));
  }

  @ParameterizedTest
  @CsvSource({"3, 4, 6, 8", "3, 4, 7, 5", "8, 7, 3, 4", "4, 5, 4, 5", "1, 1, 3, 2"})
  void resize(int height, int width, int outHeight, int outWidth) {
    int c = 2;
    check(
        in -> {
          Array y = arrays.result(2, outHeight, outWidth, c);
          Array x = arrays.of(in[0], 2, height, width, c);
          backend.resize(2, height, width, c, outHeight, outWidth, false, x, y);
          return all(y);
        },
        (in, up) -> {
          Array dx = arrays.result(2, height, width, c);
          Array dy = arrays.of(up[0], 2, outHeight, outWidth, c);
          backend.resizeBackward(2, height, width, c, outHeight, outWidth, dy, dx);
          return all(dx);
        },
        r(2, height, width, c));
  }

  @ParameterizedTest
  @CsvSource({"4, 8, 2, 4", "5, 7, 2, 4"})
  void regionPool(int height, int width, int rows, int columns) {
    check(
        in -> {
          Array y = arrays.result(2, rows * columns);
          backend.regionPool(
              2, height, width, rows, columns, arrays.of(in[0], 2, height, width), y);
          return all(y);
        },
        (in, up) -> {
          Array dx = arrays.result(2, height, width);
          backend.regionPoolBackward(
              2, height, width, rows, columns, arrays.of(up[0], 2, rows * columns), dx);
          return all(dx);
        },
        r(2, height, width));
  }

  private double[] bits(int n) {
    double[] bits = new double[n];
    for (int i = 0; i < n; i++) {
      bits[i] = rng.nextInt(2);
    }
    return bits;
  }

  /** Its gradient is that of each picture's own loss: the upstream gradient scales its rows. */
  private Array scaleRows(Array gradient, double[] up) {
    double[] values = TestArrays.values(gradient);
    int row = values.length / up.length;
    for (int i = 0; i < values.length; i++) {
      values[i] *= up[i / row];
    }
    return arrays.of(values, gradient.shape().dims());
  }

  @ParameterizedTest
  @CsvSource({
    "false, 0, 0, 0, 8, 12", // BCE, up
    "true, 0.25, 2, 0, 8, 12", // focal
    "true, 0.5, 1.5, 0, 7, 5", // focal, odd size
    "false, 0, 0, 1, 8, 12", // BCE and Dice
    "true, 0.25, 2, 0.7, 2, 3" // all, down
  })
  void maskLoss(boolean focal, float alpha, float gamma, float diceWeight, int height, int width) {
    MaskLoss spec = new MaskLoss(3, 4, 5, height, width, focal, alpha, gamma, diceWeight);
    double[] mask = bits(3 * height * width);
    check(
        in -> {
          Array loss = arrays.result(3);
          Array bits = arrays.of(DType.U8, mask, 3, height, width);
          backend.maskLoss(spec, arrays.of(in[0], 3, 4, 5), bits, loss, null);
          return all(loss);
        },
        (in, up) -> {
          Array d = arrays.result(3, 4, 5);
          Array soft = arrays.of(mask, 3, height, width);
          backend.maskLoss(spec, arrays.of(in[0], 3, 4, 5), soft, arrays.result(3), d);
          return all(scaleRows(d, up[0]));
        },
        r(3, 4, 5));
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void binaryLoss(boolean focal) {
    double[] shares = new double[30]; // soft targets, as the regions have
    for (int i = 0; i < shares.length; i++) {
      shares[i] = rng.nextDouble();
    }
    check(
        in -> {
          Array loss = arrays.result(30);
          Array t = arrays.of(shares, 30);
          backend.binaryLoss(focal, 0.25f, 2, arrays.of(in[0], 30), t, loss, null);
          return all(loss);
        },
        (in, up) -> {
          Array dx = arrays.result(30);
          Array t = arrays.of(shares, 30);
          backend.binaryLoss(focal, 0.25f, 2, arrays.of(in[0], 30), t, arrays.result(30), dx);
          return all(scaleRows(dx, up[0]));
        },
        r(30));
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void crossEntropy(boolean weighted) {
    long[] targets = {0, 2, 1, 2};
    double[] w = {0.9, 1.1, 0.3};
    check(
        in -> {
          Array loss = arrays.result(1);
          Array weight = weighted ? arrays.of(w, 3) : null;
          Array t = arrays.ints(targets, 4);
          backend.crossEntropy(4, 3, arrays.of(in[0], 4, 3), t, weight, loss, null);
          return all(loss);
        },
        (in, up) -> {
          Array dx = arrays.result(4, 3);
          Array weight = weighted ? arrays.of(w, 3) : null;
          Array t = arrays.ints(targets, 4);
          backend.crossEntropy(4, 3, arrays.of(in[0], 4, 3), t, weight, arrays.result(1), dx);
          return all(scaleRows(dx, up[0]));
        },
        r(4, 3));
  }

  @Test
  void gruCell() {
    check(
        in -> {
          Array y = arrays.result(2, 4);
          backend.gruCell(
              2, 4, arrays.of(in[0], 2, 12), arrays.of(in[1], 2, 12), arrays.of(in[2], 2, 4), y);
          return all(y);
        },
        (in, up) -> {
          Array dgi = arrays.result(2, 12);
          Array dgh = arrays.result(2, 12);
          Array dh = arrays.result(2, 4);
          backend.gruCellBackward(
              2,
              4,
              arrays.of(in[0], 2, 12),
              arrays.of(in[1], 2, 12),
              arrays.of(in[2], 2, 4),
              arrays.of(up[0], 2, 4),
              dgi,
              dgh,
              dh);
          return all(dgi, dgh, dh);
        },
        r(2, 12),
        r(2, 12),
        r(2, 4));
  }
}
