package org.deixis.bench;

import static org.deixis.bench.OpCase.op;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.deixis.autograd.Variable;
import org.deixis.backend.Activation;
import org.deixis.backend.Binary;
import org.deixis.backend.Unary;
import org.deixis.bench.OpCase.Kind;
import org.deixis.core.DType;
import org.deixis.ops.AttentionOp;
import org.deixis.ops.BinaryOp;
import org.deixis.ops.Convolution;
import org.deixis.ops.Dropout;
import org.deixis.ops.Embedding;
import org.deixis.ops.GroupNorm;
import org.deixis.ops.GruCell;
import org.deixis.ops.LayerNorm;
import org.deixis.ops.Linear;
import org.deixis.ops.Losses;
import org.deixis.ops.Patches;
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
   * What a run must compute and move at least once.
   *
   * @param flops floating operations
   * @param floats floating elements read or written
   * @param others bytes of other types
   */
  public record Cost(long flops, long floats, long others) {
    public long bytes(DType dtype) {
      return floats * dtype.bytes() + others;
    }
  }

  /**
   * A case with its cost.
   *
   * @param both the cost of forward and backward together; null where nothing gets a gradient
   * @param twin what bench/peer_operations.py makes PyTorch's version from
   */
  public record Timed(OpCase opCase, Cost forward, Cost both, Map<String, ?> twin) {
    public String name() {
      return opCase.op() + " " + opCase.label();
    }

    public String kind() {
      return (String) twin.get("kind");
    }

    boolean hasBackward() {
      return both != null;
    }
  }

  static final String BIAS_RESIDUAL = "bias_residual";
  static final String WINDOW_BLOCK = "window_block";

  private BenchCases() {}

  /** Swin-B 224 and BERT-base for one picture with one phrase, and the demo's training step. */
  public static List<Timed> cpu() {
    List<Timed> cases =
        new ArrayList<>(
            List.of(
                linear(3136, 384, 128, Activation.NONE),
                linear(196, 1536, 512, Activation.NONE),
                linear(196, 2048, 512, Activation.GELU),
                linear(49, 3072, 1024, Activation.NONE),
                linear(20, 3072, 768, Activation.GELU),
                softmax(12544, 49),
                layerNorm(3136, 128),
                layerNorm(196, 512),
                gelu(3136, 512),
                biasResidual(3136, 128),
                window(1, 56, 128, 4, 7, 3),
                windowBlock(1, 56, 128, 4, 7, 3),
                windowBlock(1, 14, 512, 16, 7, 3),
                selfAttention(1, 20, 768, 12),
                region(1, 8, 3136, 512)));
    cases.addAll(demo());
    return List.copyOf(cases);
  }

  /** The demo's training step: 8 pictures of 96×96 with 4 expressions each. */
  private static List<Timed> demo() {
    return List.of(
        linear(18432, 96, 96, Activation.NONE),
        layerNorm(18432, 96),
        window(8, 24, 32, 2, 6, 3),
        cross(32, 576, 10, 96, 8),
        region(32, 8, 576, 96),
        convolution(32, 24, 96, 64),
        maskLoss(32, 24, 96),
        upsampleAdd(8, 4, 24, 96));
  }

  /** Swin-B 224, BERT-base at 20 tokens and the guide's decoder for a batch. */
  public static List<Timed> batch(int pictures, int share) {
    int i = pictures;
    int b = pictures * share;
    List<Timed> cases =
        new ArrayList<>(
            List.of(
                linear(i * 3136, 384, 128, Activation.NONE),
                linear(i * 784, 1024, 256, Activation.GELU),
                linear(i * 196, 1536, 512, Activation.NONE),
                linear(i * 196, 2048, 512, Activation.GELU),
                linear(i * 196, 512, 2048, Activation.NONE),
                linear(i * 49, 3072, 1024, Activation.NONE),
                linear(b * 20, 2304, 768, Activation.NONE),
                linear(b * 20, 3072, 768, Activation.GELU),
                linear(b * 20, 768, 3072, Activation.NONE),
                softmax(i * 12544, 49),
                layerNorm(i * 3136, 128),
                layerNorm(i * 196, 512),
                layerNorm(b * 20, 768),
                gelu(i * 3136, 512),
                biasResidual(i * 3136, 128),
                window(i, 56, 128, 4, 7, 3),
                window(i, 28, 256, 8, 7, 3),
                window(i, 14, 512, 16, 7, 3),
                window(i, 7, 1024, 32, 7, 0),
                windowBlock(i, 56, 128, 4, 7, 3),
                selfAttention(b, 20, 768, 12),
                cross(b, 3136, 20, 512, 8),
                region(b, 8, 3136, 512),
                convolution(b, 56, 512, 256),
                maskLoss(b, 56, 224),
                maskLoss(b, 120, 480),
                upsampleAdd(i, share, 56, 512),
                addLayerNorm(i * 3136, 128),
                layerNorm(i * 49, 1024),
                groupNorm(b, 56, 256, 32),
                embedding(b * 20, 30_522, 768),
                merge(i, 56, 128),
                dropout(b * 20, 768),
                gru(b, 768)));
    cases.addAll(CardCases.batch(i, b));
    return List.copyOf(cases);
  }

  /** The same families at shapes that take no time. */
  public static List<Timed> tiny() {
    List<Timed> cases =
        new ArrayList<>(
            List.of(
                linear(16, 24, 8, Activation.GELU),
                softmax(12, 49),
                layerNorm(8, 16),
                gelu(8, 16),
                biasResidual(8, 16),
                window(1, 8, 8, 2, 4, 2),
                windowBlock(1, 8, 8, 2, 4, 2),
                selfAttention(1, 5, 8, 2),
                cross(2, 16, 5, 8, 2),
                region(1, 4, 16, 8),
                convolution(1, 8, 4, 4),
                maskLoss(2, 4, 16),
                upsampleAdd(1, 2, 8, 4),
                addLayerNorm(8, 16),
                groupNorm(2, 4, 8, 2),
                embedding(6, 12, 8),
                merge(1, 4, 8),
                dropout(8, 16),
                gru(2, 8)));
    cases.addAll(CardCases.tiny());
    return List.copyOf(cases);
  }

  /** A case of {@link #cpu} or {@link #batch}(16, 4) by its name. */
  public static Timed byName(String name) {
    List<Timed> all = new ArrayList<>(cpu());
    all.addAll(batch(16, 4));
    return all.stream()
        .filter(t -> t.name().equals(name))
        .findFirst()
        .orElseThrow(() -> new IllegalArgumentException("no bench case '" + name + "'"));
  }

  static Timed linear(int m, int n, int k, Activation act) {
    long flops = 2L * m * n * k;
    long x = (long) m * k;
    long w = (long) n * k;
    long y = (long) m * n;
    boolean gelu = act != Activation.NONE;
    return new Timed(
        op(Linear.NAME, m + "×" + n + "×" + k + (gelu ? " " + act : ""))
            .in(m, k)
            .scaled(0.05, n, k)
            .in(n)
            .run(v -> Linear.apply(v[0], v[1], v[2], act)),
        new Cost(flops, x + w + y, 0),
        // Backward reads dy, x and w and writes dx and dw; with GELU also what the GELU was of.
        new Cost(3 * flops, 3 * (x + w) + 2 * y + (gelu ? 2 * y : 0), 0),
        Map.of("kind", "linear", "m", m, "n", n, "k", k, "gelu", gelu));
  }

  static Timed softmax(int rows, int columns) {
    return rows(Softmax.NAME, rows, columns, 5, 9, v -> Softmax.apply(v[0]), false);
  }

  static Timed layerNorm(int rows, int columns) {
    return rows(
        LayerNorm.NAME, rows, columns, 8, 20, v -> LayerNorm.apply(v[0], v[1], v[2], 1e-5), true);
  }

  static Timed gelu(int rows, int columns) {
    return rows(
        UnaryOp.name(Unary.GELU),
        rows,
        columns,
        10,
        25,
        v -> UnaryOp.apply(Unary.GELU, v[0]),
        false);
  }

  private static Timed rows(
      String name,
      int rows,
      int columns,
      int flops,
      int flopsBoth,
      java.util.function.Function<Variable[], Variable> run,
      boolean affine) {
    long n = (long) rows * columns;
    OpCase.Builder b = op(name, rows + "×" + columns).in(rows, columns);
    if (affine) {
      b.in(columns).in(columns);
    }
    return new Timed(
        b.run(run),
        new Cost(flops * n, 2 * n, 0),
        new Cost(flopsBoth * n, 5 * n, 0),
        Map.of("kind", name, "rows", rows, "columns", columns));
  }

  /** x + residual + bias, as between two layers that nothing fuses. */
  static Timed biasResidual(int rows, int columns) {
    long n = (long) rows * columns;
    return new Timed(
        op(BIAS_RESIDUAL, rows + "×" + columns)
            .in(rows, columns)
            .in(rows, columns)
            .in(columns)
            .run(v -> BinaryOp.apply(Binary.ADD, BinaryOp.apply(Binary.ADD, v[0], v[1]), v[2])),
        new Cost(2 * n, 3 * n, 0),
        new Cost(3 * n, 4 * n, 0), // the gradient itself is handed on; only the bias sums it
        Map.of("kind", BIAS_RESIDUAL, "rows", rows, "columns", columns));
  }

  private static Map<String, ?> windowTwin(
      String kind, int batch, int side, int c, int heads, int window, int shift) {
    return Map.of(
        "kind",
        kind,
        "batch",
        batch,
        "side",
        side,
        "channels",
        c,
        "heads",
        heads,
        "window",
        window,
        "shift",
        shift);
  }

  private static String windowLabel(int batch, int side, int c, int window, int shift) {
    return batch
        + "×"
        + side
        + "²×"
        + c
        + ", window "
        + window
        + (shift > 0 ? ", shift " + shift : "");
  }

  /** The kernel alone: qkv in, gathered values out. */
  static Timed window(int batch, int side, int c, int heads, int window, int shift) {
    long pixels = (long) batch * side * side;
    long product = 2 * pixels * window * window * c;
    return new Timed(
        op(WindowAttentionOp.NAME, windowLabel(batch, side, c, window, shift))
            .in(batch, side, side, 3 * c)
            .in((2 * window - 1) * (2 * window - 1), heads)
            .run(
                v ->
                    WindowAttentionOp.apply(
                        v[0], null, v[1], heads, window, window, shift, shift, false)),
        new Cost(2 * product, 4 * pixels * c, 0),
        new Cost(7 * product, 12 * pixels * c, 0),
        windowTwin(WindowAttentionOp.NAME, batch, side, c, heads, window, shift));
  }

  /** Attention of a Swin block: the qkv projection, the windows, the output projection. */
  static Timed windowBlock(int batch, int side, int c, int heads, int window, int shift) {
    long pixels = (long) batch * side * side;
    long product = 2 * pixels * window * window * c;
    long linears = 8 * pixels * c * c;
    return new Timed(
        op(WINDOW_BLOCK, windowLabel(batch, side, c, window, shift))
            .in(batch, side, side, c)
            .scaled(0.05, 3 * c, c)
            .in(3 * c)
            .in((2 * window - 1) * (2 * window - 1), heads)
            .scaled(0.05, c, c)
            .in(c)
            .run(
                v -> {
                  Variable qkv = Linear.apply(v[0], v[1], v[2], Activation.NONE);
                  Variable y =
                      WindowAttentionOp.apply(
                          qkv, null, v[3], heads, window, window, shift, shift, false);
                  return Linear.apply(y, v[4], v[5], Activation.NONE);
                }),
        new Cost(2 * product + linears, 10 * pixels * c + 4L * c * c, 0),
        new Cost(7 * product + 3 * linears, 30 * pixels * c + 12L * c * c, 0),
        windowTwin(WINDOW_BLOCK, batch, side, c, heads, window, shift));
  }

  static Timed cross(int batch, int queries, int keys, int c, int heads) {
    long product = 2L * batch * queries * keys * c;
    long floats = 2L * batch * c * (queries + keys);
    return new Timed(
        op(AttentionOp.CROSS, batch + "×" + queries + "×" + keys + "×" + c)
            .in(batch, queries, c)
            .in(batch, keys, 2 * c)
            .in(Kind.MASK, 1, batch, keys)
            .run(v -> AttentionOp.cross(v[0], v[1], v[2], heads)),
        new Cost(2 * product, floats, 4L * batch * keys),
        new Cost(7 * product, 3 * floats, 8L * batch * keys),
        Map.of(
            "kind",
            "cross_attention",
            "batch",
            batch,
            "queries",
            queries,
            "keys",
            keys,
            "channels",
            c,
            "heads",
            heads));
  }

  static Timed selfAttention(int batch, int tokens, int c, int heads) {
    long product = 2L * batch * tokens * tokens * c;
    long floats = 4L * batch * tokens * c;
    return new Timed(
        op(AttentionOp.SELF, batch + "×" + tokens + "×" + c)
            .in(batch, tokens, 3 * c)
            .run(v -> AttentionOp.self(v[0], null, heads)),
        new Cost(2 * product, floats, 0),
        new Cost(7 * product, 3 * floats, 0),
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
            heads));
  }

  static Timed region(int batch, int regions, int pixels, int dim) {
    long product = 2L * batch * regions * pixels * dim;
    long floats = 2L * batch * dim * (pixels + regions) + (long) batch * regions * pixels;
    return new Timed(
        op(RegionAttention.NAME, batch + "×" + regions + "×" + pixels + "×" + dim)
            .in(batch, regions, dim)
            .in(batch, pixels, dim)
            .in(batch, pixels, dim)
            .run(v -> RegionAttention.apply(v[0], v[1], v[2])[0]),
        new Cost(2 * product, floats, 0),
        new Cost(7 * product, 3 * floats, 0),
        Map.of(
            "kind",
            "region_attention",
            "batch",
            batch,
            "regions",
            regions,
            "pixels",
            pixels,
            "channels",
            dim));
  }

  static Timed convolution(int batch, int side, int in, int out) {
    long pixels = (long) batch * side * side;
    long flops = 18 * pixels * in * out;
    long floats = pixels * (in + out) + 9L * in * out;
    return new Timed(
        op(Convolution.NAME, batch + "×" + side + "²×" + in + " to " + out)
            .in(batch, side, side, in)
            .scaled(0.05, out, in, 3, 3)
            .run(v -> Convolution.apply(v[0], v[1], null, 1, 1)),
        new Cost(flops, floats, 0),
        new Cost(3 * flops, 3 * floats, 0),
        Map.of("kind", "conv2d", "batch", batch, "side", side, "channels", in, "out", out));
  }

  static Timed maskLoss(int batch, int low, int high) {
    long pixels = (long) batch * high * high;
    long floats = (long) batch * low * low;
    return new Timed(
        op(Losses.MASK, batch + "×" + low + "² to " + high + "², Dice")
            .in(batch, low, low)
            .in(Kind.BITMAP, 1, batch, high, high)
            .run(v -> Losses.mask(v[0], v[1], null, 1)),
        new Cost(30 * pixels, floats, pixels),
        new Cost(60 * pixels, 2 * floats, pixels), // the gradient comes out of the same pass
        Map.of("kind", "mask_loss", "batch", batch, "low", low, "high", high));
  }

  static Timed upsampleAdd(int images, int share, int side, int c) {
    long n = (long) images * share * side * side * c;
    return new Timed(
        op(Resize.ADD, images + "·" + share + "×" + side + "²×" + c)
            .in(images, side, side, c)
            .in(images * share, side / 2, side / 2, c)
            .run(v -> Resize.add(v[0], v[1], share)),
        new Cost(8 * n, n + n / 4 + n / share, 0),
        new Cost(16 * n, 2 * (n + n / 4 + n / share), 0),
        Map.of(
            "kind", "upsample_add", "images", images, "share", share, "side", side, "channels", c));
  }

  /** The norm of x + residual, as between a transformer's layers. */
  static Timed addLayerNorm(int rows, int columns) {
    long n = (long) rows * columns;
    return new Timed(
        op(LayerNorm.RESIDUAL_NAME, rows + "×" + columns)
            .in(rows, columns)
            .in(rows, columns)
            .in(columns)
            .in(columns)
            .run(v -> LayerNorm.withResidual(v[0], v[1], v[2], v[3], 1e-5)[1]),
        new Cost(9 * n, 4 * n, 0),
        new Cost(21 * n, 7 * n, 0), // one gradient serves both operands
        Map.of("kind", LayerNorm.RESIDUAL_NAME, "rows", rows, "columns", columns));
  }

  static Timed groupNorm(int batch, int side, int c, int groups) {
    long n = (long) batch * side * side * c;
    return new Timed(
        op(GroupNorm.NAME, batch + "×" + side + "²×" + c + ", " + groups + " groups")
            .in(batch, side, side, c)
            .in(c)
            .in(c)
            .run(v -> GroupNorm.apply(v[0], groups, v[1], v[2], 1e-5)),
        new Cost(8 * n, 2 * n, 0),
        new Cost(20 * n, 5 * n, 0),
        Map.of(
            "kind", GroupNorm.NAME, "batch", batch, "side", side, "channels", c, "groups", groups));
  }

  static Timed embedding(int tokens, int vocab, int c) {
    long n = (long) tokens * c;
    return new Timed(
        op(Embedding.NAME, tokens + " of " + vocab + "×" + c)
            .in(Kind.INTS, vocab, tokens)
            .in(vocab, c)
            .run(v -> Embedding.apply(v[0], v[1])),
        new Cost(0, 2 * n, 4L * tokens),
        // The gradient is as large as the table: zeros, but for the rows that were read.
        new Cost(n, 4 * n + (long) vocab * c, 8L * tokens),
        Map.of("kind", Embedding.NAME, "tokens", tokens, "vocab", vocab, "channels", c));
  }

  static Timed merge(int batch, int side, int c) {
    long n = (long) batch * side * side * c;
    return new Timed(
        op(Patches.MERGE, batch + "×" + side + "²×" + c)
            .in(batch, side, side, c)
            .run(v -> Patches.merge(v[0])),
        new Cost(0, 2 * n, 0),
        new Cost(0, 4 * n, 0),
        Map.of("kind", Patches.MERGE, "batch", batch, "side", side, "channels", c));
  }

  static Timed dropout(int rows, int columns) {
    long n = (long) rows * columns;
    return new Timed(
        op(Dropout.NAME, rows + "×" + columns)
            .in(rows, columns)
            .in(Kind.RNG, 1, 2)
            .run(v -> Dropout.apply(v[0], 0.1, 1, v[1], 0)),
        new Cost(n, 2 * n, 16),
        new Cost(2 * n, 4 * n, 32),
        Map.of("kind", Dropout.NAME, "rows", rows, "columns", columns));
  }

  static Timed gru(int batch, int hidden) {
    long n = (long) batch * hidden;
    return new Timed(
        op(GruCell.NAME, batch + "×" + hidden)
            .in(batch, 3 * hidden)
            .in(batch, 3 * hidden)
            .in(batch, hidden)
            .run(v -> GruCell.apply(v[0], v[1], v[2])),
        new Cost(20 * n, 8 * n, 0),
        new Cost(60 * n, 23 * n, 0),
        Map.of("kind", GruCell.NAME, "batch", batch, "hidden", hidden));
  }
}
