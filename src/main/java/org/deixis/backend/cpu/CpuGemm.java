package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import org.bytedeco.dnnl.dnnl_memory_desc;
import org.bytedeco.dnnl.dnnl_primitive_desc;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Gemm;

/**
 * Matrix products by oneDNN. A product is cut into blocks of rows, columns or matrices by its shape
 * and the number of threads alone, and each block is one single-threaded call, so the bits do not
 * depend on scheduling.
 */
final class CpuGemm {
  /** Below this many operations (some 20 µs) a product is not cut. */
  private static final long SMALL = 2_000_000;

  /** Operations in a block that outweigh its start and its copy of the shared operand. */
  private static final long BLOCK = 24_000_000;

  /**
   * Least rows in a block whose activation is a call of its own: one call where whole rows are
   * blocks, else one a row, at a microsecond each.
   */
  private static final int WHOLE = 64;

  private final WorkerPool pool;

  private final FrozenGemm frozen;

  CpuGemm(WorkerPool pool) {
    this.pool = pool;
    this.frozen = new FrozenGemm(pool);
  }

  /** See {@link org.deixis.backend.Backend#gemm}. */
  void gemm(Gemm spec, Array a, Array b, Array bias, Array preActivation, Array c) {
    if (preActivation == null && frozen.gemm(spec, a, b, bias, c)) {
      return;
    }
    long result = Native.floats(c);
    long biasAddress = bias == null ? 0 : Native.floats(bias);
    if (preActivation == null || spec.activation() == Activation.NONE) {
      if (preActivation != null) {
        throw new IllegalStateException("a product without activation keeps no argument of it");
      }
      split(spec, Native.floats(a), Native.floats(b), biasAddress, 0, result);
      return;
    }
    split(
        spec,
        Native.floats(a),
        Native.floats(b),
        biasAddress,
        Native.floats(preActivation),
        result);
  }

  /**
   * The whole product on the calling thread, operands at raw addresses; for use within a task of
   * the pool.
   *
   * @param bias 0 for none
   */
  void run(Gemm spec, long a, long b, long bias, long c) {
    if (spec.batch() == 0 || spec.m() == 0 || spec.n() == 0) {
      return;
    }
    if (spec.k() == 0 || spec.alpha() == 0) {
      withoutProduct(spec, bias, c);
      return;
    }
    block(Dnnl.here(), spec, spec.batch(), spec.m(), spec.n(), spec.activation(), a, b, bias, c);
  }

  void split(Gemm spec, long a, long b, long bias, long pre, long c) {
    if (spec.batch() == 0 || spec.m() == 0 || spec.n() == 0) {
      return;
    }
    if (spec.k() == 0 || spec.alpha() == 0) {
      withoutProduct(
          spec.activated(pre == 0 ? spec.activation() : Activation.NONE), bias, pre == 0 ? c : pre);
      if (pre != 0) {
        activate(Dnnl.here(), spec, spec.batch(), spec.m(), spec.n(), pre, c);
      }
      return;
    }
    int threads = pool.threads();
    long flops = spec.flops();
    int pieces = 1;
    if (threads > 1 && flops > SMALL) {
      pieces = threads * (int) Math.max(1, Math.min(4, flops / (BLOCK * threads)));
    }
    int batches = 1;
    int rows = 1;
    int columns = 1;
    if (spec.batch() > 1) {
      batches = Math.min(spec.batch(), pieces);
      pieces = (pieces + batches - 1) / batches;
    }
    // The longer side is cut first: what every block reads again is then the shorter operand.
    while (pieces > 1) {
      boolean across =
          pre != 0
              ? spec.m() / (2 * rows) >= WHOLE
              : (long) spec.m() * columns >= (long) spec.n() * rows && spec.m() / (2 * rows) >= 8;
      if (across) {
        rows *= 2;
      } else if (spec.n() / (2 * columns) >= 16) {
        columns *= 2;
      } else {
        break;
      }
      pieces = (pieces + 1) / 2;
    }
    // Stored rows are cut evenly; rows that are stored as columns, where whole vectors end.
    int rowStep = spec.transA() ? step(spec.m(), rows, 16) : (spec.m() + rows - 1) / rows;
    int columnStep = step(spec.n(), columns, 16);
    int rowBlocks = (spec.m() + rowStep - 1) / rowStep;
    int columnBlocks = (spec.n() + columnStep - 1) / columnStep;
    int batchStep = (spec.batch() + batches - 1) / batches;
    int batchBlocks = (spec.batch() + batchStep - 1) / batchStep;
    pool.parallelFor(
        batchBlocks * rowBlocks * columnBlocks,
        i -> {
          int column = i % columnBlocks * columnStep;
          int row = i / columnBlocks % rowBlocks * rowStep;
          int first = i / columnBlocks / rowBlocks * batchStep;
          int n = Math.min(columnStep, spec.n() - column);
          int m = Math.min(rowStep, spec.m() - row);
          int count = Math.min(batchStep, spec.batch() - first);
          long offset = first * spec.strideC() + (long) row * spec.ldc() + column;
          long blockA =
              a + 4 * (first * spec.strideA() + (spec.transA() ? row : (long) row * spec.lda()));
          long blockB =
              b
                  + 4
                      * (first * spec.strideB()
                          + (spec.transB() ? (long) column * spec.ldb() : column));
          long blockBias = bias == 0 ? 0 : bias + 4L * column;
          Dnnl d = Dnnl.here();
          if (pre == 0) {
            block(
                d, spec, count, m, n, spec.activation(), blockA, blockB, blockBias, c + 4 * offset);
          } else {
            block(
                d, spec, count, m, n, Activation.NONE, blockA, blockB, blockBias, pre + 4 * offset);
            activate(d, spec, count, m, n, pre + 4 * offset, c + 4 * offset);
          }
        });
  }

  private static int step(int extent, int parts, int multiple) {
    int step = (extent + parts - 1) / parts;
    return Math.min(extent, (step + multiple - 1) / multiple * multiple);
  }

  /** One call of oneDNN. */
  private static void block(
      Dnnl d,
      Gemm s,
      int batch,
      int m,
      int n,
      Activation activation,
      long a,
      long b,
      long bias,
      long c) {
    if (batch > 1 && (s.strideA() == 0 && s.strideB() == 0 || s.k() == 1)) {
      // oneDNN repeats one operand over the batch, not both; and with k = 1 version 3.11 takes the
      // second operand's batch stride for n, whatever it is.
      for (int i = 0; i < batch; i++) {
        block(
            d,
            s,
            1,
            m,
            n,
            activation,
            a + 4 * i * s.strideA(),
            b + 4 * i * s.strideB(),
            bias,
            c + 4 * i * s.strideC());
      }
      return;
    }
    if (bias != 0 && s.alpha() != 1) {
      // oneDNN scales the bias with the product, so it gets alpha's share of it beforehand. (Adding
      // it behind the scaling, as a post-operation, goes astray where c is not dense.)
      long share = d.workspace(3, 4L * n);
      d.copy(bias, share, 4L * n);
      CpuElementwise.scale(d, n, 1 / s.alpha(), share);
      bias = share;
    }
    d.key(Dnnl.MATMUL)
        .add(batch)
        .add(((long) m << 32) | n)
        .add(((long) s.k() << 32) | s.lda())
        .add(((long) s.ldb() << 32) | s.ldc())
        .add(
            (s.transA() ? 1 : 0)
                | (s.transB() ? 2 : 0)
                | (bias != 0 ? 4 : 0)
                | activation.ordinal() << 3)
        .add(s.alpha())
        .add(s.beta());
    if (batch > 1) {
      d.key().add(s.strideA()).add(s.strideB()).add(s.strideC());
    }
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      kernel = build(d, s, batch, m, n, activation, bias != 0);
    }
    kernel.set(0, a).set(1, b).set(2, c);
    if (bias != 0) {
      kernel.set(3, bias);
    }
    kernel.run();
  }

  private static Dnnl.Kernel build(
      Dnnl d, Gemm s, int batch, int m, int n, Activation activation, boolean bias) {
    try (DnnlBuilder builder = new DnnlBuilder(d)) {
      boolean stacked = batch > 1;
      long k = s.k();
      dnnl_memory_desc a = matrix(builder, stacked, batch, m, k, s.lda(), s.transA(), s.strideA());
      dnnl_memory_desc b = matrix(builder, stacked, batch, k, n, s.ldb(), s.transB(), s.strideB());
      dnnl_memory_desc c = matrix(builder, stacked, batch, m, n, s.ldc(), false, s.strideC());
      dnnl_memory_desc row = stacked ? builder.dense(1, 1, n) : builder.dense(1, n);
      builder.argument(DNNL_ARG_SRC, a).argument(DNNL_ARG_WEIGHTS, b).argument(DNNL_ARG_DST, c);
      if (bias) {
        builder.argument(DNNL_ARG_BIAS, row);
      }
      if (s.alpha() != 1) {
        builder.thenEltwise(dnnl_eltwise_linear, s.alpha(), 0);
      }
      if (activation != Activation.NONE) {
        builder.thenEltwise(CpuElementwise.algorithm(activation.unary()), 0, 0);
      }
      if (s.beta() != 0) {
        builder.thenSum(s.beta());
      }
      dnnl_primitive_desc pd = builder.descriptor();
      Dnnl.check(
          dnnl_matmul_primitive_desc_create(
              pd, Dnnl.engine(), a, b, bias ? row : null, c, builder.attributes()),
          "matmul");
      return builder.build(pd);
    }
  }

  private static dnnl_memory_desc matrix(
      DnnlBuilder builder,
      boolean stacked,
      int batch,
      long rows,
      long columns,
      long leading,
      boolean transposed,
      long stride) {
    long storedRows = transposed ? columns : rows;
    long down = transposed ? 1 : leading;
    long right = transposed ? leading : 1;
    if (!stacked) {
      return builder.strided(dnnl_f32, new long[] {rows, columns}, new long[] {down, right});
    }
    // A matrix that the whole batch shares has extent 1, which oneDNN repeats.
    return builder.strided(
        dnnl_f32,
        new long[] {stride == 0 ? 1 : batch, rows, columns},
        new long[] {stride == 0 ? storedRows * leading : stride, down, right});
  }

  private static void activate(Dnnl d, Gemm s, int batch, int m, int n, long pre, long c) {
    int algorithm = CpuElementwise.algorithm(s.activation().unary());
    for (int i = 0; i < batch; i++) {
      long offset = 4 * i * s.strideC();
      if (n == s.ldc()) {
        CpuElementwise.forward(d, algorithm, (long) m * n, pre + offset, c + offset);
      } else {
        for (int row = 0; row < m; row++) {
          long start = offset + 4L * row * s.ldc();
          CpuElementwise.forward(d, algorithm, n, pre + start, c + start);
        }
      }
    }
  }

  /** Without terms or with alpha 0: C = activation(bias) + beta·C. */
  private static void withoutProduct(Gemm s, long bias, long c) {
    Dnnl d = Dnnl.here();
    // A product with one column of zeros says the same, and takes every option along.
    long zeros = d.workspace(3, 4L * Math.max(s.m(), s.n()));
    d.zero(zeros, 4L * Math.max(s.m(), s.n()));
    Gemm one =
        new Gemm(
            s.batch(),
            s.m(),
            s.n(),
            1,
            false,
            false,
            1,
            s.beta(),
            1,
            s.n(),
            s.ldc(),
            0,
            0,
            s.strideC(),
            s.activation());
    block(d, one, s.batch(), s.m(), s.n(), s.activation(), zeros, zeros, bias, c);
  }
}
