package org.deixis.backend.cpu;

import java.nio.IntBuffer;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import jdk.incubator.vector.FloatVector;
import org.deixis.backend.WindowAttention;

/**
 * What windowed attention needs to know of a specification, worked out once: indices and blocks.
 */
final class WindowPlan {
  /** Plans kept; pictures of ever new sizes must not fill the memory. */
  private static final int KEPT = 256;

  /** Channels of a block of heads, so that a window's q, k and v stay near the core. */
  private static final int GROUP_CHANNELS = 128;

  private static final ConcurrentHashMap<WindowAttention, WindowPlan> PLANS =
      new ConcurrentHashMap<>();

  final WindowAttention spec;
  final int windows;

  /** Positions of a window. */
  final int tokens;

  /** {@link #tokens} in whole vectors. */
  final int lanes;

  /** {@link #tokens} in whole blocks of {@link TileProduct}. */
  final int rows;

  final int headDim;

  /** Heads that one task computes together, and how many such groups there are. */
  final int groupHeads;

  final int groups;

  /** Channels of a group. */
  final int groupChannels;

  /** Distance between q, k and v in a tile's row, and between rows. */
  final int part;

  final int ld;

  /** Map position that (window, token) reads, −1 for padding. */
  final int[] source;

  /**
   * What a window's transposed scores are lowered by where the shift's seam separates key and
   * query, null where it runs through no pair. Windows that are cut alike share one array.
   */
  final float[][] mask;

  /** Rows of the relative-position table. */
  final int tableRows;

  private WindowPlan(WindowAttention s) {
    spec = s;
    windows = s.windows();
    tokens = s.windowH() * s.windowW();
    lanes = VectorMath.pad(tokens);
    rows = TileProduct.rows(tokens);
    headDim = s.headDim();
    int heads = s.heads();
    int together = Math.max(1, Math.min(heads, GROUP_CHANNELS / headDim));
    while (heads % together != 0) {
      together--;
    }
    groupHeads = together;
    groups = heads / together;
    groupChannels = together * headDim;
    // A head's last vector may reach into what follows; where that is another part, keep off it.
    part =
        headDim % VectorMath.LANES == 0
            ? groupChannels
            : VectorMath.pad(groupChannels) + VectorMath.LANES;
    ld = 3 * part + VectorMath.LANES;
    tableRows = (2 * s.windowH() - 1) * (2 * s.windowW() - 1);
    source = new int[windows * tokens];
    mask = new float[windows][];
    Map<IntBuffer, float[]> masks = new HashMap<>();
    int across = s.frameWidth() / s.windowW();
    for (int w = 0; w < windows; w++) {
      int[] side = new int[tokens];
      for (int t = 0; t < tokens; t++) {
        int i = w / across * s.windowH() + t / s.windowW();
        int j = w % across * s.windowW() + t % s.windowW();
        source[w * tokens + t] = s.source(i, j);
        side[t] = s.side(i, j);
      }
      if (Arrays.stream(side).anyMatch(x -> x != side[0])) {
        mask[w] = masks.computeIfAbsent(IntBuffer.wrap(side), x -> mask(side));
      }
    }
  }

  private float[] mask(int[] side) {
    float[] lowered = new float[scores()];
    for (int key = 0; key < tokens; key++) {
      for (int i = 0; i < tokens; i++) {
        lowered[key * lanes + i] = side[i] == side[key] ? 0 : WindowAttention.MASKED;
      }
    }
    return lowered;
  }

  static WindowPlan of(WindowAttention spec) {
    WindowPlan plan = PLANS.get(spec);
    if (plan == null) {
      if (PLANS.size() >= KEPT) {
        PLANS.clear();
      }
      plan = new WindowPlan(spec);
      PLANS.put(spec, plan);
    }
    return plan;
  }

  /** True when q, k and v of a token lie side by side in memory as in the tile. */
  boolean packed() {
    return groups == 1 && part == groupChannels;
  }

  /** Elements of one head's transposed scores. */
  int scores() {
    return rows * lanes;
  }

  /**
   * Spreads the table of one head over transposed scores: to[key][query] = bias of the pair.
   *
   * @param table (tableRows, heads)
   * @param column scratch for {@link #tableRows} elements and a vector
   */
  void spread(float[] table, int head, float[] column, float[] to, int offset) {
    for (int r = 0; r < tableRows; r++) {
      column[r] = table[r * spec.heads() + head];
    }
    int ww = spec.windowW();
    for (int key = 0; key < tokens; key++) {
      int row = offset + key * lanes;
      for (int y = 0; y < spec.windowH(); y++) {
        int from = first(key, y);
        int at = row + y * ww;
        if (y + 1 < spec.windowH()
            && ww <= VectorMath.LANES
            && at + VectorMath.LANES <= row + lanes) {
          // what is too much of the vector is written over by the next lines
          FloatVector.fromArray(VectorMath.SPECIES, column, from).intoArray(to, at);
        } else {
          System.arraycopy(column, from, to, at, ww);
        }
      }
      for (int i = tokens; i < lanes; i++) {
        to[row + i] = 0;
      }
    }
  }

  /** The adjoint of {@link #spread} for one head: adds to table[row]. */
  void gather(float[] scores, int offset, float[] table, int tableOffset) {
    int ww = spec.windowW();
    for (int key = 0; key < tokens; key++) {
      int row = offset + key * lanes;
      for (int y = 0; y < spec.windowH(); y++) {
        int to = tableOffset + first(key, y);
        for (int x = 0; x < ww; x++) {
          table[to + x] += scores[row + y * ww + x];
        }
      }
    }
  }

  /** Table row of the query in line y, column 0; those to its right follow. */
  private int first(int key, int y) {
    int ww = spec.windowW();
    return (y - key / ww + spec.windowH() - 1) * (2 * ww - 1) + ww - 1 - key % ww;
  }

  /** to = from, lowered by a {@link #mask}. */
  void lower(float[] by, float[] from, int offset, float[] to) {
    int n = tokens * lanes;
    for (int i = 0; i < n; i++) {
      to[i] = from[offset + i] + by[i];
    }
  }
}
