package org.deixis.bench;

import static org.deixis.bench.OpCase.op;

import java.util.List;
import org.deixis.autograd.Variable;
import org.deixis.backend.Binary;
import org.deixis.backend.Reduction;
import org.deixis.backend.Unary;
import org.deixis.bench.OpCase.Kind;
import org.deixis.core.Shape;
import org.deixis.ops.AttentionOp;
import org.deixis.ops.BinaryOp;
import org.deixis.ops.Dropout;
import org.deixis.ops.Embedding;
import org.deixis.ops.GroupNorm;
import org.deixis.ops.GruCell;
import org.deixis.ops.Layout;
import org.deixis.ops.Losses;
import org.deixis.ops.Patches;
import org.deixis.ops.Reduce;
import org.deixis.ops.RegionAttention;
import org.deixis.ops.RegionPool;
import org.deixis.ops.Resize;
import org.deixis.ops.Scale;
import org.deixis.ops.UnaryOp;

/**
 * Cases for kernels that move several elements at once: sizes that are no whole pack or tile, rows
 * that are whole packs and rows that are not, and operands that begin off a pack's alignment (a
 * slice of an array whose rows are of odd length).
 */
final class WideLoadCases {
  private WideLoadCases() {}

  static void addTo(List<OpCase> cases) {
    elementwise(cases);
    binary(cases);
    dropout(cases);
    moves(cases);
    embedding(cases);
    geometry(cases);
    attention(cases);
    regions(cases);
    masks(cases);
    groupNorm(cases);
  }

  private static void elementwise(List<OpCase> cases) {
    for (Unary kind : Unary.values()) {
      cases.add(
          op(UnaryOp.name(kind), "off alignment")
              .in(7, 37)
              .run(v -> UnaryOp.apply(kind, Layout.slice(v[0], 1, 6))));
    }
    cases.add(op(Scale.NAME, "tiles").in(67, 129).run(v -> Scale.apply(v[0], 0.3)));
    cases.add(
        op(Scale.NAME, "off alignment")
            .in(5, 1001)
            .run(v -> Scale.apply(Layout.slice(v[0], 1, 5), 0.3)));
    int[][] states = {{5, 13}, {41, 64}};
    for (int[] s : states) {
      cases.add(
          op(GruCell.NAME, Shape.of(s).toString())
              .in(s[0], 3 * s[1])
              .in(s[0], 3 * s[1])
              .in(s)
              .run(v -> GruCell.apply(v[0], v[1], v[2])));
    }
  }

  private static void binary(List<OpCase> cases) {
    int[][][] shapes = {
      {{67, 129}, {67, 129}},
      {{90, 96}, {96}},
      {{130, 64}, {130, 1}},
      {{3, 40, 24}, {3, 1, 24}},
      {{3, 40, 24}, {40, 1}},
      {{9, 1001}, {1}}
    };
    for (Binary kind : Binary.values()) {
      String name = BinaryOp.name(kind);
      for (int[][] s : shapes) {
        cases.add(
            op(name, "wide " + Shape.of(s[0]) + " " + Shape.of(s[1]))
                .in(s[0])
                .scaled(0.5, s[1])
                .run(v -> BinaryOp.apply(kind, v[0], divisor(kind, v[1]))));
      }
    }
    cases.add(
        op(BinaryOp.name(Binary.ADD), "first off alignment")
            .in(5, 21)
            .in(4, 21)
            .run(v -> BinaryOp.apply(Binary.ADD, Layout.slice(v[0], 1, 5), v[1])));
    cases.add(
        op(BinaryOp.name(Binary.ADD), "second off alignment")
            .in(4, 21)
            .in(5, 21)
            .run(v -> BinaryOp.apply(Binary.ADD, v[0], Layout.slice(v[1], 1, 5))));
    cases.add(
        op(BinaryOp.name(Binary.MUL), "row off alignment")
            .in(9, 16)
            .in(17)
            .run(v -> BinaryOp.apply(Binary.MUL, v[0], Layout.slice(v[1], 1, 17))));
  }

  /** exp keeps a divisor away from 0. */
  private static Variable divisor(Binary kind, Variable v) {
    return kind == Binary.DIV ? UnaryOp.apply(Unary.EXP, v) : v;
  }

  private static void dropout(List<OpCase> cases) {
    for (int offset = 0; offset < 4; offset++) {
      int first = offset;
      cases.add(
          op(Dropout.NAME, "first draw " + offset)
              .in(67, 65)
              .in(Kind.RNG, 0, 2)
              .run(v -> Dropout.apply(v[0], 0.3, 1, v[1], first)));
    }
    cases.add(
        op(Dropout.NAME, "blocks of whole packs")
            .in(60, 72)
            .in(Kind.RNG, 0, 2)
            .run(v -> Dropout.apply(v[0], 0.3, 24, v[1], 3)));
    cases.add(
        op(Dropout.NAME, "off alignment")
            .in(9, 35)
            .in(Kind.RNG, 0, 2)
            .run(v -> Dropout.apply(Layout.slice(v[0], 1, 9), 0.3, 1, v[1], 3)));
  }

  private static void moves(List<OpCase> cases) {
    int[][] folds = {{300, 40}, {5, 70, 16}, {3, 67, 129}};
    for (Reduction kind : Reduction.values()) {
      String name = Reduce.name(kind);
      boolean gradient = kind != Reduction.MAX;
      for (int[] s : folds) {
        int axis = s.length - 2;
        OpCase.Builder b = op(name, "wide columns " + Shape.of(s));
        cases.add(
            (gradient ? b.in(s) : b.in(Kind.FLOATS, 1, s))
                .run(v -> Reduce.apply(kind, v[0], axis, axis + 1)));
      }
      int[][] rows = {{9, 264}, {3, 4104}, {2, 1, 16_416}, {5, 2051}};
      for (int[] s : rows) {
        int axis = s.length - 1;
        OpCase.Builder b = op(name, "wide rows " + Shape.of(s));
        cases.add(
            (gradient ? b.in(s) : b.in(Kind.FLOATS, 1, s))
                .run(v -> Reduce.apply(kind, v[0], axis, axis + 1)));
      }
      OpCase.Builder b = op(name, "columns off alignment");
      cases.add(
          (gradient ? b.in(649) : b.in(Kind.FLOATS, 1, 649))
              .run(
                  v ->
                      Reduce.apply(
                          kind,
                          Layout.reshape(Layout.slice(v[0], 1, 649), Shape.of(81, 8)),
                          0,
                          1)));
    }
    cases.add(
        op(Layout.CONCAT, "whole packs")
            .in(90, 24)
            .in(90, 8)
            .in(90, 16)
            .run(v -> Layout.concat(v[0], v[1], v[2])));
    cases.add(op(Layout.REPEAT, "whole packs").in(33, 72).run(v -> Layout.repeat(v[0], 3)));
    cases.add(op(Layout.REPEAT, "tiles").in(67, 65).run(v -> Layout.repeat(v[0], 2)));
    int[][][] permutations = {
      {{2, 5, 3, 16}, {0, 2, 1, 3}},
      {{3, 70, 45}, {0, 2, 1}},
      {{3, 8, 9, 33}, {2, 3, 0, 1}},
      {{7, 5, 11}, {2, 1, 0}},
      {{2, 3, 5, 7}, {3, 2, 1, 0}},
      {{1, 40, 1, 24}, {0, 2, 1, 3}},
      {{2, 3, 2, 3, 2, 8}, {4, 1, 2, 3, 0, 5}}
    };
    for (int[][] p : permutations) {
      cases.add(
          op(Layout.TRANSPOSE, Shape.of(p[0]) + " " + Shape.of(p[1]))
              .in(p[0])
              .run(v -> Layout.transpose(v[0], p[1])));
    }
    cases.add(
        op(Layout.TRANSPOSE, "off alignment")
            .in(4, 3, 5, 1)
            .run(v -> Layout.transpose(Layout.slice(v[0], 1, 4), 1, 0, 2, 3)));
  }

  private static void embedding(List<OpCase> cases) {
    // Rows of the table, ids, columns: many places an id, and many ids with few.
    int[][] sizes = {{3, 301, 40}, {211, 150, 264}, {5, 77, 13}};
    for (int[] s : sizes) {
      cases.add(
          op(Embedding.NAME, s[1] + " ids of " + s[0] + ", " + s[2] + " columns")
              .in(Kind.INTS, s[0], s[1])
              .in(s[0], s[2])
              .run(v -> Embedding.apply(v[0], v[1])));
    }
  }

  private static void geometry(List<OpCase> cases) {
    cases.add(
        op(Patches.GATHER, "8×8").in(2, 3, 40, 48).run(v -> Patches.gather(v[0], 8, v[0].dtype())));
    // Bytes have no gradient; the factor gives the case its type.
    cases.add(
        op(Patches.GATHER, "bytes beyond the edge")
            .in(Kind.PICTURE, 0, 2, 17, 26, 3)
            .in(2, 5, 7, 48)
            .run(v -> BinaryOp.apply(Binary.MUL, Patches.gather(v[0], 4, v[1].dtype()), v[1])));
    cases.add(op(Patches.MERGE, "tiles").in(2, 9, 14, 72).run(v -> Patches.merge(v[0])));
    cases.add(
        op(Patches.MERGE, "off alignment")
            .in(3, 3, 3, 8)
            .run(
                v ->
                    Patches.merge(
                        Layout.reshape(
                            Layout.slice(Layout.reshape(v[0], Shape.of(216)), 1, 193),
                            Shape.of(1, 4, 6, 8)))));
    int[][] sizes = {{7, 9, 14, 18}, {24, 20, 10, 10}, {8, 6, 32, 24}, {5, 5, 13, 3}};
    for (int[] s : sizes) {
      cases.add(
          op(Resize.NAME, "packs, " + s[0] + "×" + s[1] + " to " + s[2] + "×" + s[3])
              .in(2, s[0], s[1], 16)
              .run(v -> Resize.apply(v[0], s[2], s[3])));
    }
    cases.add(
        op(Resize.NAME, "off alignment")
            .in(3, 5, 5, 3)
            .run(v -> Resize.apply(Layout.slice(v[0], 1, 3), 9, 11)));
    cases.add(
        op(Resize.ADD, "packs, shared by 2")
            .in(2, 6, 8, 24)
            .in(4, 3, 4, 24)
            .run(v -> Resize.add(v[0], v[1], 2)));
    cases.add(
        op(RegionPool.NAME, "rows of whole fours")
            .in(2, 44, 96)
            .run(v -> RegionPool.apply(v[0], 2, 4, v[0].dtype())));
    int[][] bitmaps = {{3, 44, 96}, {2, 45, 50}};
    for (int[] s : bitmaps) {
      cases.add(
          op(RegionPool.NAME, "bytes " + Shape.of(s))
              .in(Kind.BITMAP, 1, s)
              .in(s[0], 8)
              .run(
                  v ->
                      BinaryOp.apply(
                          Binary.MUL, RegionPool.apply(v[0], 2, 4, v[1].dtype()), v[1])));
    }
  }

  /**
   * Attention over short sequences: keys that are no whole tiles of 8, 32 or 64 and a few more;
   * heads of whole packs that are no whole steps of 16; tiles and chunks of 64 queries.
   */
  private static void attention(List<OpCase> cases) {
    int[][] own = {{3, 20, 2, 64}, {2, 8, 3, 8}, {3, 33, 2, 24}, {3, 64, 1, 40}, {2, 65, 1, 16}};
    for (int[] s : own) {
      cases.add(
          op(AttentionOp.SELF, s[1] + " tokens, " + s[2] + " heads of " + s[3])
              .in(s[0], s[1], 3 * s[2] * s[3])
              .in(Kind.MASK, 1, s[0], s[1])
              .run(v -> AttentionOp.self(v[0], v[1], s[2])));
    }
    // Batch, queries, keys, heads, columns: with 18 heads in all, a chunk of several tiles.
    int[][] other = {
      {2, 3, 1, 1, 8},
      {9, 150, 20, 2, 8},
      {1, 130, 7, 2, 32},
      {2, 200, 40, 1, 64},
      {3, 5, 33, 2, 16},
      {2, 17, 64, 2, 56},
      {2, 70, 9, 1, 136},
      {2, 34, 70, 1, 37}
    };
    for (int[] s : other) {
      cases.add(LongAttentionCases.cross(s));
    }
    cases.add(
        op(AttentionOp.CROSS, "chunks, masked")
            .in(3, 150, 48)
            .in(3, 12, 96)
            .in(Kind.MASK, 1, 3, 12)
            .run(v -> AttentionOp.cross(v[0], v[1], v[2], 2)));
    cases.add(
        op(AttentionOp.CROSS, "off alignment")
            .in(2 * 9 * 16 + 1)
            .in(2, 5, 32)
            .run(
                v ->
                    AttentionOp.cross(
                        Layout.reshape(Layout.slice(v[0], 1, 2 * 9 * 16 + 1), Shape.of(2, 9, 16)),
                        v[1],
                        null,
                        2)));
    cases.add(
        op(AttentionOp.CROSS, "no queries")
            .in(2, 0, 16)
            .in(2, 5, 32)
            .run(v -> AttentionOp.cross(v[0], v[1], null, 2)));
  }

  /** Region attention: sets of regions, chunks of tiles of 64 pixels, packs of columns and none. */
  private static void regions(List<OpCase> cases) {
    int[][] sizes = {
      {2, 1, 70, 32},
      {1, 3, 130, 8},
      {2, 16, 64, 40},
      {3, 8, 450, 72},
      {4, 16, 333, 136},
      {5, 40, 200, 24},
      {1, 5, 90, 328},
      {1, 128, 100, 16},
      {2, 9, 150, 7},
      {2, 4, 150, 12},
      {1, 5, 40, 515},
      {0, 4, 10, 16},
      {2, 0, 10, 16}
    };
    for (int[] s : sizes) {
      cases.add(
          op(RegionAttention.NAME, s[1] + " regions, " + Shape.of(s[0], s[2], s[3]))
              .scaled(2, s[0], s[1], s[3])
              .in(s[0], s[2], s[3])
              .in(s[0], s[2], s[3])
              .runs(v -> RegionAttention.apply(v[0], v[1], v[2])));
    }
    cases.add(
        op(RegionAttention.NAME, "off alignment")
            .in(2, 6, 16)
            .in(2 * 70 * 16 + 1)
            .in(2, 70, 16)
            .runs(
                v ->
                    RegionAttention.apply(
                        v[0],
                        Layout.reshape(Layout.slice(v[1], 1, 2 * 70 * 16 + 1), Shape.of(2, 70, 16)),
                        v[2])));
    cases.add(
        op(RegionAttention.NAME, "chunks, map unused")
            .in(3, 12, 16)
            .in(3, 300, 16)
            .in(3, 300, 16)
            .run(v -> RegionAttention.apply(v[0], v[1], v[2])[0]));
  }

  /**
   * The mask's loss: {pictures, logits' rows and columns, pixels' rows and columns} with several
   * runs of rows, tiles of columns whose rims overlap, no fours, fewer pixels than logits, one
   * logit, and bitmaps that are no bytes.
   */
  private static void masks(List<OpCase> cases) {
    int[][] sizes = {
      {2, 19, 6, 76, 24},
      {1, 3, 160, 9, 640},
      {1, 9, 131, 27, 523},
      {2, 17, 12, 8, 5},
      {1, 1, 1, 12, 10},
      {1, 2, 1, 3, 1200},
      {3, 8, 8, 8, 8}
    };
    for (int[] s : sizes) {
      for (OpCase.Kind kind : new OpCase.Kind[] {OpCase.Kind.BITMAP, OpCase.Kind.BITS}) {
        for (float dice : new float[] {0, 1}) {
          cases.add(
              op(
                      Losses.MASK,
                      Shape.of(s[0], s[1], s[2])
                          + " to "
                          + Shape.of(s[3], s[4])
                          + " "
                          + kind
                          + ", dice "
                          + dice)
                  .scaled(2, s[0], s[1], s[2])
                  .in(kind, 1, s[0], s[3], s[4])
                  .run(v -> Losses.mask(v[0], v[1], null, dice)));
        }
      }
    }
  }

  /**
   * Groups of one pack and of several, and of none; one pixel, chunks that are no whole tiles, a
   * last run of fewer groups, a group as wide as a block and wider.
   */
  private static void groupNorm(List<OpCase> cases) {
    // Batch, pixels, channels, groups.
    int[][] sizes = {
      {2, 131, 32, 4},
      {3, 70, 48, 3},
      {1, 450, 24, 1},
      {2, 1, 64, 2},
      {1, 37, 520, 65},
      {1, 5, 1024, 1},
      {1, 3, 4096, 1},
      {2, 67, 24, 2},
      {2, 33, 21, 3},
      {0, 9, 16, 2}
    };
    for (int[] s : sizes) {
      cases.add(
          op(GroupNorm.NAME, s[3] + " groups, " + Shape.of(s[0], s[1], s[2]))
              .in(s[0], s[1], s[2])
              .in(s[2])
              .in(s[2])
              .run(v -> GroupNorm.apply(v[0], s[3], v[1], v[2], 1e-5)));
    }
    cases.add(
        op(GroupNorm.NAME, "whole packs, no affine")
            .in(2, 75, 32)
            .run(v -> GroupNorm.apply(v[0], 2, null, null, 1e-5)));
    cases.add(
        op(GroupNorm.NAME, "off alignment")
            .in(2 * 9 * 16 + 1)
            .in(16)
            .in(16)
            .run(
                v ->
                    GroupNorm.apply(
                        Layout.reshape(Layout.slice(v[0], 1, 2 * 9 * 16 + 1), Shape.of(2, 9, 16)),
                        2,
                        v[1],
                        v[2],
                        1e-5)));
    cases.add(
        op(GroupNorm.NAME, "gamma off alignment")
            .in(2, 9, 16)
            .in(17)
            .in(16)
            .run(v -> GroupNorm.apply(v[0], 2, Layout.slice(v[1], 1, 17), v[2], 1e-5)));
  }
}
