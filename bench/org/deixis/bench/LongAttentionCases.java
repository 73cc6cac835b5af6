package org.deixis.bench;

import static org.deixis.bench.OpCase.op;

import java.util.List;
import org.deixis.bench.OpCase.Kind;
import org.deixis.ops.AttentionOp;

/**
 * Attention over more than 64 keys, which a kernel meets in steps, and by heads that are wider than
 * 64 columns: last steps of one key and of all, steps without a key to be seen before, between and
 * behind others, queries that are no whole warps or blocks, and so many that keys' gradients are
 * summed in parts.
 */
final class LongAttentionCases {
  private LongAttentionCases() {}

  static void addTo(List<OpCase> cases) {
    // Batch, tokens, heads, columns.
    int[][] own = {{2, 65, 2, 64}, {4, 100, 1, 8}, {2, 128, 2, 32}, {1, 512, 1, 8}, {2, 20, 1, 72}};
    for (int[] s : own) {
      cases.add(self(Kind.MASK, s));
    }
    int[][] gaps = {{3, 200, 1, 40}, {1, 321, 2, 16}, {2, 130, 1, 128}, {1, 449, 1, 64}};
    for (int[] s : gaps) {
      cases.add(self(Kind.GAPS, s));
    }
    // Batch, queries, keys, heads, columns.
    int[][] other = {
      {3, 1, 65, 2, 32},
      {2, 20, 100, 2, 64},
      {1, 130, 200, 2, 40},
      {1, 20, 512, 1, 64},
      {1, 1100, 70, 1, 24},
      {1, 40, 150, 2, 96},
      {1, 1030, 33, 1, 80},
      {1, 10, 70, 1, 136}
    };
    for (int[] s : other) {
      cases.add(cross(s));
    }
    cases.add(
        op(AttentionOp.CROSS, "many queries, keys with gaps")
            .in(3, 140, 48)
            .in(3, 330, 96)
            .in(Kind.GAPS, 1, 3, 330)
            .run(v -> AttentionOp.cross(v[0], v[1], v[2], 2)));
  }

  /** Batch, queries, keys, heads, and columns of each. */
  static OpCase cross(int... s) {
    int c = s[3] * s[4];
    return op(AttentionOp.CROSS, "%d×%d×%d, %d heads of %d".formatted(s[0], s[1], s[2], s[3], s[4]))
        .scaled(2, s[0], s[1], c)
        .in(s[0], s[2], 2 * c)
        .run(v -> AttentionOp.cross(v[0], v[1], null, s[3]));
  }

  private static OpCase self(Kind mask, int... s) {
    String label = "%d×%d tokens, %d heads of %d, %s".formatted(s[0], s[1], s[2], s[3], mask);
    return op(AttentionOp.SELF, label)
        .scaled(1.5, s[0], s[1], 3 * s[2] * s[3])
        .in(mask, 1, s[0], s[1])
        .run(v -> AttentionOp.self(v[0], v[1], s[2]));
  }
}
