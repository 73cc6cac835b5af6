package org.deixis.backend.cpu;

import java.util.concurrent.ConcurrentHashMap;
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

  /** Side of the shift's seams that (window, token) lies on. */
  final int[] side;

  /** Whether the tokens of a window lie on several sides. */
  final boolean[] masked;

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
    side = new int[windows * tokens];
    masked = new boolean[windows];
    int across = s.frameWidth() / s.windowW();
    for (int w = 0; w < windows; w++) {
      for (int t = 0; t < tokens; t++) {
        int i = w / across * s.windowH() + t / s.windowW();
        int j = w % across * s.windowW() + t % s.windowW();
        source[w * tokens + t] = s.source(i, j);
        side[w * tokens + t] = s.side(i, j);
        masked[w] |= side[w * tokens + t] != side[w * tokens];
      }
    }
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
   */
  void spread(float[] table, int head, float[] to, int offset) {
    int heads = spec.heads();
    int ww = spec.windowW();
    for (int key = 0; key < tokens; key++) {
      int row = offset + key * lanes;
      for (int y = 0; y < spec.windowH(); y++) {
        int from = first(key, y) * heads + head;
        for (int x = 0; x < ww; x++) {
          to[row + y * ww + x] = table[from + x * heads];
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

  /** to = from with the pairs lowered that the shift's mask separates. */
  void mask(int window, float[] from, int offset, float[] to) {
    int w = window * tokens;
    for (int key = 0; key < tokens; key++) {
      int keySide = side[w + key];
      int row = key * lanes;
      for (int i = 0; i < tokens; i++) {
        float bias = from[offset + row + i];
        to[row + i] = side[w + i] == keySide ? bias : bias + WindowAttention.MASKED;
      }
      for (int i = tokens; i < lanes; i++) {
        to[row + i] = 0;
      }
    }
  }
}
