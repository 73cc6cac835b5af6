package org.deixis.bench;

import static org.deixis.bench.OpCase.op;

import java.util.List;
import org.deixis.autograd.Variable;
import org.deixis.backend.Binary;
import org.deixis.backend.Unary;
import org.deixis.bench.OpCase.Kind;
import org.deixis.core.Shape;
import org.deixis.ops.BinaryOp;
import org.deixis.ops.Dropout;
import org.deixis.ops.GruCell;
import org.deixis.ops.Layout;
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
}
