package org.deixis.backend.reference;

import org.deixis.backend.Array;
import org.deixis.backend.Reduction;

/** Filling, copying, permuting, repeating and folding. */
final class ReferenceMoves {
  private ReferenceMoves() {}

  static void fill(Array y, double value) {
    Values to = Values.of(y);
    for (int i = 0, n = (int) y.size(); i < n; i++) {
      to.set(i, value);
    }
  }

  static void copy(Array x, Array y) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    for (int i = 0, n = (int) x.size(); i < n; i++) {
      to.move(i, from, i);
    }
  }

  static void transpose(Array x, int[] permutation, Array y) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    int rank = permutation.length;
    int[] xStrides = new int[rank];
    for (int axis = rank - 1, stride = 1; axis >= 0; axis--) {
      xStrides[axis] = stride;
      stride *= x.dim(axis);
    }
    int[] index = new int[rank]; // into y
    for (int i = 0, n = (int) y.size(); i < n; i++) {
      int source = 0;
      for (int axis = 0; axis < rank; axis++) {
        source += index[axis] * xStrides[permutation[axis]];
      }
      to.move(i, from, source);
      for (int axis = rank - 1; axis >= 0 && ++index[axis] == y.dim(axis); axis--) {
        index[axis] = 0;
      }
    }
  }

  static void copyColumns(
      int rows,
      int columns,
      Array x,
      int xOffset,
      int xStride,
      Array y,
      int yOffset,
      int yStride,
      boolean accumulate) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    for (int row = 0; row < rows; row++) {
      for (int column = 0; column < columns; column++) {
        int source = row * xStride + xOffset + column;
        int target = row * yStride + yOffset + column;
        if (accumulate) {
          to.set(target, to.get(target) + from.get(source));
        } else {
          to.move(target, from, source);
        }
      }
    }
  }

  static void repeat(int outer, int times, int inner, Array x, Array y) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    for (int o = 0; o < outer; o++) {
      for (int i = 0; i < times; i++) {
        for (int n = 0; n < inner; n++) {
          to.move((o * times + i) * inner + n, from, o * inner + n);
        }
      }
    }
  }

  static void reduce(Reduction kind, int outer, int axis, int inner, Array x, Array y) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    for (int o = 0; o < outer; o++) {
      for (int n = 0; n < inner; n++) {
        double sum = 0;
        double max = Double.NEGATIVE_INFINITY;
        for (int i = 0; i < axis; i++) {
          double value = from.get((o * axis + i) * inner + n);
          sum += value;
          max = Math.max(max, value);
        }
        to.set(
            o * inner + n,
            switch (kind) {
              case SUM -> sum;
              case MEAN -> axis == 0 ? 0 : sum / axis;
              case MAX -> max;
            });
      }
    }
  }
}
