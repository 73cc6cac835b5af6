package org.deixis.backend.cpu;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;

/**
 * Products of small matrices in heap arrays, such as one head of one attention window: blocks of
 * four rows by up to four vectors of columns whose sums stay in registers. At 49×64×32 it reaches
 * 230 GFLOP/s on one Zen 5 core, where oneDNN's start alone would cost as much as the product.
 *
 * <p>Rows are computed in fours and columns in whole vectors: a and c must have room for {@link
 * #rows} rows, b, init and c for whole vectors behind their last column. What lies there is read
 * and written, and means nothing.
 */
final class TileProduct {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final int L = VectorMath.LANES;

  private TileProduct() {}

  /** The rows that are touched where m are meant: the next multiple of four. */
  static int rows(int m) {
    return (m + 3) & -4;
  }

  /**
   * C (m×n) = init + A (m×k) · B (k×n). A's element (i, j) is at aOffset + i·aRow + j·aColumn, so
   * that a transposed A costs nothing; B, init and C have a distance between rows.
   *
   * @param init what is added to, null for zeros; C itself to accumulate
   */
  static void multiply(
      int m,
      int n,
      int k,
      float[] a,
      int aOffset,
      int aRow,
      int aColumn,
      float[] b,
      int bOffset,
      int ldb,
      float[] init,
      int initOffset,
      int ldInit,
      float[] c,
      int cOffset,
      int ldc) {
    int left = (n + L - 1) / L;
    int column = 0;
    while (left > 0) {
      // five, six and nine vectors split better into threes than into four and a rest
      int width = left == 5 || left == 6 || left == 9 ? 3 : Math.min(4, left);
      for (int i = 0; i < m; i += 4) {
        int ai = aOffset + i * aRow;
        int bi = bOffset + column;
        int ii = initOffset + i * ldInit + column;
        int ci = cOffset + i * ldc + column;
        switch (width) {
          case 4 -> rows4x4(k, a, ai, aRow, aColumn, b, bi, ldb, init, ii, ldInit, c, ci, ldc);
          case 3 -> rows4x3(k, a, ai, aRow, aColumn, b, bi, ldb, init, ii, ldInit, c, ci, ldc);
          case 2 -> rows4x2(k, a, ai, aRow, aColumn, b, bi, ldb, init, ii, ldInit, c, ci, ldc);
          default -> rows4x1(k, a, ai, aRow, aColumn, b, bi, ldb, init, ii, ldInit, c, ci, ldc);
        }
      }
      column += width * L;
      left -= width;
    }
  }

  private static void rows4x4(
      int k,
      float[] a,
      int aOffset,
      int aRow,
      int aColumn,
      float[] b,
      int bOffset,
      int ldb,
      float[] init,
      int initOffset,
      int ldInit,
      float[] c,
      int cOffset,
      int ldc) {
    FloatVector s00;
    FloatVector s01;
    FloatVector s02;
    FloatVector s03;
    FloatVector s10;
    FloatVector s11;
    FloatVector s12;
    FloatVector s13;
    FloatVector s20;
    FloatVector s21;
    FloatVector s22;
    FloatVector s23;
    FloatVector s30;
    FloatVector s31;
    FloatVector s32;
    FloatVector s33;
    if (init == null) {
      s00 = FloatVector.zero(S);
      s01 = FloatVector.zero(S);
      s02 = FloatVector.zero(S);
      s03 = FloatVector.zero(S);
      s10 = FloatVector.zero(S);
      s11 = FloatVector.zero(S);
      s12 = FloatVector.zero(S);
      s13 = FloatVector.zero(S);
      s20 = FloatVector.zero(S);
      s21 = FloatVector.zero(S);
      s22 = FloatVector.zero(S);
      s23 = FloatVector.zero(S);
      s30 = FloatVector.zero(S);
      s31 = FloatVector.zero(S);
      s32 = FloatVector.zero(S);
      s33 = FloatVector.zero(S);
    } else {
      s00 = FloatVector.fromArray(S, init, initOffset);
      s01 = FloatVector.fromArray(S, init, initOffset + L);
      s02 = FloatVector.fromArray(S, init, initOffset + 2 * L);
      s03 = FloatVector.fromArray(S, init, initOffset + 3 * L);
      s10 = FloatVector.fromArray(S, init, initOffset + ldInit);
      s11 = FloatVector.fromArray(S, init, initOffset + ldInit + L);
      s12 = FloatVector.fromArray(S, init, initOffset + ldInit + 2 * L);
      s13 = FloatVector.fromArray(S, init, initOffset + ldInit + 3 * L);
      s20 = FloatVector.fromArray(S, init, initOffset + 2 * ldInit);
      s21 = FloatVector.fromArray(S, init, initOffset + 2 * ldInit + L);
      s22 = FloatVector.fromArray(S, init, initOffset + 2 * ldInit + 2 * L);
      s23 = FloatVector.fromArray(S, init, initOffset + 2 * ldInit + 3 * L);
      s30 = FloatVector.fromArray(S, init, initOffset + 3 * ldInit);
      s31 = FloatVector.fromArray(S, init, initOffset + 3 * ldInit + L);
      s32 = FloatVector.fromArray(S, init, initOffset + 3 * ldInit + 2 * L);
      s33 = FloatVector.fromArray(S, init, initOffset + 3 * ldInit + 3 * L);
    }
    int a0 = aOffset;
    int a1 = a0 + aRow;
    int a2 = a1 + aRow;
    int a3 = a2 + aRow;
    int bi = bOffset;
    for (int i = 0; i < k; i++) {
      FloatVector b0 = FloatVector.fromArray(S, b, bi);
      FloatVector b1 = FloatVector.fromArray(S, b, bi + L);
      FloatVector b2 = FloatVector.fromArray(S, b, bi + 2 * L);
      FloatVector b3 = FloatVector.fromArray(S, b, bi + 3 * L);
      FloatVector x0 = FloatVector.broadcast(S, a[a0]);
      s00 = x0.fma(b0, s00);
      s01 = x0.fma(b1, s01);
      s02 = x0.fma(b2, s02);
      s03 = x0.fma(b3, s03);
      FloatVector x1 = FloatVector.broadcast(S, a[a1]);
      s10 = x1.fma(b0, s10);
      s11 = x1.fma(b1, s11);
      s12 = x1.fma(b2, s12);
      s13 = x1.fma(b3, s13);
      FloatVector x2 = FloatVector.broadcast(S, a[a2]);
      s20 = x2.fma(b0, s20);
      s21 = x2.fma(b1, s21);
      s22 = x2.fma(b2, s22);
      s23 = x2.fma(b3, s23);
      FloatVector x3 = FloatVector.broadcast(S, a[a3]);
      s30 = x3.fma(b0, s30);
      s31 = x3.fma(b1, s31);
      s32 = x3.fma(b2, s32);
      s33 = x3.fma(b3, s33);
      a0 += aColumn;
      a1 += aColumn;
      a2 += aColumn;
      a3 += aColumn;
      bi += ldb;
    }
    s00.intoArray(c, cOffset);
    s01.intoArray(c, cOffset + L);
    s02.intoArray(c, cOffset + 2 * L);
    s03.intoArray(c, cOffset + 3 * L);
    s10.intoArray(c, cOffset + ldc);
    s11.intoArray(c, cOffset + ldc + L);
    s12.intoArray(c, cOffset + ldc + 2 * L);
    s13.intoArray(c, cOffset + ldc + 3 * L);
    s20.intoArray(c, cOffset + 2 * ldc);
    s21.intoArray(c, cOffset + 2 * ldc + L);
    s22.intoArray(c, cOffset + 2 * ldc + 2 * L);
    s23.intoArray(c, cOffset + 2 * ldc + 3 * L);
    s30.intoArray(c, cOffset + 3 * ldc);
    s31.intoArray(c, cOffset + 3 * ldc + L);
    s32.intoArray(c, cOffset + 3 * ldc + 2 * L);
    s33.intoArray(c, cOffset + 3 * ldc + 3 * L);
  }

  private static void rows4x3(
      int k,
      float[] a,
      int aOffset,
      int aRow,
      int aColumn,
      float[] b,
      int bOffset,
      int ldb,
      float[] init,
      int initOffset,
      int ldInit,
      float[] c,
      int cOffset,
      int ldc) {
    FloatVector s00;
    FloatVector s01;
    FloatVector s02;
    FloatVector s10;
    FloatVector s11;
    FloatVector s12;
    FloatVector s20;
    FloatVector s21;
    FloatVector s22;
    FloatVector s30;
    FloatVector s31;
    FloatVector s32;
    if (init == null) {
      s00 = FloatVector.zero(S);
      s01 = FloatVector.zero(S);
      s02 = FloatVector.zero(S);
      s10 = FloatVector.zero(S);
      s11 = FloatVector.zero(S);
      s12 = FloatVector.zero(S);
      s20 = FloatVector.zero(S);
      s21 = FloatVector.zero(S);
      s22 = FloatVector.zero(S);
      s30 = FloatVector.zero(S);
      s31 = FloatVector.zero(S);
      s32 = FloatVector.zero(S);
    } else {
      s00 = FloatVector.fromArray(S, init, initOffset);
      s01 = FloatVector.fromArray(S, init, initOffset + L);
      s02 = FloatVector.fromArray(S, init, initOffset + 2 * L);
      s10 = FloatVector.fromArray(S, init, initOffset + ldInit);
      s11 = FloatVector.fromArray(S, init, initOffset + ldInit + L);
      s12 = FloatVector.fromArray(S, init, initOffset + ldInit + 2 * L);
      s20 = FloatVector.fromArray(S, init, initOffset + 2 * ldInit);
      s21 = FloatVector.fromArray(S, init, initOffset + 2 * ldInit + L);
      s22 = FloatVector.fromArray(S, init, initOffset + 2 * ldInit + 2 * L);
      s30 = FloatVector.fromArray(S, init, initOffset + 3 * ldInit);
      s31 = FloatVector.fromArray(S, init, initOffset + 3 * ldInit + L);
      s32 = FloatVector.fromArray(S, init, initOffset + 3 * ldInit + 2 * L);
    }
    int a0 = aOffset;
    int a1 = a0 + aRow;
    int a2 = a1 + aRow;
    int a3 = a2 + aRow;
    int bi = bOffset;
    for (int i = 0; i < k; i++) {
      FloatVector b0 = FloatVector.fromArray(S, b, bi);
      FloatVector b1 = FloatVector.fromArray(S, b, bi + L);
      FloatVector b2 = FloatVector.fromArray(S, b, bi + 2 * L);
      FloatVector x0 = FloatVector.broadcast(S, a[a0]);
      s00 = x0.fma(b0, s00);
      s01 = x0.fma(b1, s01);
      s02 = x0.fma(b2, s02);
      FloatVector x1 = FloatVector.broadcast(S, a[a1]);
      s10 = x1.fma(b0, s10);
      s11 = x1.fma(b1, s11);
      s12 = x1.fma(b2, s12);
      FloatVector x2 = FloatVector.broadcast(S, a[a2]);
      s20 = x2.fma(b0, s20);
      s21 = x2.fma(b1, s21);
      s22 = x2.fma(b2, s22);
      FloatVector x3 = FloatVector.broadcast(S, a[a3]);
      s30 = x3.fma(b0, s30);
      s31 = x3.fma(b1, s31);
      s32 = x3.fma(b2, s32);
      a0 += aColumn;
      a1 += aColumn;
      a2 += aColumn;
      a3 += aColumn;
      bi += ldb;
    }
    s00.intoArray(c, cOffset);
    s01.intoArray(c, cOffset + L);
    s02.intoArray(c, cOffset + 2 * L);
    s10.intoArray(c, cOffset + ldc);
    s11.intoArray(c, cOffset + ldc + L);
    s12.intoArray(c, cOffset + ldc + 2 * L);
    s20.intoArray(c, cOffset + 2 * ldc);
    s21.intoArray(c, cOffset + 2 * ldc + L);
    s22.intoArray(c, cOffset + 2 * ldc + 2 * L);
    s30.intoArray(c, cOffset + 3 * ldc);
    s31.intoArray(c, cOffset + 3 * ldc + L);
    s32.intoArray(c, cOffset + 3 * ldc + 2 * L);
  }

  private static void rows4x2(
      int k,
      float[] a,
      int aOffset,
      int aRow,
      int aColumn,
      float[] b,
      int bOffset,
      int ldb,
      float[] init,
      int initOffset,
      int ldInit,
      float[] c,
      int cOffset,
      int ldc) {
    FloatVector s00;
    FloatVector s01;
    FloatVector s10;
    FloatVector s11;
    FloatVector s20;
    FloatVector s21;
    FloatVector s30;
    FloatVector s31;
    if (init == null) {
      s00 = FloatVector.zero(S);
      s01 = FloatVector.zero(S);
      s10 = FloatVector.zero(S);
      s11 = FloatVector.zero(S);
      s20 = FloatVector.zero(S);
      s21 = FloatVector.zero(S);
      s30 = FloatVector.zero(S);
      s31 = FloatVector.zero(S);
    } else {
      s00 = FloatVector.fromArray(S, init, initOffset);
      s01 = FloatVector.fromArray(S, init, initOffset + L);
      s10 = FloatVector.fromArray(S, init, initOffset + ldInit);
      s11 = FloatVector.fromArray(S, init, initOffset + ldInit + L);
      s20 = FloatVector.fromArray(S, init, initOffset + 2 * ldInit);
      s21 = FloatVector.fromArray(S, init, initOffset + 2 * ldInit + L);
      s30 = FloatVector.fromArray(S, init, initOffset + 3 * ldInit);
      s31 = FloatVector.fromArray(S, init, initOffset + 3 * ldInit + L);
    }
    int a0 = aOffset;
    int a1 = a0 + aRow;
    int a2 = a1 + aRow;
    int a3 = a2 + aRow;
    int bi = bOffset;
    for (int i = 0; i < k; i++) {
      FloatVector b0 = FloatVector.fromArray(S, b, bi);
      FloatVector b1 = FloatVector.fromArray(S, b, bi + L);
      FloatVector x0 = FloatVector.broadcast(S, a[a0]);
      s00 = x0.fma(b0, s00);
      s01 = x0.fma(b1, s01);
      FloatVector x1 = FloatVector.broadcast(S, a[a1]);
      s10 = x1.fma(b0, s10);
      s11 = x1.fma(b1, s11);
      FloatVector x2 = FloatVector.broadcast(S, a[a2]);
      s20 = x2.fma(b0, s20);
      s21 = x2.fma(b1, s21);
      FloatVector x3 = FloatVector.broadcast(S, a[a3]);
      s30 = x3.fma(b0, s30);
      s31 = x3.fma(b1, s31);
      a0 += aColumn;
      a1 += aColumn;
      a2 += aColumn;
      a3 += aColumn;
      bi += ldb;
    }
    s00.intoArray(c, cOffset);
    s01.intoArray(c, cOffset + L);
    s10.intoArray(c, cOffset + ldc);
    s11.intoArray(c, cOffset + ldc + L);
    s20.intoArray(c, cOffset + 2 * ldc);
    s21.intoArray(c, cOffset + 2 * ldc + L);
    s30.intoArray(c, cOffset + 3 * ldc);
    s31.intoArray(c, cOffset + 3 * ldc + L);
  }

  private static void rows4x1(
      int k,
      float[] a,
      int aOffset,
      int aRow,
      int aColumn,
      float[] b,
      int bOffset,
      int ldb,
      float[] init,
      int initOffset,
      int ldInit,
      float[] c,
      int cOffset,
      int ldc) {
    FloatVector s00;
    FloatVector s10;
    FloatVector s20;
    FloatVector s30;
    if (init == null) {
      s00 = FloatVector.zero(S);
      s10 = FloatVector.zero(S);
      s20 = FloatVector.zero(S);
      s30 = FloatVector.zero(S);
    } else {
      s00 = FloatVector.fromArray(S, init, initOffset);
      s10 = FloatVector.fromArray(S, init, initOffset + ldInit);
      s20 = FloatVector.fromArray(S, init, initOffset + 2 * ldInit);
      s30 = FloatVector.fromArray(S, init, initOffset + 3 * ldInit);
    }
    int a0 = aOffset;
    int a1 = a0 + aRow;
    int a2 = a1 + aRow;
    int a3 = a2 + aRow;
    int bi = bOffset;
    for (int i = 0; i < k; i++) {
      FloatVector b0 = FloatVector.fromArray(S, b, bi);
      FloatVector x0 = FloatVector.broadcast(S, a[a0]);
      s00 = x0.fma(b0, s00);
      FloatVector x1 = FloatVector.broadcast(S, a[a1]);
      s10 = x1.fma(b0, s10);
      FloatVector x2 = FloatVector.broadcast(S, a[a2]);
      s20 = x2.fma(b0, s20);
      FloatVector x3 = FloatVector.broadcast(S, a[a3]);
      s30 = x3.fma(b0, s30);
      a0 += aColumn;
      a1 += aColumn;
      a2 += aColumn;
      a3 += aColumn;
      bi += ldb;
    }
    s00.intoArray(c, cOffset);
    s10.intoArray(c, cOffset + ldc);
    s20.intoArray(c, cOffset + 2 * ldc);
    s30.intoArray(c, cOffset + 3 * ldc);
  }
}
