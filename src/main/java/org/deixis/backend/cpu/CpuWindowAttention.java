package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.util.Arrays;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.WindowAttention;

/**
 * Windowed attention: a task copies one window's q, k and v for a few heads into a tile on the
 * heap, where all products stay in the nearest caches, and copies the results back to the map. The
 * scores of a head are computed as keys × queries ({@link AttentionTile}); the relative-position
 * bias, spread over them once a call, is what the product starts from instead of zeros.
 *
 * <p>Backward recomputes the probabilities from the kept log-sum-exp. Gradients of the table and of
 * the projection's bias are summed by a number of tasks that only the shape decides, and those sums
 * added in order: any number of threads gives the same bits.
 */
final class CpuWindowAttention {
  /** Windows × groups of heads that a task takes at least: some 20 µs. */
  private static final int UNITS = 2;

  /** Tasks of a backward pass over which the table's gradient is summed separately. */
  private static final int CHUNKS = 32;

  private static final int Q = 0;
  private static final int K = 1;
  private static final int V = 2;

  // slots of a task's scratch
  private static final int TILE = 0;
  private static final int TRANSPOSED = 1;
  private static final int SCORES = 2;
  private static final int MASKED = 3;
  private static final int OUT = 4;
  private static final int INVERSE = 5;
  private static final int LSE = 6;
  private static final int UP = 7;
  private static final int UP_TRANSPOSED = 8;
  private static final int UP_SCORES = 9;
  private static final int BIAS_SUMS = 10;
  private static final int TABLE_COLUMN = 11;

  // slots of a call's scratch
  private static final int TABLE = Scratch.CALL;
  private static final int SPREAD = Scratch.CALL + 1;
  private static final int PADDING = Scratch.CALL + 2;
  private static final int TABLE_SUMS = Scratch.CALL + 3;
  private static final int PADDING_SUMS = Scratch.CALL + 4;

  private final WorkerPool pool;

  CpuWindowAttention(WorkerPool pool) {
    this.pool = pool;
  }

  /** What every task of one call reads. */
  private record Call(
      WindowPlan plan,
      FloatBuffer qkv,
      int qkvStart,
      float[] padding,
      float[] spread,
      FloatBuffer up,
      int upStart,
      FloatBuffer lse,
      int lseStart) {}

  private static FloatBuffer floats(Array array) {
    return array == null ? null : HostBuffer.of(array).floats();
  }

  private static int start(Array array) {
    return array == null ? 0 : Math.toIntExact(array.offset());
  }

  private Call call(WindowPlan plan, Array qkv, Array bias, Array table, Array up, Array lse) {
    Scratch scratch = Scratch.here();
    int heads = plan.spec.heads();
    int all = plan.tableRows * heads;
    float[] rows = scratch.floats(TABLE, all);
    floats(table).get(start(table), rows, 0, all);
    float[] spread = scratch.floats(SPREAD, (long) heads * plan.scores());
    pool.parallelFor(
        heads,
        h -> {
          float[] column =
              Scratch.here().floats(TABLE_COLUMN, plan.tableRows + (long) VectorMath.LANES);
          plan.spread(rows, h, column, spread, h * plan.scores());
        });
    int channels = plan.spec.channels();
    float[] padding = scratch.zeros(PADDING, 3L * channels);
    if (bias != null) {
      floats(bias).get(start(bias), padding, 0, 3 * channels);
    }
    return new Call(
        plan,
        floats(qkv),
        start(qkv),
        padding,
        spread,
        floats(up),
        start(up),
        floats(lse),
        start(lse));
  }

  /** See {@link org.deixis.backend.Backend#windowAttention}. */
  void windowAttention(
      WindowAttention spec, Array qkv, Array bias, Array table, Array y, Array lse) {
    if (y.size() == 0) {
      return;
    }
    WindowPlan plan = WindowPlan.of(spec);
    Call call = call(plan, qkv, bias, table, y, lse);
    int units = spec.batch() * plan.windows * plan.groups;
    pool.parallelFor(
        (units + UNITS - 1) / UNITS,
        task -> {
          Scratch scratch = Scratch.here();
          int end = Math.min(units, (task + 1) * UNITS);
          for (int unit = task * UNITS; unit < end; unit++) {
            forward(call, scratch, unit / plan.groups, unit % plan.groups);
          }
        });
  }

  /** Copies q, k and v of one window's group of heads. */
  private static float[] load(Call c, Scratch scratch, int window, int group) {
    WindowPlan p = c.plan;
    float[] tile = scratch.floats(TILE, (long) p.rows * p.ld + p.lanes);
    int channels = p.spec.channels();
    int map = window / p.windows * p.spec.height() * p.spec.width();
    int first = window % p.windows * p.tokens;
    for (int t = 0; t < p.tokens; t++) {
      int source = p.source[first + t];
      int to = t * p.ld;
      int column = group * p.groupChannels;
      if (source < 0) {
        for (int part = Q; part <= V; part++) {
          System.arraycopy(
              c.padding, part * channels + column, tile, to + part * p.part, p.groupChannels);
        }
        continue;
      }
      int from = c.qkvStart + (map + source) * 3 * channels + column;
      if (p.packed()) {
        c.qkv.get(from, tile, to, 3 * channels);
      } else {
        c.qkv.get(from, tile, to, p.groupChannels);
        c.qkv.get(from + channels, tile, to + p.part, p.groupChannels);
        c.qkv.get(from + 2 * channels, tile, to + 2 * p.part, p.groupChannels);
      }
    }
    return tile;
  }

  /** Transposed scores of one head, bias and mask included. */
  private static float[] scores(
      Call c, Scratch scratch, int window, int head, float[] tile, int column) {
    WindowPlan p = c.plan;
    float[] transposed = scratch.floats(TRANSPOSED, (long) p.headDim * p.lanes);
    AttentionTile.transpose(p.tokens, p.headDim, scale(p), tile, column, p.ld, transposed, p.lanes);
    float[] bias = c.spread;
    int biasOffset = head * p.scores();
    float[] mask = p.mask[window % p.windows];
    if (mask != null) {
      bias = scratch.floats(MASKED, p.scores());
      p.lower(mask, c.spread, biasOffset, bias);
      biasOffset = 0;
    }
    float[] scores = scratch.floats(SCORES, p.scores());
    TileProduct.multiply(
        p.tokens,
        p.lanes,
        p.headDim,
        tile,
        p.part + column,
        p.ld,
        1,
        transposed,
        0,
        p.lanes,
        bias,
        biasOffset,
        p.lanes,
        scores,
        0,
        p.lanes);
    return scores;
  }

  private static float scale(WindowPlan p) {
    return (float) (1 / Math.sqrt(p.headDim));
  }

  private static void forward(Call c, Scratch scratch, int window, int group) {
    WindowPlan p = c.plan;
    int d = p.headDim;
    float[] tile = load(c, scratch, window, group);
    int ldOut = p.groupChannels + VectorMath.LANES;
    float[] out = scratch.floats(OUT, (long) p.rows * ldOut + p.lanes);
    float[] inverse = scratch.floats(INVERSE, p.lanes);
    float[] lse = scratch.floats(LSE, p.lanes);
    for (int h = 0; h < p.groupHeads; h++) {
      int head = group * p.groupHeads + h;
      float[] s = scores(c, scratch, window, head, tile, h * d);
      AttentionTile.softmax(p.tokens, p.lanes, s, inverse, lse);
      TileProduct.multiply(
          p.tokens,
          d,
          p.tokens,
          s,
          0,
          1,
          p.lanes,
          tile,
          2 * p.part + h * d,
          p.ld,
          null,
          0,
          0,
          out,
          h * d,
          ldOut);
      AttentionTile.scaleRows(p.tokens, d, inverse, out, h * d, ldOut);
      if (c.lse != null) {
        c.lse.put(c.lseStart + (window * p.spec.heads() + head) * p.tokens, lse, 0, p.tokens);
      }
    }
    int channels = p.spec.channels();
    int map = window / p.windows * p.spec.height() * p.spec.width();
    int first = window % p.windows * p.tokens;
    for (int t = 0; t < p.tokens; t++) {
      int source = p.source[first + t];
      if (source >= 0) {
        int to = c.upStart + (map + source) * channels + group * p.groupChannels;
        c.up.put(to, out, t * ldOut, p.groupChannels);
      }
    }
  }

  /** See {@link org.deixis.backend.Backend#windowAttentionBackward}. */
  void windowAttentionBackward(
      WindowAttention spec,
      Array qkv,
      Array bias,
      Array table,
      Array y,
      Array lse,
      Array dy,
      Array dqkv,
      Array dBias,
      Array dTable) {
    WindowPlan plan = WindowPlan.of(spec);
    Call call = call(plan, qkv, bias, table, dy, lse);
    FloatBuffer to = floats(dqkv);
    int toStart = start(dqkv);
    int all = spec.batch() * plan.windows;
    int chunks = Math.max(1, Math.min(all, CHUNKS / plan.groups));
    int heads = spec.heads();
    int channels = spec.channels();
    Scratch scratch = Scratch.here();
    float[] tableSums = scratch.zeros(TABLE_SUMS, (long) chunks * heads * plan.tableRows);
    float[] paddingSums = scratch.zeros(PADDING_SUMS, (long) chunks * 3 * channels);
    pool.parallelFor(
        chunks * plan.groups,
        task -> {
          int chunk = task / plan.groups;
          int group = task % plan.groups;
          Scratch own = Scratch.here();
          float[] biasSums = own.zeros(BIAS_SUMS, (long) plan.groupHeads * plan.scores());
          int end = (int) ((long) all * (chunk + 1) / chunks);
          for (int window = (int) ((long) all * chunk / chunks); window < end; window++) {
            backward(call, own, window, group, biasSums);
            store(call, own, window, group, to, toStart, paddingSums, chunk * 3 * channels);
          }
          for (int h = 0; h < plan.groupHeads; h++) {
            int head = group * plan.groupHeads + h;
            plan.gather(
                biasSums, h * plan.scores(), tableSums, (chunk * heads + head) * plan.tableRows);
          }
        });
    float[] rows = scratch.floats(TABLE, (long) heads * plan.tableRows);
    for (int head = 0; head < heads; head++) {
      for (int r = 0; r < plan.tableRows; r++) {
        float sum = 0;
        for (int chunk = 0; chunk < chunks; chunk++) {
          sum += tableSums[(chunk * heads + head) * plan.tableRows + r];
        }
        rows[r * heads + head] = sum;
      }
    }
    floats(dTable).put(start(dTable), rows, 0, heads * plan.tableRows);
    if (dBias != null) {
      for (int chunk = 1; chunk < chunks; chunk++) {
        AttentionTile.add(3 * channels, paddingSums, chunk * 3 * channels, paddingSums, 0);
      }
      floats(dBias).put(start(dBias), paddingSums, 0, 3 * channels);
    }
  }

  /** Leaves the gradients of one window's q, k and v in the scratch's OUT, laid out as its tile. */
  private static void backward(Call c, Scratch scratch, int window, int group, float[] biasSums) {
    WindowPlan p = c.plan;
    int d = p.headDim;
    int lanes = p.lanes;
    int tokens = p.tokens;
    float[] tile = load(c, scratch, window, group);
    int ldUp = p.groupChannels + VectorMath.LANES;
    float[] up = scratch.floats(UP, (long) p.rows * ldUp + lanes);
    loadUp(c, window, group, up, ldUp);
    float[] out = scratch.floats(OUT, (long) p.rows * p.ld + lanes);
    float[] lse = scratch.zeros(LSE, lanes);
    float[] upTransposed = scratch.floats(UP_TRANSPOSED, (long) d * lanes);
    float[] ds = scratch.floats(UP_SCORES, p.scores());
    for (int h = 0; h < p.groupHeads; h++) {
      int head = group * p.groupHeads + h;
      int column = h * d;
      float[] s = scores(c, scratch, window, head, tile, column);
      c.lse.get(c.lseStart + (window * p.spec.heads() + head) * tokens, lse, 0, tokens);
      AttentionTile.probabilities(tokens, lanes, s, lse);
      AttentionTile.transpose(tokens, d, 1, up, column, ldUp, upTransposed, lanes);
      TileProduct.multiply(
          tokens,
          lanes,
          d,
          tile,
          2 * p.part + column,
          p.ld,
          1,
          upTransposed,
          0,
          lanes,
          null,
          0,
          0,
          ds,
          0,
          lanes);
      TileProduct.multiply(
          tokens,
          d,
          tokens,
          s,
          0,
          lanes,
          1,
          up,
          column,
          ldUp,
          null,
          0,
          0,
          out,
          2 * p.part + column,
          p.ld);
      AttentionTile.backward(tokens, lanes, scale(p), s, ds, biasSums, h * p.scores());
      TileProduct.multiply(
          tokens,
          d,
          tokens,
          ds,
          0,
          1,
          lanes,
          tile,
          p.part + column,
          p.ld,
          null,
          0,
          0,
          out,
          column,
          p.ld);
      TileProduct.multiply(
          tokens,
          d,
          tokens,
          ds,
          0,
          lanes,
          1,
          tile,
          column,
          p.ld,
          null,
          0,
          0,
          out,
          p.part + column,
          p.ld);
    }
  }

  /** The gradient that reaches one window's output; 0 at padded positions. */
  private static void loadUp(Call c, int window, int group, float[] up, int ldUp) {
    WindowPlan p = c.plan;
    int channels = p.spec.channels();
    int map = window / p.windows * p.spec.height() * p.spec.width();
    int first = window % p.windows * p.tokens;
    for (int t = 0; t < p.tokens; t++) {
      int source = p.source[first + t];
      if (source < 0) {
        Arrays.fill(up, t * ldUp, t * ldUp + p.groupChannels, 0);
      } else {
        int from = c.upStart + (map + source) * channels + group * p.groupChannels;
        c.up.get(from, up, t * ldUp, p.groupChannels);
      }
    }
  }

  private static void store(
      Call c,
      Scratch scratch,
      int window,
      int group,
      FloatBuffer to,
      int toStart,
      float[] paddingSums,
      int sumsOffset) {
    WindowPlan p = c.plan;
    float[] out = scratch.floats(OUT, 0);
    int channels = p.spec.channels();
    int map = window / p.windows * p.spec.height() * p.spec.width();
    int first = window % p.windows * p.tokens;
    int column = group * p.groupChannels;
    for (int t = 0; t < p.tokens; t++) {
      int source = p.source[first + t];
      int from = t * p.ld;
      int at = toStart + (map + source) * 3 * channels + column;
      if (source < 0) {
        for (int part = Q; part <= V; part++) {
          AttentionTile.add(
              p.groupChannels,
              out,
              from + part * p.part,
              paddingSums,
              sumsOffset + part * channels + column);
        }
      } else if (p.packed()) {
        to.put(at, out, from, 3 * channels);
      } else {
        to.put(at, out, from, p.groupChannels);
        to.put(at + channels, out, from + p.part, p.groupChannels);
        to.put(at + 2 * channels, out, from + 2 * p.part, p.groupChannels);
      }
    }
  }
}
