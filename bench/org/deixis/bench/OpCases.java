package org.deixis.bench;

import static org.deixis.bench.OpCase.op;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Activation;
import org.deixis.backend.Binary;
import org.deixis.backend.Reduction;
import org.deixis.backend.Unary;
import org.deixis.bench.OpCase.Kind;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.ops.AttentionOp;
import org.deixis.ops.BinaryOp;
import org.deixis.ops.Convolution;
import org.deixis.ops.Dropout;
import org.deixis.ops.Embedding;
import org.deixis.ops.FeedForward;
import org.deixis.ops.GroupNorm;
import org.deixis.ops.GruCell;
import org.deixis.ops.LayerNorm;
import org.deixis.ops.Layout;
import org.deixis.ops.Linear;
import org.deixis.ops.Losses;
import org.deixis.ops.MatMul;
import org.deixis.ops.Patches;
import org.deixis.ops.Reduce;
import org.deixis.ops.RegionAttention;
import org.deixis.ops.RegionPool;
import org.deixis.ops.Resize;
import org.deixis.ops.Scale;
import org.deixis.ops.Softmax;
import org.deixis.ops.UnaryOp;
import org.deixis.ops.WindowAttentionOp;

/**
 * The table of cases: every operation, with shapes that are easy to get wrong (1, primes, 49 and
 * 144 columns, empty).
 */
public final class OpCases {
  private OpCases() {}

  public static List<OpCase> all() {
    List<OpCase> cases = new ArrayList<>();
    elementwise(cases);
    products(cases);
    norms(cases);
    attention(cases);
    geometry(cases);
    losses(cases);
    layout(cases);
    WideLoadCases.addTo(cases);
    LongAttentionCases.addTo(cases);
    return List.copyOf(cases);
  }

  private static void elementwise(List<OpCase> cases) {
    for (Unary kind : Unary.values()) {
      double scale = kind == Unary.EXP ? 1 : 3;
      String name = UnaryOp.name(kind);
      cases.add(op(name, "prime").scaled(scale, 7, 37).run(v -> UnaryOp.apply(kind, v[0])));
      cases.add(op(name, "one").scaled(scale, 1).run(v -> UnaryOp.apply(kind, v[0])));
      cases.add(op(name, "empty").scaled(scale, 0, 5).run(v -> UnaryOp.apply(kind, v[0])));
      cases.add(op(name, "large").scaled(scale, 67, 129).run(v -> UnaryOp.apply(kind, v[0])));
    }
    for (Binary kind : Binary.values()) {
      String name = BinaryOp.name(kind);
      int[][][] shapes = {
        {{3, 5, 7}, {3, 5, 7}},
        {{3, 5, 7}, {7}},
        {{3, 5, 7}, {5, 7}},
        {{3, 5, 7}, {3, 1, 1}},
        {{3, 5, 7}, {3, 5, 1}},
        {{3, 5, 7}, {3, 1, 7}},
        {{3, 5, 7}, {1, 5, 1}},
        {{3, 5, 7}, {1}},
        {{0, 5}, {5}},
        {{61, 257}, {257}},
        {{1}, {1}}
      };
      for (int[][] s : shapes) {
        // exp keeps a divisor away from 0.
        cases.add(
            op(name, Shape.of(s[0]) + " " + Shape.of(s[1]))
                .in(s[0])
                .scaled(0.5, s[1])
                .run(
                    v ->
                        BinaryOp.apply(
                            kind,
                            v[0],
                            kind == Binary.DIV ? UnaryOp.apply(Unary.EXP, v[1]) : v[1])));
      }
    }
    cases.add(op(Scale.NAME, "3×11").in(3, 11).run(v -> Scale.apply(v[0], -1.7)));
    for (Reduction kind : Reduction.values()) {
      String name = Reduce.name(kind);
      cases.add(reduce(name, kind, "columns", kind != Reduction.MAX, 2, 3, 5, 7, 49));
      cases.add(reduce(name, kind, "middle", kind != Reduction.MAX, 1, 2, 3, 11, 5));
      cases.add(reduce(name, kind, "rows", kind != Reduction.MAX, 0, 1, 259, 17));
      cases.add(reduce(name, kind, "all", kind != Reduction.MAX, 0, 2, 13, 31));
    }
  }

  private static OpCase reduce(
      String name, Reduction kind, String label, boolean gradient, int from, int to, int... dims) {
    OpCase.Builder b = op(name, label);
    b = gradient ? b.in(dims) : b.in(Kind.FLOATS, 1, dims);
    return b.run(v -> Reduce.apply(kind, v[0], from, to));
  }

  private static void products(List<OpCase> cases) {
    for (Activation act : Activation.values()) {
      cases.add(
          op(Linear.NAME, "3×5×37 to 23 " + act)
              .in(3, 5, 37)
              .scaled(0.3, 23, 37)
              .in(23)
              .run(v -> Linear.apply(v[0], v[1], v[2], act)));
      cases.add(
          op(Linear.NAME, "one row " + act)
              .in(1, 8)
              .scaled(0.3, 3, 8)
              .in(3)
              .run(v -> Linear.apply(v[0], v[1], v[2], act)));
    }
    for (Activation act : Activation.values()) {
      if (act != Activation.NONE) {
        cases.add(
            op(FeedForward.NAME, "3×5×8 over 24 " + act)
                .in(3, 5, 8)
                .scaled(0.5, 24, 8)
                .in(24)
                .scaled(0.3, 7, 24)
                .in(7)
                .run(v -> FeedForward.apply(v[0], v[1], v[2], act, v[3], v[4])));
      }
    }
    cases.add(
        op(FeedForward.NAME, "no biases, 131 rows over 19")
            .in(131, 9)
            .scaled(0.4, 19, 9)
            .scaled(0.3, 16, 19)
            .run(v -> FeedForward.apply(v[0], v[1], null, Activation.GELU, v[2], null)));
    cases.add(
        op(FeedForward.NAME, "empty batch")
            .in(0, 4, 6)
            .in(5, 6)
            .in(5)
            .in(2, 5)
            .in(2)
            .run(v -> FeedForward.apply(v[0], v[1], v[2], Activation.GELU_TANH, v[3], v[4])));
    cases.add(
        op(Linear.NAME, "no bias, wide")
            .in(67, 96)
            .scaled(0.1, 129, 96)
            .run(v -> Linear.apply(v[0], v[1], null, Activation.NONE)));
    cases.add(
        op(Linear.NAME, "empty batch")
            .in(0, 4, 6)
            .in(5, 6)
            .in(5)
            .run(v -> Linear.apply(v[0], v[1], v[2], Activation.GELU)));
    for (boolean ta : new boolean[] {false, true}) {
      for (boolean tb : new boolean[] {false, true}) {
        int[] a = ta ? new int[] {2, 3, 7, 5} : new int[] {2, 3, 5, 7};
        int[] b = tb ? new int[] {2, 3, 11, 7} : new int[] {2, 3, 7, 11};
        cases.add(
            op(MatMul.NAME, "batched " + ta + " " + tb)
                .in(a)
                .in(b)
                .run(v -> MatMul.apply(v[0], v[1], ta, tb, 0.37f)));
      }
    }
    cases.add(
        op(MatMul.NAME, "row by column")
            .in(4, 1, 49)
            .in(4, 49, 1)
            .run(v -> MatMul.apply(v[0], v[1], false, false, 1)));
    cases.add(
        op(Convolution.NAME, "3×3")
            .in(2, 9, 13, 12)
            .scaled(0.2, 20, 12, 3, 3)
            .in(20)
            .run(v -> Convolution.apply(v[0], v[1], v[2], 1, 1)));
    cases.add(
        op(Convolution.NAME, "3×3 of one pixel")
            .in(1, 1, 1, 3)
            .scaled(0.2, 5, 3, 3, 3)
            .run(v -> Convolution.apply(v[0], v[1], null, 1, 1)));
    cases.add(
        op(Convolution.NAME, "stride 2")
            .in(3, 7, 6, 16)
            .scaled(0.2, 8, 16, 3, 3)
            .in(8)
            .run(v -> Convolution.apply(v[0], v[1], v[2], 2, 1)));
    cases.add(
        op(GruCell.NAME, "2×24")
            .in(2, 72)
            .in(2, 72)
            .in(2, 24)
            .run(v -> GruCell.apply(v[0], v[1], v[2])));
  }

  private static void norms(List<OpCase> cases) {
    int[][] shapes = {
      {6, 4, 49},
      {5, 144},
      {3, 1},
      {1, 97},
      {0, 8},
      {70, 128},
      {3, 1000},
      {2, 1025},
      {2, 2050},
      {3, 4104}
    };
    for (int[] s : shapes) {
      cases.add(
          op(Softmax.NAME, Shape.of(s).toString()).scaled(4, s).run(v -> Softmax.apply(v[0])));
    }
    int[][] layers = {
      {4, 9, 70},
      {3, 96},
      {1, 13},
      {5, 49},
      {0, 8},
      {67, 144},
      {37, 64},
      {5, 512},
      {3, 1024},
      {2, 1030}
    };
    for (int[] s : layers) {
      int c = s[s.length - 1];
      String label = Shape.of(s).toString();
      cases.add(
          op(LayerNorm.NAME, label)
              .scaled(2, s)
              .in(c)
              .in(c)
              .run(v -> LayerNorm.apply(v[0], v[1], v[2], 1e-5)));
      cases.add(
          op(LayerNorm.RESIDUAL_NAME, label)
              .in(s)
              .in(s)
              .in(c)
              .in(c)
              .runs(v -> LayerNorm.withResidual(v[0], v[1], v[2], v[3], 1e-5)));
    }
    cases.add(
        op(LayerNorm.NAME, "no affine")
            .in(24, 33)
            .run(v -> LayerNorm.apply(v[0], null, null, 1e-5)));
    cases.add(
        op(GroupNorm.NAME, "4 groups")
            .scaled(2, 2, 7, 5, 32)
            .in(32)
            .in(32)
            .run(v -> GroupNorm.apply(v[0], 4, v[1], v[2], 1e-5)));
    cases.add(
        op(GroupNorm.NAME, "a group a channel, no affine")
            .in(3, 11, 6)
            .run(v -> GroupNorm.apply(v[0], 6, null, null, 1e-5)));
  }

  private static void attention(List<OpCase> cases) {
    cases.add(window("plain", 2, 14, 14, 2, 8, 7, 7, 0, 0, false, false));
    cases.add(window("shifted", 1, 14, 14, 2, 5, 7, 7, 3, 3, false, false));
    cases.add(window("padded, shifted", 2, 10, 17, 2, 8, 7, 7, 3, 3, false, true));
    cases.add(window("padded first, shifted", 2, 10, 9, 1, 8, 7, 7, 3, 3, true, true));
    cases.add(window("rectangular", 1, 6, 9, 3, 4, 2, 3, 1, 0, false, false));
    cases.add(window("window 12", 1, 24, 12, 1, 16, 12, 12, 6, 0, false, false));
    cases.add(window("one pixel", 1, 1, 1, 1, 3, 1, 1, 0, 0, false, false));
    cases.add(window("empty", 0, 7, 7, 2, 8, 7, 7, 0, 0, false, false));
    cases.add(window("window 6, width 16", 2, 12, 12, 2, 16, 6, 6, 3, 3, false, false));
    cases.add(window("width 24, padded", 1, 10, 9, 2, 24, 7, 7, 3, 3, false, true));
    cases.add(window("width 64, shifted", 1, 7, 14, 1, 64, 7, 7, 0, 3, false, false));
    cases.add(window("window 8, width 32", 3, 8, 8, 1, 32, 8, 8, 0, 0, false, false));
    cases.add(window("window 8, width 40", 1, 16, 8, 1, 40, 8, 8, 4, 0, false, false));
    cases.add(window("window 12, width 64, padded", 1, 13, 11, 1, 64, 12, 12, 6, 6, true, true));
    cases.add(window("window 8, padded, no bias", 1, 13, 9, 1, 8, 8, 8, 4, 4, false, false));
    // More windows than one a block, on a device of eight multiprocessors.
    cases.add(window("window 12, width 32", 5, 24, 24, 2, 32, 12, 12, 6, 6, false, false));
    cases.add(window("window 12, width 40", 3, 12, 24, 1, 40, 12, 12, 0, 6, false, false));
    cases.add(window("window 9, padded", 2, 10, 17, 1, 8, 9, 9, 4, 4, false, true));
    cases.add(window("window 10, padded first", 1, 13, 21, 2, 24, 10, 10, 5, 5, true, true));
    cases.add(window("window 11 by 12, no bias", 1, 12, 30, 1, 16, 11, 12, 5, 0, false, false));
    cases.add(window("window 12 by 11", 1, 24, 11, 1, 8, 12, 11, 0, 0, false, false));
    cases.add(window("window 12 by 6", 1, 12, 12, 1, 8, 12, 6, 0, 3, false, false));
    cases.add(window("window 10 by 7", 1, 10, 14, 1, 8, 10, 7, 0, 3, false, false));
    cases.add(window("window 9 by 8, width 48, padded", 1, 9, 20, 1, 48, 9, 8, 0, 4, true, true));
    cases.add(
        op(AttentionOp.SELF, "3×10, 8 heads of 6")
            .in(3, 10, 144)
            .run(v -> AttentionOp.self(v[0], null, 8)));
    cases.add(
        op(AttentionOp.SELF, "masked")
            .in(3, 13, 96)
            .in(Kind.MASK, 1, 3, 13)
            .run(v -> AttentionOp.self(v[0], v[1], 2)));
    cases.add(
        op(AttentionOp.SELF, "one token").in(2, 1, 12).run(v -> AttentionOp.self(v[0], null, 1)));
    cases.add(
        op(AttentionOp.CROSS, "masked")
            .in(3, 37, 48)
            .in(3, 12, 96)
            .in(Kind.MASK, 1, 3, 12)
            .run(v -> AttentionOp.cross(v[0], v[1], v[2], 8)));
    cases.add(
        op(AttentionOp.CROSS, "64 wide heads")
            .in(2, 6, 128)
            .in(2, 5, 256)
            .run(v -> AttentionOp.cross(v[0], v[1], null, 2)));
    for (int p : new int[] {4, 8, 16}) {
      cases.add(
          op(RegionAttention.NAME, p + " regions")
              .in(2, p, 32)
              .in(2, 63, 32)
              .in(2, 63, 32)
              .runs(v -> RegionAttention.apply(v[0], v[1], v[2])));
    }
    cases.add(
        op(RegionAttention.NAME, "map unused")
            .in(1, 5, 7)
            .in(1, 11, 7)
            .in(1, 11, 7)
            .run(v -> RegionAttention.apply(v[0], v[1], v[2])[0]));
  }

  private static OpCase window(
      String label,
      int batch,
      int height,
      int width,
      int heads,
      int headDim,
      int windowH,
      int windowW,
      int shiftH,
      int shiftW,
      boolean padFirst,
      boolean bias) {
    int c = heads * headDim;
    OpCase.Builder b = op(WindowAttentionOp.NAME, label).in(batch, height, width, 3 * c);
    b = b.in((2 * windowH - 1) * (2 * windowW - 1), heads);
    if (bias) {
      b = b.in(3 * c);
    }
    return b.run(
        v ->
            WindowAttentionOp.apply(
                v[0], bias ? v[2] : null, v[1], heads, windowH, windowW, shiftH, shiftW, padFirst));
  }

  private static void geometry(List<OpCase> cases) {
    cases.add(
        op(Embedding.NAME, "repeated ids")
            .in(Kind.INTS, 7, 3, 11)
            .in(7, 24)
            .run(v -> Embedding.apply(v[0], v[1])));
    cases.add(
        op(Embedding.NAME, "one row")
            .in(Kind.INTS, 1, 4)
            .in(1, 5)
            .run(v -> Embedding.apply(v[0], v[1])));
    cases.add(
        op(Patches.GATHER, "4×4").in(2, 3, 24, 32).run(v -> Patches.gather(v[0], 4, v[0].dtype())));
    cases.add(
        op(Patches.GATHER, "beyond the edge")
            .in(1, 3, 5, 7)
            .run(v -> Patches.gather(v[0], 4, v[0].dtype())));
    cases.add(op(Patches.MERGE, "even").in(2, 8, 10, 24).run(v -> Patches.merge(v[0])));
    cases.add(op(Patches.MERGE, "odd").in(2, 5, 3, 7).run(v -> Patches.merge(v[0])));
    int[][] sizes = {
      {7, 9, 14, 18}, {8, 6, 32, 24}, {7, 5, 17, 20}, {24, 20, 10, 10}, {1, 1, 3, 3}, {3, 3, 1, 1}
    };
    for (int[] s : sizes) {
      cases.add(
          op(Resize.NAME, s[0] + "×" + s[1] + " to " + s[2] + "×" + s[3])
              .in(2, s[0], s[1], 3)
              .run(v -> Resize.apply(v[0], s[2], s[3])));
    }
    cases.add(
        op(Resize.ADD, "shared by 3")
            .in(2, 6, 8, 5)
            .in(6, 3, 4, 5)
            .run(v -> Resize.add(v[0], v[1], 3)));
    cases.add(op(Resize.ADD, "coarsest").in(2, 3, 4, 5).run(v -> Resize.add(v[0], null, 4)));
    int[][] grids = {{2, 2}, {2, 4}, {4, 4}};
    for (int[] g : grids) {
      cases.add(
          op(RegionPool.NAME, g[0] + "×" + g[1])
              .in(2, 30, 42)
              .run(v -> RegionPool.apply(v[0], g[0], g[1], v[0].dtype())));
    }
    cases.add(
        op(RegionPool.NAME, "map smaller than grid")
            .in(1, 3, 2)
            .run(v -> RegionPool.apply(v[0], 2, 4, v[0].dtype())));
    cases.add(
        op(Dropout.NAME, "p 0.3")
            .in(13, 29)
            .in(Kind.RNG, 0, 2)
            .run(v -> Dropout.apply(v[0], 0.3, 1, v[1], 5)));
    cases.add(
        op(Dropout.NAME, "samples")
            .in(6, 21)
            .in(Kind.RNG, 0, 2)
            .run(v -> Dropout.apply(v[0], 0.5, 21, v[1], 0)));
  }

  private static void losses(List<OpCase> cases) {
    Losses.Focal[] focals = {null, Losses.Focal.DEFAULT};
    for (Losses.Focal focal : focals) {
      for (float dice : new float[] {0, 1}) {
        String label = (focal == null ? "bce" : "focal") + ", dice " + dice;
        cases.add(
            op(Losses.MASK, label)
                .scaled(2, 2, 10, 9)
                .in(Kind.BITMAP, 1, 2, 40, 36)
                .run(v -> Losses.mask(v[0], v[1], focal, dice)));
        cases.add(
            op(Losses.MASK, label + ", odd sizes")
                .scaled(2, 3, 5, 7)
                .in(Kind.BITMAP, 1, 3, 17, 11)
                .run(v -> Losses.mask(v[0], v[1], focal, dice)));
      }
      cases.add(
          op(Losses.BINARY, focal == null ? "bce" : "focal")
              .scaled(4, 4, 17)
              .in(Kind.BITS, 1, 4, 17)
              .run(v -> Losses.binary(v[0], v[1], focal)));
    }
    cases.add(
        op(Losses.CROSS_ENTROPY, "weighted")
            .in(31, 3)
            .in(Kind.INTS, 3, 31)
            .in(Kind.BITS, 1, 3)
            .run(v -> Losses.crossEntropy(v[0], v[1], UnaryOp.apply(Unary.EXP, v[2]))));
    cases.add(
        op(Losses.CROSS_ENTROPY, "plain")
            .scaled(5, 7, 11)
            .in(Kind.INTS, 11, 7)
            .run(v -> Losses.crossEntropy(v[0], v[1], null)));
  }

  private static void layout(List<OpCase> cases) {
    cases.add(
        op(Layout.RESHAPE, "flatten").in(3, 4, 5).run(v -> Layout.reshape(v[0], Shape.of(12, 5))));
    cases.add(op(Layout.SLICE, "inner rows").in(7, 3).run(v -> Layout.slice(v[0], 2, 5)));
    cases.add(op(Layout.SLICE, "none").in(7, 3).run(v -> Layout.slice(v[0], 4, 4)));
    cases.add(
        op(Layout.CONCAT, "three parts")
            .in(2, 5, 3)
            .in(2, 5, 1)
            .in(2, 5, 7)
            .run(v -> Layout.concat(v[0], v[1], v[2])));
    cases.add(op(Layout.REPEAT, "by 4").in(3, 2, 5).run(v -> Layout.repeat(v[0], 4)));
    cases.add(
        op(Layout.TRANSPOSE, "0 3 1 2")
            .in(2, 5, 3, 7)
            .run(v -> Layout.transpose(v[0], 0, 3, 1, 2)));
    cases.add(op(Layout.TRANSPOSE, "matrix").in(37, 41).run(v -> Layout.transpose(v[0], 1, 0)));
    cases.add(op(Layout.CAST, "to F32").in(5, 13).run(v -> Layout.cast(v[0], DType.F32)));
  }
}
