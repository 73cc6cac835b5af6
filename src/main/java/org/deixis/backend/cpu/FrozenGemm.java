package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import org.bytedeco.dnnl.dnnl_memory_desc;
import org.bytedeco.dnnl.dnnl_primitive_desc;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Gemm;
import org.deixis.core.DType;

/**
 * Products with a weight that was frozen: it is cut into panels of columns, one a thread, each laid
 * out once as oneDNN wants it. The cut follows the weight alone, so one copy serves every number of
 * rows. In bf16 the activations are rounded on the way in; sums, bias and result are fp32.
 */
final class FrozenGemm {
  /** Least extent of a weight that is worth a layout of its own. */
  private static final int LEAST = 16;

  /** Columns that a panel is a multiple of. */
  private static final int PANEL = 64;

  /** Operations in a block of rows and a panel that outweigh its start. */
  private static final long BLOCK = 24_000_000;

  /** Least rows in a block: each block reads its whole panel again. */
  private static final int ROWS = 40;

  /** Least rows in a block where there are fewer panels than threads. */
  private static final int FEWEST = 8;

  /** Operations below which one thread does it all. */
  private static final long SMALL = 1_000_000;

  /** Elements that a task rounds. */
  private static final int ROUNDED = 32 * 1024;

  private final WorkerPool pool;

  FrozenGemm(WorkerPool pool) {
    this.pool = pool;
  }

  /** Runs the product if b is a frozen weight and the shape is one that gains; else false. */
  boolean gemm(Gemm s, Array a, Array b, Array bias, Array c) {
    FrozenWeights weights = FrozenWeights.of(b);
    if (weights == null
        || s.batch() != 1
        || s.transA()
        || s.lda() != s.k()
        || s.alpha() != 1
        || s.beta() != 0
        || s.m() == 0
        || s.n() < LEAST
        || s.k() < LEAST) {
      return false;
    }
    DType type = weights.products();
    long from = type == DType.F32 ? Native.floats(a) : rounded(a, (long) s.m() * s.k());
    long plain = Native.floats(b);
    long target = Native.floats(c);
    long shift = bias == null ? 0 : Native.floats(bias);
    int threads = pool.threads();
    int panels = Math.max(1, Math.min(threads, s.n() / PANEL));
    int width = up((s.n() + panels - 1) / panels, PANEL);
    panels = (s.n() + width - 1) / width;
    long wanted = Math.min(Math.min(4L * threads, s.flops() / BLOCK) / panels, s.m() / ROWS);
    if (panels < threads && s.flops() > SMALL) {
      wanted = Math.max(wanted, Math.min(threads, s.m() / FEWEST));
    }
    wanted = Math.max(1, wanted);
    // Even blocks: a short last one has a thread wait and its panel read once more.
    int rows = (int) ((s.m() + wanted - 1) / wanted);
    int blocks = (s.m() + rows - 1) / rows;
    int count = panels;
    pool.parallelFor(
        count * blocks,
        i -> {
          int column = i % count * width;
          int row = i / count * rows;
          int n = Math.min(width, s.n() - column);
          int m = Math.min(rows, s.m() - row);
          Dnnl d = Dnnl.here();
          Dnnl.Kernel kernel = kernel(d, type, m, n, s.k(), s.ldc(), shift != 0, s.activation());
          long down = s.transB() ? 1 : s.ldb();
          long right = s.transB() ? s.ldb() : 1;
          long weight =
              weights.matrix(b, plain + 4 * column * right, s.k(), n, down, right, kernel.layout());
          kernel
              .set(0, from + (long) type.bytes() * row * s.k())
              .set(1, weight)
              .set(2, target + 4 * ((long) row * s.ldc() + column));
          if (shift != 0) {
            kernel.set(3, shift + 4L * column);
          }
          kernel.run();
        });
    return true;
  }

  private static int up(int extent, int multiple) {
    return (extent + multiple - 1) / multiple * multiple;
  }

  /** The activations in bf16, in the calling thread's scratch memory. */
  private long rounded(Array a, long n) {
    long target = Dnnl.here().workspace(1, 2 * n);
    round(pool, Native.floats(a), target, n);
    return target;
  }

  /** bf16 of n floats, shared among the threads. */
  static void round(WorkerPool pool, long from, long to, long n) {
    int pieces = Math.toIntExact((n + ROUNDED - 1) / ROUNDED);
    pool.parallelFor(
        pieces,
        i -> {
          long first = (long) i * ROUNDED;
          Conversion.reorder(
              Dnnl.here(),
              DType.F32,
              DType.BF16,
              Math.min(ROUNDED, n - first),
              from + 4 * first,
              to + 2 * first);
        });
  }

  /** One product of dense activations with one laid-out matrix. */
  static Dnnl.Kernel kernel(
      Dnnl d, DType type, int m, int n, int k, int ldc, boolean bias, Activation activation) {
    d.key(Dnnl.FROZEN_MATMUL)
        .add((long) m << 32 | n)
        .add((long) k << 32 | ldc)
        .add(type.ordinal() << 8 | (bias ? 1 : 0) | activation.ordinal() << 1);
    Dnnl.Kernel found = d.find();
    if (found != null) {
      return found;
    }
    try (DnnlBuilder builder = new DnnlBuilder(d)) {
      dnnl_memory_desc a =
          builder.strided(DnnlBuilder.type(type), new long[] {m, k}, new long[] {k, 1});
      dnnl_memory_desc b = builder.any(type, k, n);
      dnnl_memory_desc c = builder.strided(dnnl_f32, new long[] {m, n}, new long[] {ldc, 1});
      dnnl_memory_desc row = builder.dense(1, n);
      if (activation != Activation.NONE) {
        builder.thenEltwise(CpuElementwise.algorithm(activation.unary()), 0, 0);
      }
      dnnl_primitive_desc pd = builder.descriptor();
      Dnnl.check(
          dnnl_matmul_primitive_desc_create(
              pd, Dnnl.engine(), a, b, bias ? row : null, c, builder.attributes()),
          "matmul");
      FrozenWeights.Layout layout = FrozenWeights.layout(pd);
      builder
          .argument(DNNL_ARG_SRC, a)
          .argument(DNNL_ARG_WEIGHTS, layout.descriptor())
          .argument(DNNL_ARG_DST, c);
      if (bias) {
        builder.argument(DNNL_ARG_BIAS, row);
      }
      return builder.build(pd).wants(layout);
    }
  }
}
