package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.util.Arrays;
import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.backend.HostBuffer;

/**
 * Attention over short sequences: a task takes a block of queries (backward: all queries, block
 * after block, so that the sums over them have one order) and a few heads. Keys that the mask
 * leaves out are never loaded. Region attention is in {@link CpuRegionAttention}.
 */
final class CpuAttention {
  /** Queries of a tile. */
  private static final int BLOCK = 64;

  // slots of a task's scratch
  private static final int QUERIES = 0;
  private static final int KEYS = 1;
  private static final int VALUES = 2;
  private static final int TRANSPOSED = 3;
  private static final int SCORES = 4;
  private static final int OUT = 5;
  private static final int INVERSE = 6;
  private static final int LSE = 7;
  private static final int UP = 8;
  private static final int UP_TRANSPOSED = 9;
  private static final int UP_SCORES = 10;
  private static final int KEY_SUMS = 11;
  private static final int VALUE_SUMS = 12;
  private static final int ROW = 13;

  private final WorkerPool pool;

  CpuAttention(WorkerPool pool) {
    this.pool = pool;
  }

  /** An operand's memory: head h of row t of picture b begins at start + (b·rows + t)·stride. */
  private record Operand(FloatBuffer floats, int start, int rows, int stride) {
    static Operand of(Array array, int offset, int rows, int stride) {
      return new Operand(
          HostBuffer.of(array).floats(), Math.toIntExact(array.offset()) + offset, rows, stride);
    }

    int at(int b, int t) {
      return start + (b * rows + t) * stride;
    }
  }

  /** How a call is cut, and what its tasks share. */
  private static final class Call {
    final Attention s;
    final int groupHeads;
    final int groups;

    /** Channels of a group of heads. */
    final int width;

    /** Distance between rows of tiles: a head's last vector may reach beyond the group. */
    final int ld;

    final Operand q;
    final Operand k;
    final Operand v;
    final IntBuffer mask;
    final int maskStart;

    Call(Attention s, Array q, Array k, Array v, Array mask) {
      this.s = s;
      int most = s.batch() >= 8 ? 256 : 64;
      int together = Math.max(1, Math.min(s.heads(), most / s.headDim()));
      while (s.heads() % together != 0) {
        together--;
      }
      groupHeads = together;
      groups = s.heads() / together;
      width = together * s.headDim();
      ld = VectorMath.pad(width) + VectorMath.LANES;
      this.q = Operand.of(q, s.qOffset(), s.queries(), s.qStride());
      this.k = Operand.of(k, s.kOffset(), s.keys(), s.kStride());
      this.v = Operand.of(v, s.vOffset(), s.keys(), s.vStride());
      this.mask = mask == null ? null : HostBuffer.of(mask).ints();
      this.maskStart = mask == null ? 0 : Math.toIntExact(mask.offset());
    }

    Operand dense(Array y) {
      int c = s.heads() * s.headDim();
      return Operand.of(y, 0, s.queries(), c);
    }

    /** Fills {@code kept} with the keys of picture b that count; returns how many. */
    int keys(int b, int[] kept) {
      int n = 0;
      for (int j = 0; j < s.keys(); j++) {
        if (mask == null || mask.get(maskStart + b * s.keys() + j) != 0) {
          kept[n++] = j;
        }
      }
      return n;
    }

    /** Rows of a tile: {@code kept[i]} of picture b, or from + i where kept is null. */
    float[] load(
        Scratch scratch, int slot, Operand x, int b, int group, int from, int n, int[] kept) {
      float[] tile = scratch.floats(slot, (long) TileProduct.rows(n) * ld + VectorMath.LANES);
      for (int i = 0; i < n; i++) {
        int at = x.at(b, kept == null ? from + i : kept[i]) + group * width;
        x.floats.get(at, tile, i * ld, width);
      }
      return tile;
    }
  }

  /** See {@link org.deixis.backend.Backend#attention}. */
  void attention(Attention spec, Array q, Array k, Array v, Array mask, Array y, Array lse) {
    if (y.size() == 0) {
      return;
    }
    Call call = new Call(spec, q, k, v, mask);
    Operand out = call.dense(y);
    FloatBuffer logSums = lse == null ? null : HostBuffer.of(lse).floats();
    int lseStart = lse == null ? 0 : Math.toIntExact(lse.offset());
    int blocks = (spec.queries() + BLOCK - 1) / BLOCK;
    pool.parallelFor(
        spec.batch() * blocks * call.groups,
        task -> {
          int group = task % call.groups;
          int block = task / call.groups % blocks;
          int b = task / call.groups / blocks;
          forward(call, b, group, block * BLOCK, out, logSums, lseStart);
        });
  }

  private static void forward(
      Call c, int b, int group, int from, Operand y, FloatBuffer logSums, int lseStart) {
    Attention s = c.s;
    Scratch scratch = Scratch.here();
    int d = s.headDim();
    int n = Math.min(BLOCK, s.queries() - from);
    int lanes = VectorMath.pad(n);
    int[] kept = scratch.ints(s.keys());
    int keys = c.keys(b, kept);
    float[] q = c.load(scratch, QUERIES, c.q, b, group, from, n, null);
    float[] k = c.load(scratch, KEYS, c.k, b, group, 0, keys, kept);
    float[] v = c.load(scratch, VALUES, c.v, b, group, 0, keys, kept);
    float[] transposed = scratch.floats(TRANSPOSED, (long) d * lanes);
    float[] scores = scratch.floats(SCORES, (long) TileProduct.rows(keys) * lanes);
    float[] out = scratch.floats(OUT, (long) TileProduct.rows(n) * c.ld + VectorMath.LANES);
    float[] inverse = scratch.floats(INVERSE, lanes);
    float[] lse = scratch.floats(LSE, lanes);
    for (int h = 0; h < c.groupHeads; h++) {
      int column = h * d;
      AttentionTile.transpose(n, d, s.scale(), q, column, c.ld, transposed, lanes);
      TileProduct.multiply(
          keys, lanes, d, k, column, c.ld, 1, transposed, 0, lanes, null, 0, 0, scores, 0, lanes);
      AttentionTile.softmax(keys, lanes, scores, inverse, lse);
      TileProduct.multiply(
          n, d, keys, scores, 0, 1, lanes, v, column, c.ld, null, 0, 0, out, column, c.ld);
      AttentionTile.scaleRows(n, d, inverse, out, column, c.ld);
      if (logSums != null) {
        int head = group * c.groupHeads + h;
        logSums.put(lseStart + (b * s.heads() + head) * s.queries() + from, lse, 0, n);
      }
    }
    for (int i = 0; i < n; i++) {
      y.floats.put(y.at(b, from + i) + group * c.width, out, i * c.ld, c.width);
    }
  }

  /** See {@link org.deixis.backend.Backend#attentionBackward}. */
  void attentionBackward(
      Attention spec,
      Array q,
      Array k,
      Array v,
      Array mask,
      Array y,
      Array lse,
      Array dy,
      Array dq,
      Array dk,
      Array dv) {
    Call call = new Call(spec, q, k, v, mask);
    Operand up = call.dense(dy);
    Operand toQ = Operand.of(dq, spec.qOffset(), spec.queries(), spec.qStride());
    Operand toK = Operand.of(dk, spec.kOffset(), spec.keys(), spec.kStride());
    Operand toV = Operand.of(dv, spec.vOffset(), spec.keys(), spec.vStride());
    FloatBuffer logSums = HostBuffer.of(lse).floats();
    int lseStart = Math.toIntExact(lse.offset());
    pool.parallelFor(
        spec.batch() * call.groups,
        task ->
            backward(
                call,
                task / call.groups,
                task % call.groups,
                up,
                logSums,
                lseStart,
                toQ,
                toK,
                toV));
  }

  private static void backward(
      Call c,
      int b,
      int group,
      Operand dy,
      FloatBuffer logSums,
      int lseStart,
      Operand toQ,
      Operand toK,
      Operand toV) {
    Attention s = c.s;
    Scratch scratch = Scratch.here();
    int d = s.headDim();
    int[] kept = scratch.ints(s.keys());
    int keys = c.keys(b, kept);
    int keyRows = TileProduct.rows(keys);
    int wide = VectorMath.pad(d);
    float[] k = c.load(scratch, KEYS, c.k, b, group, 0, keys, kept);
    float[] v = c.load(scratch, VALUES, c.v, b, group, 0, keys, kept);
    // one block of sums a head, as columns behind a head's last are written too
    float[] keySums = scratch.zeros(KEY_SUMS, (long) c.groupHeads * keyRows * wide);
    float[] valueSums = scratch.zeros(VALUE_SUMS, (long) c.groupHeads * keyRows * wide);
    for (int from = 0; from < s.queries(); from += BLOCK) {
      int n = Math.min(BLOCK, s.queries() - from);
      int lanes = VectorMath.pad(n);
      float[] q = c.load(scratch, QUERIES, c.q, b, group, from, n, null);
      float[] up = c.load(scratch, UP, dy, b, group, from, n, null);
      float[] transposed = scratch.floats(TRANSPOSED, (long) d * lanes);
      float[] upTransposed = scratch.floats(UP_TRANSPOSED, (long) d * lanes);
      float[] p = scratch.floats(SCORES, (long) keyRows * lanes);
      float[] ds = scratch.floats(UP_SCORES, (long) keyRows * lanes);
      float[] out = scratch.floats(OUT, (long) TileProduct.rows(n) * c.ld + VectorMath.LANES);
      float[] lse = scratch.floats(LSE, lanes);
      Arrays.fill(lse, n, lanes, 0);
      for (int h = 0; h < c.groupHeads; h++) {
        int column = h * d;
        int sums = h * keyRows * wide;
        AttentionTile.transpose(n, d, s.scale(), q, column, c.ld, transposed, lanes);
        TileProduct.multiply(
            keys, lanes, d, k, column, c.ld, 1, transposed, 0, lanes, null, 0, 0, p, 0, lanes);
        int head = group * c.groupHeads + h;
        logSums.get(lseStart + (b * s.heads() + head) * s.queries() + from, lse, 0, n);
        AttentionTile.probabilities(keys, lanes, p, lse);
        AttentionTile.transpose(n, d, 1, up, column, c.ld, upTransposed, lanes);
        TileProduct.multiply(
            keys, lanes, d, v, column, c.ld, 1, upTransposed, 0, lanes, null, 0, 0, ds, 0, lanes);
        TileProduct.multiply(
            keys, d, n, p, 0, lanes, 1, up, column, c.ld, valueSums, sums, wide, valueSums, sums,
            wide);
        AttentionTile.backward(keys, lanes, s.scale(), p, ds, null, 0);
        TileProduct.multiply(
            n, d, keys, ds, 0, 1, lanes, k, column, c.ld, null, 0, 0, out, column, c.ld);
        TileProduct.multiply(
            keys, d, n, ds, 0, lanes, 1, q, column, c.ld, keySums, sums, wide, keySums, sums, wide);
      }
      for (int i = 0; i < n; i++) {
        toQ.floats.put(toQ.at(b, from + i) + group * c.width, out, i * c.ld, c.width);
      }
    }
    store(c, scratch, b, group, keySums, kept, keys, toK);
    store(c, scratch, b, group, valueSums, kept, keys, toV);
  }

  /** Writes a group's columns of every key's row, 0 for keys that the mask leaves out. */
  private static void store(
      Call c, Scratch scratch, int b, int group, float[] sums, int[] kept, int keys, Operand to) {
    int d = c.s.headDim();
    int wide = VectorMath.pad(d);
    int keyRows = TileProduct.rows(keys);
    float[] row = scratch.floats(ROW, c.width);
    int next = 0;
    for (int j = 0; j < c.s.keys(); j++) {
      if (next < keys && kept[next] == j) {
        for (int h = 0; h < c.groupHeads; h++) {
          System.arraycopy(sums, (h * keyRows + next) * wide, row, h * d, d);
        }
        next++;
      } else {
        Arrays.fill(row, 0, c.width, 0);
      }
      to.floats.put(to.at(b, j) + group * c.width, row, 0, c.width);
    }
  }
}
