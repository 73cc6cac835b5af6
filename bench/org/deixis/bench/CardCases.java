package org.deixis.bench;

import static org.deixis.bench.OpCase.op;

import java.util.List;
import java.util.Map;
import org.deixis.backend.Reduction;
import org.deixis.bench.BenchCases.Cost;
import org.deixis.bench.BenchCases.Timed;
import org.deixis.bench.OpCase.Kind;
import org.deixis.core.DType;
import org.deixis.ops.AttentionOp;
import org.deixis.ops.Dropout;
import org.deixis.ops.Losses;
import org.deixis.ops.Patches;
import org.deixis.ops.Reduce;
import org.deixis.ops.RegionPool;
import org.deixis.ops.Resize;

/**
 * What is timed on a card alone: kernels that the CPU's table leaves out, and the shapes of larger
 * pictures, of Swin-B at 384 and 480 pixels.
 */
final class CardCases {
  private static final String DROP_PATH = "drop_path";
  private static final String REDUCE_ROWS = "reduce_rows";
  private static final String REDUCE_COLUMNS = "reduce_columns";

  /** The shortest phrase of a padded batch, as a share of the longest. */
  private static final double SHORTEST = 0.25;

  private CardCases() {}

  /**
   * @param i pictures of a batch
   * @param b expressions of it
   */
  static List<Timed> batch(int i, int b) {
    return List.of(
        BenchCases.window(i, 96, 128, 4, 12, 6), // Swin-B 384, first and third stage
        BenchCases.window(i, 24, 512, 16, 12, 6),
        BenchCases.window(i, 120, 128, 4, 12, 6), // Swin-B 480
        padded(b, 20, 768, 12),
        padded(i, 128, 768, 12),
        padded(b, 512, 768, 12),
        BenchCases.region(b, 4, 14_400, 512),
        BenchCases.region(b, 8, 14_400, 512),
        BenchCases.region(b, 16, 14_400, 512),
        BenchCases.groupNorm(b, 120, 256, 32),
        patches(i, 224),
        patches(i, 480),
        resize(i, 28, 256),
        pool(b, 480, 2, 4),
        binary(b, 8),
        binary(b, 14_400),
        crossEntropy(i * 224 * 224, 2),
        crossEntropy(i, 1000),
        dropPath(i, 56, 128),
        rows(i * 3136, 128),
        columns(i * 3136, 128),
        columns(b * 20, 3072));
  }

  /** The same families at shapes that take no time. */
  static List<Timed> tiny() {
    return List.of(
        padded(4, 6, 8, 2),
        patches(1, 8),
        resize(1, 4, 8),
        pool(2, 8, 2, 4),
        binary(2, 9),
        crossEntropy(6, 3),
        dropPath(2, 4, 8),
        rows(6, 16),
        columns(6, 16));
  }

  /** BERT's attention over phrases of several lengths. */
  static Timed padded(int batch, int tokens, int c, int heads) {
    Timed whole = BenchCases.selfAttention(batch, tokens, c, heads);
    long mask = 4L * batch * tokens;
    return new Timed(
        op(AttentionOp.SELF, batch + "×" + tokens + "×" + c + ", padded")
            .in(batch, tokens, 3 * c)
            .in(Kind.MASK, SHORTEST, batch, tokens)
            .run(v -> AttentionOp.self(v[0], v[1], heads)),
        new Cost(whole.forward().flops(), whole.forward().floats(), mask),
        new Cost(whole.both().flops(), whole.both().floats(), 2 * mask),
        Map.of(
            "kind",
            "self_attention",
            "batch",
            batch,
            "tokens",
            tokens,
            "channels",
            c,
            "heads",
            heads,
            "shortest",
            SHORTEST));
  }

  /** Bytes of pictures to normalised patches of 4×4; nothing asks for a picture's gradient. */
  static Timed patches(int batch, int side) {
    long n = 3L * batch * side * side;
    return new Timed(
        op(Patches.GATHER, batch + "×" + side + "²×3")
            .in(Kind.PICTURE, 1, batch, side, side, 3)
            .in(Kind.FLOATS, 1, 1) // says of which type the patches are
            .run(v -> Patches.gather(v[0], 4, v[1].dtype())),
        new Cost(2 * n, n, n),
        null,
        Map.of("kind", Patches.GATHER, "batch", batch, "side", side));
  }

  /** To twice the side, bilinear. */
  static Timed resize(int batch, int low, int c) {
    int side = 2 * low;
    long n = (long) batch * side * side * c;
    return new Timed(
        op(Resize.NAME, batch + "×" + low + "² to " + side + "²×" + c)
            .in(batch, low, low, c)
            .run(v -> Resize.apply(v[0], side, side)),
        new Cost(7 * n, n + n / 4, 0),
        new Cost(14 * n, 2 * (n + n / 4), 0),
        Map.of("kind", Resize.NAME, "batch", batch, "low", low, "side", side, "channels", c));
  }

  /** Shares of masks in the cells of a grid: targets, so without a gradient. */
  static Timed pool(int batch, int side, int rows, int columns) {
    long n = (long) batch * side * side;
    return new Timed(
        op(RegionPool.NAME, batch + "×" + side + "² to " + rows + "×" + columns)
            .in(Kind.BITMAP, 1, batch, side, side)
            .run(v -> RegionPool.apply(v[0], rows, columns, DType.F32)),
        new Cost(n, 0, n + 4L * batch * rows * columns),
        null,
        Map.of(
            "kind",
            RegionPool.NAME,
            "batch",
            batch,
            "side",
            side,
            "rows",
            rows,
            "columns",
            columns));
  }

  /** BCE with logits of each element. */
  static Timed binary(int rows, int columns) {
    long n = (long) rows * columns;
    return new Timed(
        op(Losses.BINARY, rows + "×" + columns)
            .in(rows, columns)
            .in(Kind.BITS, 1, rows, columns)
            .run(v -> Losses.binary(v[0], v[1], null)),
        new Cost(10 * n, n, 8 * n), // targets and losses are fp32
        new Cost(14 * n, 2 * n, 12 * n), // and the losses' gradient
        Map.of("kind", Losses.BINARY, "rows", rows, "columns", columns));
  }

  static Timed crossEntropy(int rows, int classes) {
    long n = (long) rows * classes;
    return new Timed(
        op(Losses.CROSS_ENTROPY, rows + "×" + classes)
            .in(rows, classes)
            .in(Kind.INTS, classes, rows)
            .run(v -> Losses.crossEntropy(v[0], v[1], null)),
        new Cost(4 * n, n, 4L * rows),
        new Cost(8 * n, 2 * n, 4L * rows), // the gradient comes out of the same call
        Map.of("kind", Losses.CROSS_ENTROPY, "rows", rows, "classes", classes));
  }

  /** Dropout of whole pictures' branches. */
  static Timed dropPath(int batch, int side, int c) {
    long one = (long) side * side * c;
    long n = batch * one;
    return new Timed(
        op(DROP_PATH, batch + "×" + side + "²×" + c)
            .in(batch, side, side, c)
            .in(Kind.RNG, 1, 2)
            .run(v -> Dropout.apply(v[0], 0.1, one, v[1], 0)),
        new Cost(n, 2 * n, 16),
        new Cost(2 * n, 4 * n, 32),
        Map.of("kind", DROP_PATH, "batch", batch, "side", side, "channels", c));
  }

  /** The mean of each row. */
  static Timed rows(int rows, int columns) {
    return reduce(REDUCE_ROWS, Reduction.MEAN, rows, columns, 1, rows);
  }

  /** The sum of each column, as a bias's gradient is. */
  static Timed columns(int rows, int columns) {
    return reduce(REDUCE_COLUMNS, Reduction.SUM, rows, columns, 0, columns);
  }

  private static Timed reduce(
      String kind, Reduction reduction, int rows, int columns, int axis, long left) {
    long n = (long) rows * columns;
    return new Timed(
        op(kind, rows + "×" + columns)
            .in(rows, columns)
            .run(v -> Reduce.apply(reduction, v[0], axis, axis + 1)),
        new Cost(n, n + left, 0),
        new Cost(2 * n, 2 * (n + left), 0),
        Map.of("kind", kind, "rows", rows, "columns", columns));
  }
}
