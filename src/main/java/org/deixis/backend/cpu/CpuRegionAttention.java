package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;

/**
 * A few regions that attend to all pixels. A picture's pixels are cut into ranges by the shape
 * alone, which tasks share; each reads its rows of k and v once, in tiles that fit the first-level
 * cache. Scores are held as pixels × regions, the regions filling a vector's lanes, so the maxima
 * and sums over pixels need no step across lanes.
 *
 * <p>A range's softmax is relative to its own maximum and corrected when all are known (Milakov and
 * Gimelshein, "Online normalizer calculation for softmax", 2018).
 */
final class CpuRegionAttention {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final int L = VectorMath.LANES;

  /** Elements of a tile of k or v: 32 KiB. */
  private static final int TILE = 8192;

  private static final int MOST_RANGES = 16;

  // slots of a task's scratch
  private static final int ROWS = 0;
  private static final int SCORES = 1;
  private static final int MAP = 2;
  private static final int OUT = 3;

  // slots of a call's scratch
  private static final int SMALL = Scratch.CALL;
  private static final int SMALL_TRANSPOSED = Scratch.CALL + 1;
  private static final int SUMS = Scratch.CALL + 2;
  private static final int STATS = Scratch.CALL + 3;
  private static final int HELD = Scratch.CALL + 4;
  private static final int SECOND = Scratch.CALL + 5;

  private final WorkerPool pool;

  CpuRegionAttention(WorkerPool pool) {
    this.pool = pool;
  }

  /** Where an array's floats lie. */
  private record Floats(FloatBuffer floats, int start) {
    static Floats of(Array array) {
      return array == null
          ? null
          : new Floats(HostBuffer.of(array).floats(), Math.toIntExact(array.offset()));
    }
  }

  /** How a call is cut. */
  private record Cut(int batch, int regions, int pixels, int dim, int ranges) {
    static Cut of(int batch, int regions, int pixels, int dim) {
      int wanted = batch >= 8 ? 1024 : 256;
      return new Cut(
          batch,
          regions,
          pixels,
          dim,
          Math.max(1, Math.min(MOST_RANGES, (pixels + wanted - 1) / wanted)));
    }

    int from(int range) {
      return (int) ((long) pixels * range / ranges);
    }

    /** Most pixels of a range. */
    int span() {
      return (pixels + ranges - 1) / ranges;
    }

    /** Regions in whole vectors. */
    int lanes() {
      return VectorMath.pad(regions);
    }

    /** Distance between rows of dim elements in tiles. */
    int ld() {
      return VectorMath.pad(dim) + L;
    }

    int regionRows() {
      return TileProduct.rows(regions);
    }

    /** Pixels of a tile. */
    int tile() {
      return Math.max(4, TILE / dim & -4);
    }

    /** Elements of one picture's (regions, dim) operand in a tile, with room behind. */
    int small() {
      return regionRows() * ld() + L;
    }
  }

  /** Copies q (or dy) of every picture, scaled and transposed to dim × lanes, and plainly. */
  private static void loadSmall(Cut c, Floats x, float scale, float[] plain, float[] transposed) {
    for (int b = 0; b < c.batch; b++) {
      int tile = b * c.small();
      for (int r = 0; r < c.regions; r++) {
        x.floats.get(x.start + (b * c.regions + r) * c.dim, plain, tile + r * c.ld(), c.dim);
      }
      int lanes = c.lanes();
      int to = b * c.dim * lanes;
      for (int e = 0; e < c.dim; e++) {
        for (int r = 0; r < c.regions; r++) {
          transposed[to + e * lanes + r] = scale * plain[tile + r * c.ld() + e];
        }
        Arrays.fill(transposed, to + e * lanes + c.regions, to + (e + 1) * lanes, 0);
      }
    }
  }

  private static float[] loadRows(Cut c, Scratch scratch, Floats x, int b, int pixel, int n) {
    float[] rows = scratch.floats(ROWS, (long) c.tile() * c.ld() + L);
    for (int i = 0; i < n; i++) {
      x.floats.get(x.start + (b * c.pixels + pixel + i) * c.dim, rows, i * c.ld(), c.dim);
    }
    return rows;
  }

  private static void storeRows(Cut c, Floats to, int b, int pixel, int n, float[] rows) {
    for (int i = 0; i < n; i++) {
      to.floats.put(to.start + (b * c.pixels + pixel + i) * c.dim, rows, i * c.ld(), c.dim);
    }
  }

  /** See {@link org.deixis.backend.Backend#regionAttention}. */
  void regionAttention(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array q,
      Array k,
      Array v,
      Array y,
      Array map) {
    if (batch == 0 || regions == 0) {
      return;
    }
    Cut c = Cut.of(batch, regions, pixels, dim);
    Floats keys = Floats.of(k);
    Floats values = Floats.of(v);
    Floats maps = Floats.of(map);
    Scratch scratch = Scratch.here();
    int lanes = c.lanes();
    float[] plain = scratch.floats(SMALL, (long) batch * c.small());
    float[] transposed = scratch.floats(SMALL_TRANSPOSED, (long) batch * dim * lanes);
    loadSmall(c, Floats.of(q), scale, plain, transposed);
    int tasks = batch * c.ranges;
    float[] sums = scratch.zeros(SUMS, (long) tasks * c.small());
    float[] stats = scratch.floats(STATS, (long) tasks * 2 * lanes); // maximum, sum
    pool.parallelFor(
        tasks,
        task ->
            forwardRange(
                c, task / c.ranges, task % c.ranges, keys, values, maps, transposed, sums, stats));
    Floats out = Floats.of(y);
    pool.parallelFor(
        batch * regions,
        task -> combine(c, task / regions, task % regions, out, maps, sums, stats));
  }

  private static void forwardRange(
      Cut c,
      int b,
      int range,
      Floats keys,
      Floats values,
      Floats map,
      float[] transposed,
      float[] sums,
      float[] stats) {
    Scratch scratch = Scratch.here();
    int lanes = c.lanes();
    int from = c.from(range);
    int n = c.from(range + 1) - from;
    float[] s = scratch.floats(SCORES, (long) TileProduct.rows(n) * lanes);
    for (int i = 0; i < n; i += c.tile()) {
      int rows = Math.min(c.tile(), n - i);
      float[] k = loadRows(c, scratch, keys, b, from + i, rows);
      TileProduct.multiply(
          rows,
          lanes,
          c.dim,
          k,
          0,
          c.ld(),
          1,
          transposed,
          b * c.dim * lanes,
          lanes,
          null,
          0,
          0,
          s,
          i * lanes,
          lanes);
    }
    int task = b * c.ranges + range;
    for (int lane = 0; lane < lanes; lane += L) {
      exponentials(n, lanes, lane, s, stats, task * 2 * lanes);
    }
    for (int i = 0; i < n; i += c.tile()) {
      int rows = Math.min(c.tile(), n - i);
      float[] v = loadRows(c, scratch, values, b, from + i, rows);
      TileProduct.multiply(
          c.regions,
          c.dim,
          rows,
          s,
          i * lanes,
          1,
          lanes,
          v,
          0,
          c.ld(),
          sums,
          task * c.small(),
          c.ld(),
          sums,
          task * c.small(),
          c.ld());
    }
    float[] row = scratch.floats(MAP, n);
    for (int r = 0; r < c.regions; r++) {
      for (int i = 0; i < n; i++) {
        row[i] = s[i * lanes + r];
      }
      map.floats.put(map.start + (b * c.regions + r) * c.pixels + from, row, 0, n);
    }
  }

  /** Replaces scores by exp(score − maximum) down one vector of columns. */
  private static void exponentials(
      int n, int lanes, int lane, float[] s, float[] stats, int offset) {
    FloatVector max = FloatVector.broadcast(S, Float.NEGATIVE_INFINITY);
    int end = lane + n * lanes;
    for (int at = lane; at < end; at += lanes) {
      FloatVector x = FloatVector.fromArray(S, s, at);
      max = max.blend(x, x.compare(VectorOperators.GT, max));
    }
    FloatVector sum = FloatVector.zero(S);
    for (int at = lane; at < end; at += lanes) {
      FloatVector e = VectorMath.expBelow(FloatVector.fromArray(S, s, at).sub(max));
      e.intoArray(s, at);
      sum = sum.add(e);
    }
    max.intoArray(stats, offset + lane);
    sum.intoArray(stats, offset + lanes + lane);
  }

  /** One region's row of y and of the map, from its ranges. */
  private static void combine(
      Cut c, int b, int r, Floats y, Floats map, float[] sums, float[] stats) {
    Scratch scratch = Scratch.here();
    int lanes = c.lanes();
    float max = Float.NEGATIVE_INFINITY;
    for (int range = 0; range < c.ranges; range++) {
      max = Math.max(max, stats[(b * c.ranges + range) * 2 * lanes + r]);
    }
    double total = 0;
    for (int range = 0; range < c.ranges; range++) {
      int at = (b * c.ranges + range) * 2 * lanes + r;
      total += Math.exp(stats[at] - max) * stats[at + lanes];
    }
    float[] out = scratch.zeros(OUT, c.ld());
    float[] row = scratch.floats(MAP, c.span());
    for (int range = 0; range < c.ranges; range++) {
      int task = b * c.ranges + range;
      // without pixels the sum is empty, and so is what it divides
      float factor =
          c.pixels == 0 ? 0 : (float) (Math.exp(stats[task * 2 * lanes + r] - max) / total);
      int from = task * c.small() + r * c.ld();
      for (int e = 0; e < c.dim; e++) {
        out[e] += factor * sums[from + e];
      }
      int first = c.from(range);
      int n = c.from(range + 1) - first;
      int at = map.start + (b * c.regions + r) * c.pixels + first;
      map.floats.get(at, row, 0, n);
      for (int i = 0; i < n; i++) {
        row[i] *= factor;
      }
      map.floats.put(at, row, 0, n);
    }
    y.floats.put(y.start + (b * c.regions + r) * c.dim, out, 0, c.dim);
  }

  /** See {@link org.deixis.backend.Backend#regionAttentionBackward}. */
  void regionAttentionBackward(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array q,
      Array k,
      Array v,
      Array map,
      Array dy,
      Array dMap,
      Array dq,
      Array dk,
      Array dv) {
    if (batch == 0) {
      return;
    }
    Cut c = Cut.of(batch, regions, pixels, dim);
    Floats keys = Floats.of(k);
    Floats values = Floats.of(v);
    Floats maps = Floats.of(map);
    Floats upMap = Floats.of(dMap);
    Floats toK = Floats.of(dk);
    Floats toV = Floats.of(dv);
    Scratch scratch = Scratch.here();
    int lanes = c.lanes();
    float[] plain = scratch.floats(SMALL, (long) batch * c.small());
    float[] transposed = scratch.floats(SMALL_TRANSPOSED, (long) batch * dim * lanes);
    loadSmall(c, Floats.of(dy), 1, plain, transposed);
    int tasks = batch * c.ranges;
    // per task: rows of p and of dp, kept between the two loops
    int held = TileProduct.rows(c.span()) * lanes;
    float[] both = scratch.floats(HELD, 2L * tasks * held);
    float[] stats = scratch.zeros(STATS, (long) tasks * lanes);
    pool.parallelFor(
        tasks,
        task ->
            valueRange(c, task, values, maps, upMap, plain, transposed, both, held, stats, toV));
    for (int b = 0; b < batch; b++) {
      for (int range = 1; range < c.ranges; range++) {
        AttentionTile.add(
            lanes, stats, (b * c.ranges + range) * lanes, stats, b * c.ranges * lanes);
      }
    }
    Floats queries = Floats.of(q);
    float[] plainQ = scratch.floats(SECOND, (long) batch * c.small());
    loadSmall(c, queries, 1, plainQ, transposed);
    float[] sums = scratch.zeros(SUMS, (long) tasks * c.small());
    pool.parallelFor(
        tasks, task -> keyRange(c, task, scale, keys, plainQ, both, held, stats, sums, toK));
    Floats toQ = Floats.of(dq);
    for (int b = 0; b < batch; b++) {
      int first = b * c.ranges * c.small();
      for (int range = 1; range < c.ranges; range++) {
        AttentionTile.add(c.small(), sums, (b * c.ranges + range) * c.small(), sums, first);
      }
      for (int r = 0; r < regions; r++) {
        toQ.floats.put(toQ.start + (b * regions + r) * dim, sums, first + r * c.ld(), dim);
      }
    }
  }

  /** dv of a range, and its dp = dy · v (+ dMap) with Σ p·dp. */
  private static void valueRange(
      Cut c,
      int task,
      Floats values,
      Floats map,
      Floats upMap,
      float[] up,
      float[] upTransposed,
      float[] both,
      int held,
      float[] stats,
      Floats toV) {
    Scratch scratch = Scratch.here();
    int lanes = c.lanes();
    int b = task / c.ranges;
    int from = c.from(task % c.ranges);
    int n = c.from(task % c.ranges + 1) - from;
    int p = 2 * task * held;
    int dp = p + held;
    float[] row = scratch.floats(MAP, n);
    Arrays.fill(both, p, p + n * lanes, 0);
    Arrays.fill(both, dp, dp + n * lanes, 0);
    for (int r = 0; r < c.regions; r++) {
      int at = (b * c.regions + r) * c.pixels + from;
      map.floats.get(map.start + at, row, 0, n);
      for (int i = 0; i < n; i++) {
        both[p + i * lanes + r] = row[i];
      }
      if (upMap != null) {
        upMap.floats.get(upMap.start + at, row, 0, n);
        for (int i = 0; i < n; i++) {
          both[dp + i * lanes + r] = row[i];
        }
      }
    }
    float[] out = scratch.floats(OUT, (long) c.tile() * c.ld() + L);
    for (int i = 0; i < n; i += c.tile()) {
      int rows = Math.min(c.tile(), n - i);
      float[] v = loadRows(c, scratch, values, b, from + i, rows);
      int at = dp + i * lanes;
      TileProduct.multiply(
          rows,
          lanes,
          c.dim,
          v,
          0,
          c.ld(),
          1,
          upTransposed,
          b * c.dim * lanes,
          lanes,
          both,
          at,
          lanes,
          both,
          at,
          lanes);
      TileProduct.multiply(
          rows,
          c.dim,
          c.regions,
          both,
          p + i * lanes,
          lanes,
          1,
          up,
          b * c.small(),
          c.ld(),
          null,
          0,
          0,
          out,
          0,
          c.ld());
      storeRows(c, toV, b, from + i, rows, out);
    }
    for (int lane = 0; lane < lanes; lane += L) {
      FloatVector dot = FloatVector.zero(S);
      for (int i = lane; i < n * lanes; i += lanes) {
        dot =
            FloatVector.fromArray(S, both, p + i).fma(FloatVector.fromArray(S, both, dp + i), dot);
      }
      dot.intoArray(stats, task * lanes + lane);
    }
  }

  /** ds of a range, its dk, and its share of dq. */
  private static void keyRange(
      Cut c,
      int task,
      float scale,
      Floats keys,
      float[] queries,
      float[] both,
      int held,
      float[] stats,
      float[] sums,
      Floats toK) {
    Scratch scratch = Scratch.here();
    int lanes = c.lanes();
    int b = task / c.ranges;
    int from = c.from(task % c.ranges);
    int n = c.from(task % c.ranges + 1) - from;
    int p = 2 * task * held;
    int ds = p + held;
    for (int lane = 0; lane < lanes; lane += L) {
      FloatVector dot = FloatVector.fromArray(S, stats, b * c.ranges * lanes + lane);
      for (int i = lane; i < n * lanes; i += lanes) {
        FloatVector.fromArray(S, both, ds + i)
            .sub(dot)
            .mul(FloatVector.fromArray(S, both, p + i))
            .mul(scale)
            .intoArray(both, ds + i);
      }
    }
    float[] out = scratch.floats(OUT, (long) c.tile() * c.ld() + L);
    for (int i = 0; i < n; i += c.tile()) {
      int rows = Math.min(c.tile(), n - i);
      float[] k = loadRows(c, scratch, keys, b, from + i, rows);
      int at = ds + i * lanes;
      TileProduct.multiply(
          c.regions,
          c.dim,
          rows,
          both,
          at,
          1,
          lanes,
          k,
          0,
          c.ld(),
          sums,
          task * c.small(),
          c.ld(),
          sums,
          task * c.small(),
          c.ld());
      TileProduct.multiply(
          rows,
          c.dim,
          c.regions,
          both,
          at,
          lanes,
          1,
          queries,
          b * c.small(),
          c.ld(),
          null,
          0,
          0,
          out,
          0,
          c.ld());
      storeRows(c, toK, b, from + i, rows, out);
    }
  }
}
