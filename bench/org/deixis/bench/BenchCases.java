package org.deixis.bench;

import static org.deixis.bench.OpCase.op;

import java.util.List;
import org.deixis.backend.Activation;
import org.deixis.backend.Unary;
import org.deixis.bench.OpCase.Kind;
import org.deixis.ops.AttentionOp;
import org.deixis.ops.Convolution;
import org.deixis.ops.LayerNorm;
import org.deixis.ops.Linear;
import org.deixis.ops.Losses;
import org.deixis.ops.RegionAttention;
import org.deixis.ops.Resize;
import org.deixis.ops.Softmax;
import org.deixis.ops.UnaryOp;
import org.deixis.ops.WindowAttentionOp;

/**
 * Operations at the shapes of Swin-B 224, BERT-base and the demo's training step: what is worth
 * timing.
 */
public final class BenchCases {
  /**
   * A case with what it must move and compute.
   *
   * @param flops floating operations of forward
   * @param bytes bytes that forward must read and write once
   */
  public record Timed(OpCase opCase, long flops, long bytes) {
    public String name() {
      return opCase.op() + " " + opCase.label();
    }
  }

  private BenchCases() {}

  public static List<Timed> all() {
    return List.of(
        linear(3136, 384, 128, Activation.NONE),
        linear(196, 1536, 512, Activation.NONE),
        linear(196, 2048, 512, Activation.GELU),
        linear(20, 3072, 768, Activation.GELU),
        linear(18432, 96, 96, Activation.NONE),
        rows(Softmax.NAME, 12544, 49),
        rows(LayerNorm.NAME, 3136, 128),
        rows(LayerNorm.NAME, 196, 512),
        rows(LayerNorm.NAME, 18432, 96),
        rows(UnaryOp.name(Unary.GELU), 3136, 512),
        window(1, 56, 128, 4, 7, 3),
        window(8, 24, 32, 2, 6, 3),
        cross(32, 576, 10, 96, 8),
        selfAttention(1, 20, 768, 12),
        region(1, 8, 3136, 512),
        region(32, 8, 576, 96),
        convolution(32, 24, 96, 64),
        maskLoss(32, 24, 96),
        upsampleAdd(8, 4, 24, 96));
  }

  public static Timed byName(String name) {
    return all().stream()
        .filter(t -> t.name().equals(name))
        .findFirst()
        .orElseThrow(() -> new IllegalArgumentException("no bench case '" + name + "'"));
  }

  private static Timed linear(int m, int n, int k, Activation act) {
    return new Timed(
        op(Linear.NAME, m + "×" + n + "×" + k + (act == Activation.NONE ? "" : " " + act))
            .in(m, k)
            .scaled(0.05, n, k)
            .in(n)
            .run(v -> Linear.apply(v[0], v[1], v[2], act)),
        2L * m * n * k,
        4L * ((long) m * k + (long) n * k + (long) m * n));
  }

  private static Timed rows(String name, int rows, int columns) {
    OpCase.Builder b = op(name, rows + "×" + columns).in(rows, columns);
    long n = (long) rows * columns;
    if (name.equals(Softmax.NAME)) {
      return new Timed(b.run(v -> Softmax.apply(v[0])), 5 * n, 8 * n);
    }
    if (name.equals(LayerNorm.NAME)) {
      return new Timed(
          b.in(columns).in(columns).run(v -> LayerNorm.apply(v[0], v[1], v[2], 1e-5)),
          8 * n,
          8 * n);
    }
    return new Timed(b.run(v -> UnaryOp.apply(Unary.GELU, v[0])), 10 * n, 8 * n);
  }

  private static Timed window(int batch, int side, int c, int heads, int window, int shift) {
    long pixels = (long) batch * side * side;
    return new Timed(
        op(
                WindowAttentionOp.NAME,
                batch + "×" + side + "²×" + c + ", window " + window + ", shift " + shift)
            .in(batch, side, side, 3 * c)
            .in((2 * window - 1) * (2 * window - 1), heads)
            .run(
                v ->
                    WindowAttentionOp.apply(
                        v[0], null, v[1], heads, window, window, shift, shift, false)),
        4 * pixels * window * window * c,
        16 * pixels * c);
  }

  private static Timed cross(int batch, int queries, int keys, int c, int heads) {
    return new Timed(
        op(AttentionOp.CROSS, batch + "×" + queries + "×" + keys + "×" + c)
            .in(batch, queries, c)
            .in(batch, keys, 2 * c)
            .in(Kind.MASK, 1, batch, keys)
            .run(v -> AttentionOp.cross(v[0], v[1], v[2], heads)),
        4L * batch * queries * keys * c,
        4L * batch * c * (2L * queries + 2L * keys));
  }

  private static Timed selfAttention(int batch, int tokens, int c, int heads) {
    return new Timed(
        op(AttentionOp.SELF, batch + "×" + tokens + "×" + c)
            .in(batch, tokens, 3 * c)
            .run(v -> AttentionOp.self(v[0], null, heads)),
        4L * batch * tokens * tokens * c,
        16L * batch * tokens * c);
  }

  private static Timed region(int batch, int regions, int pixels, int dim) {
    return new Timed(
        op(RegionAttention.NAME, batch + "×" + regions + "×" + pixels + "×" + dim)
            .in(batch, regions, dim)
            .in(batch, pixels, dim)
            .in(batch, pixels, dim)
            .run(v -> RegionAttention.apply(v[0], v[1], v[2])[0]),
        4L * batch * regions * pixels * dim,
        8L * batch * pixels * dim);
  }

  private static Timed convolution(int batch, int side, int in, int out) {
    long pixels = (long) batch * side * side;
    return new Timed(
        op(Convolution.NAME, batch + "×" + side + "²×" + in + " to " + out)
            .in(batch, side, side, in)
            .scaled(0.05, out, in, 3, 3)
            .run(v -> Convolution.apply(v[0], v[1], null, 1, 1)),
        18 * pixels * in * out,
        4 * pixels * (in + out));
  }

  private static Timed maskLoss(int batch, int low, int high) {
    return new Timed(
        op(Losses.MASK, batch + "×" + low + "² to " + high + "², Dice")
            .in(batch, low, low)
            .in(Kind.BITMAP, 1, batch, high, high)
            .run(v -> Losses.mask(v[0], v[1], null, 1)),
        60L * batch * high * high,
        (long) batch * (8L * low * low + high * high));
  }

  private static Timed upsampleAdd(int images, int share, int side, int c) {
    long n = (long) images * share * side * side * c;
    return new Timed(
        op(Resize.ADD, images + "·" + share + "×" + side + "²×" + c)
            .in(images, side, side, c)
            .in(images * share, side / 2, side / 2, c)
            .run(v -> Resize.add(v[0], v[1], share)),
        8 * n,
        4 * n + n + 4 * n / share);
  }
}
