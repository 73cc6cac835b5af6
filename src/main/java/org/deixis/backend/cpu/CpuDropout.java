package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.LongVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.core.Rng;

/**
 * Dropout. Where every element has its own draw, a lane of a vector runs Philox 4x32-10 (see {@link
 * Rng}) for one counter.
 */
final class CpuDropout {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final VectorSpecies<Integer> INTS = IntVector.SPECIES_PREFERRED;
  private static final VectorSpecies<Long> LONGS = LongVector.SPECIES_PREFERRED;
  private static final int L = VectorMath.LANES;

  /** Elements of a tile. */
  private static final int TILE = 4096;

  private static final long LOW = 0xffffffffL;
  private static final long M0 = 0xD2511F53L;
  private static final long M1 = 0xCD9E8D57L;
  private static final int W0 = 0x9E3779B9;
  private static final int W1 = 0xBB67AE85;

  private final WorkerPool pool;

  CpuDropout(WorkerPool pool) {
    this.pool = pool;
  }

  void dropout(double p, long block, long offset, Array rng, Array x, Array y) {
    LongBuffer state = HostBuffer.of(rng).longs();
    int at = Math.toIntExact(rng.offset());
    long seed = state.get(at);
    long stream = state.get(at + 1);
    // a draw of 24 bits is at least p when as a whole number it is at least p·2²⁴
    int threshold = (int) Math.ceil(p * 0x1p24);
    float scale = (float) (1 / (1 - p));
    FloatBuffer from = HostBuffer.of(x).floats();
    FloatBuffer to = HostBuffer.of(y).floats();
    long n = x.size();
    pool.parallelFor(
        Math.toIntExact((n + TILE - 1) / TILE),
        tile -> {
          Scratch scratch = Scratch.here();
          int first = tile * TILE;
          int count = (int) Math.min(TILE, n - first);
          float[] values = scratch.floats(0, TILE + L);
          float[] kept = scratch.floats(1, TILE + 8L * L);
          from.get(Math.toIntExact(x.offset()) + first, values, 0, count);
          int skip = 0;
          if (block == 1) {
            skip = (int) (offset + first & 3);
            draw(seed, stream, offset + first >> 2, skip + count, threshold, scratch, kept);
          } else {
            drawBlocks(seed, stream, block, offset, first, count, threshold, kept);
          }
          apply(count, scale, values, kept, skip);
          to.put(Math.toIntExact(y.offset()) + first, values, 0, count);
        });
  }

  /** kept[i] = 1 or 0 for n draws from the first word of {@code counter} on. */
  private static void draw(
      long seed, long stream, long counter, int n, int threshold, Scratch scratch, float[] kept) {
    int lanes = LONGS.length();
    long[] words = scratch.longs(4 * lanes);
    for (int i = 0; i < n; i += 4 * lanes) {
      philox(seed, stream, counter + i / 4, words);
      for (int half = 0; half < 2; half++) {
        IntVector draws = LongVector.fromArray(LONGS, words, half * lanes).reinterpretAsInts();
        VectorMask<Integer> keep =
            draws.lanewise(VectorOperators.LSHR, 8).compare(VectorOperators.GE, threshold);
        FloatVector.zero(S).blend(1f, keep.cast(S)).intoArray(kept, i + half * L);
      }
    }
  }

  /**
   * The words of as many counters as there are lanes, two in a long, in the order of draws; the
   * array's other half is scratch.
   */
  private static void philox(long seed, long stream, long counter, long[] words) {
    int lanes = LONGS.length();
    LongVector index = LongVector.broadcast(LONGS, counter).addIndex(1);
    LongVector c0 = index.lanewise(VectorOperators.AND, LOW);
    LongVector c1 = index.lanewise(VectorOperators.LSHR, 32);
    LongVector c2 = LongVector.broadcast(LONGS, stream & LOW);
    LongVector c3 = LongVector.broadcast(LONGS, stream >>> 32);
    int k0 = (int) seed;
    int k1 = (int) (seed >>> 32);
    for (int round = 0; round < 10; round++) {
      LongVector p0 = c0.mul(M0);
      LongVector p1 = c2.mul(M1);
      c0 =
          p1.lanewise(VectorOperators.LSHR, 32)
              .lanewise(VectorOperators.XOR, c1)
              .lanewise(VectorOperators.XOR, k0 & LOW);
      c2 =
          p0.lanewise(VectorOperators.LSHR, 32)
              .lanewise(VectorOperators.XOR, c3)
              .lanewise(VectorOperators.XOR, k1 & LOW);
      c1 = p1.lanewise(VectorOperators.AND, LOW);
      c3 = p0.lanewise(VectorOperators.AND, LOW);
      k0 += W0;
      k1 += W1;
    }
    // zip the pairs (c0, c1) and (c2, c3) of each counter
    LongVector a = c1.lanewise(VectorOperators.LSHL, 32).lanewise(VectorOperators.OR, c0);
    LongVector b = c3.lanewise(VectorOperators.LSHL, 32).lanewise(VectorOperators.OR, c2);
    a.intoArray(words, 2 * lanes);
    b.intoArray(words, 3 * lanes);
    for (int lane = 0; lane < lanes; lane++) {
      words[2 * lane] = words[2 * lanes + lane];
      words[2 * lane + 1] = words[3 * lanes + lane];
    }
  }

  private static void drawBlocks(
      long seed,
      long stream,
      long block,
      long offset,
      int first,
      int count,
      int threshold,
      float[] kept) {
    int[] words = Scratch.here().ints(4);
    for (int i = 0; i < count; ) {
      long j = (first + i) / block;
      Rng.philox(seed, stream, offset + j >> 2, words);
      float keep = words[(int) (offset + j & 3)] >>> 8 >= threshold ? 1 : 0;
      int end = (int) Math.min(count, (j + 1) * block - first);
      java.util.Arrays.fill(kept, i, end, keep);
      i = end;
    }
  }

  /** A dropped element is 0 whatever it was. */
  private static void apply(int n, float scale, float[] values, float[] kept, int skip) {
    for (int i = 0; i < n; i += L) {
      FloatVector x = FloatVector.fromArray(S, values, i).mul(scale);
      FloatVector keep = FloatVector.fromArray(S, kept, skip + i);
      x.blend(0f, keep.compare(VectorOperators.EQ, 0f)).intoArray(values, i);
    }
  }
}
