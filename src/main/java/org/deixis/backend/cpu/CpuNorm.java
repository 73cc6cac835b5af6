package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import java.nio.FloatBuffer;
import org.bytedeco.dnnl.dnnl_memory_desc;
import org.bytedeco.dnnl.dnnl_primitive_desc;
import org.deixis.backend.Array;

/**
 * Softmax and layer normalisation by oneDNN, over blocks of rows that stay in the second-level
 * cache between a kernel's steps.
 */
final class CpuNorm {
  /** Elements of a block of rows. */
  private static final int BLOCK = 32 * 1024;

  private final WorkerPool pool;
  private final CpuReduce reduce;

  CpuNorm(WorkerPool pool, CpuReduce reduce) {
    this.pool = pool;
    this.reduce = reduce;
  }

  /**
   * Rows of a block: small arrays are cut into one block a thread if that is worth it, and every
   * thread gets as many blocks.
   */
  private int blockRows(int rows, int columns) {
    long most = Math.max(1, Math.min(Tile.ROWS, BLOCK / Math.max(1, columns)));
    long share = (rows + pool.threads() - 1) / pool.threads();
    long least = Math.max(1, BLOCK / 4 / Math.max(1, columns));
    long step = Math.min(most, Math.max(share, least));
    long blocks = (rows + step - 1) / step;
    if (blocks <= 1) {
      return (int) step;
    }
    blocks = (blocks + pool.threads() - 1) / pool.threads() * pool.threads();
    return (int) ((rows + blocks - 1) / blocks);
  }

  void softmax(int rows, int columns, Array x, Array y) {
    if (rows == 0 || columns == 0) {
      return;
    }
    long from = Native.floats(x);
    long to = Native.floats(y);
    int step = blockRows(rows, columns);
    pool.parallelFor(
        (rows + step - 1) / step,
        i -> {
          long offset = 4L * i * step * columns;
          int n = Math.min(step, rows - i * step);
          softmax(Dnnl.here(), n, columns, from + offset, to + offset);
        });
  }

  /** On the calling thread. */
  static void softmax(Dnnl d, int rows, int columns, long x, long y) {
    d.key(Dnnl.SOFTMAX).add(rows).add(columns);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc md = builder.dense(rows, columns);
        dnnl_primitive_desc pd = softmax(builder, md);
        kernel = builder.argument(DNNL_ARG_SRC, md).argument(DNNL_ARG_DST, md).build(pd);
      }
    }
    kernel.run(x, y);
  }

  private static dnnl_primitive_desc softmax(DnnlBuilder builder, dnnl_memory_desc md) {
    dnnl_primitive_desc pd = builder.descriptor();
    Dnnl.check(
        dnnl_softmax_forward_primitive_desc_create(
            pd,
            Dnnl.engine(),
            dnnl_forward_training,
            dnnl_softmax_accurate,
            md,
            md,
            1,
            builder.attributes()),
        "softmax");
    return pd;
  }

  void softmaxBackward(int rows, int columns, Array y, Array dy, Array dx) {
    if (rows == 0 || columns == 0) {
      return;
    }
    long result = Native.floats(y);
    long from = Native.floats(dy);
    long to = Native.floats(dx);
    int step = blockRows(rows, columns);
    pool.parallelFor(
        (rows + step - 1) / step,
        i -> {
          long offset = 4L * i * step * columns;
          int n = Math.min(step, rows - i * step);
          softmaxBackward(Dnnl.here(), n, columns, result + offset, from + offset, to + offset);
        });
  }

  /** On the calling thread; dx may be dy. */
  static void softmaxBackward(Dnnl d, int rows, int columns, long y, long dy, long dx) {
    d.key(Dnnl.SOFTMAX_BACKWARD).add(rows).add(columns);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc md = builder.dense(rows, columns);
        dnnl_primitive_desc hint = softmax(builder, md);
        dnnl_primitive_desc pd = builder.descriptor();
        Dnnl.check(
            dnnl_softmax_backward_primitive_desc_create(
                pd,
                Dnnl.engine(),
                dnnl_softmax_accurate,
                md,
                md,
                md,
                1,
                hint,
                builder.attributes()),
            "softmax gradient");
        kernel =
            builder
                .argument(DNNL_ARG_DST, md)
                .argument(DNNL_ARG_DIFF_DST, md)
                .argument(DNNL_ARG_DIFF_SRC, md)
                .build(pd);
      }
    }
    kernel.run(y, dy, dx);
  }

  void layerNorm(
      int rows,
      int columns,
      double eps,
      Array x,
      Array residual,
      Array gamma,
      Array beta,
      Array sum,
      Array y,
      Array stats) {
    if (rows == 0 || columns == 0) {
      return;
    }
    long from = Native.floats(x);
    long other = residual == null ? 0 : Native.floats(residual);
    long total = residual == null ? from : Native.floats(sum);
    long scale = gamma == null ? 0 : Native.floats(gamma);
    long shift = beta == null ? 0 : Native.floats(beta);
    long to = Native.floats(y);
    Native.floats(stats);
    FloatBuffer statistics = Tile.floats(stats);
    int start = Tile.start(stats);
    int step = blockRows(rows, columns);
    pool.parallelFor(
        (rows + step - 1) / step,
        i -> {
          Dnnl d = Dnnl.here();
          Tile tile = Tile.here();
          int n = Math.min(step, rows - i * step);
          long offset = 4L * i * step * columns;
          if (other != 0) {
            CpuElementwise.add(
                d, (long) n * columns, from + offset, other + offset, total + offset);
          }
          Dnnl.Kernel kernel = layerNorm(d, n, columns, (float) eps, scale != 0);
          kernel
              .set(0, total + offset)
              .set(1, to + offset)
              .set(2, tile.directAddress)
              .set(3, tile.directAddress + 4L * Tile.ROWS);
          if (scale != 0) {
            kernel.set(4, scale).set(5, shift);
          }
          kernel.run();
          float[] out = tile.a;
          for (int r = 0; r < n; r++) {
            out[2 * r] = tile.direct.get(r);
            out[2 * r + 1] = (float) (1 / Math.sqrt(tile.direct.get(Tile.ROWS + r) + eps));
          }
          statistics.put(start + 2 * i * step, out, 0, 2 * n);
        });
  }

  private static Dnnl.Kernel layerNorm(Dnnl d, int rows, int columns, float eps, boolean affine) {
    d.key(Dnnl.LAYER_NORM).add(rows).add(columns).add(eps).add(affine ? 1 : 0);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc md = builder.dense(rows, columns);
        dnnl_memory_desc row = builder.dense(rows);
        dnnl_primitive_desc pd = layerNorm(builder, md, row, eps, affine);
        builder
            .argument(DNNL_ARG_SRC, md)
            .argument(DNNL_ARG_DST, md)
            .argument(DNNL_ARG_MEAN, row)
            .argument(DNNL_ARG_VARIANCE, row);
        if (affine) {
          dnnl_memory_desc column = builder.dense(columns);
          builder.argument(DNNL_ARG_SCALE, column).argument(DNNL_ARG_SHIFT, column);
        }
        kernel = builder.build(pd);
      }
    }
    return kernel;
  }

  private static int flags(boolean affine) {
    return affine ? dnnl_use_scale | dnnl_use_shift : 0;
  }

  private static dnnl_primitive_desc layerNorm(
      DnnlBuilder builder, dnnl_memory_desc md, dnnl_memory_desc row, float eps, boolean affine) {
    dnnl_primitive_desc pd = builder.descriptor();
    Dnnl.check(
        dnnl_layer_normalization_forward_primitive_desc_create(
            pd,
            Dnnl.engine(),
            dnnl_forward_training,
            md,
            md,
            row,
            eps,
            flags(affine),
            builder.attributes()),
        "layer normalisation");
    return pd;
  }

  void layerNormBackward(
      int rows,
      int columns,
      Array x,
      Array gamma,
      Array stats,
      Array dy,
      Array extra,
      Array dx,
      Array dGamma,
      Array dBeta) {
    if (columns == 0) {
      return;
    }
    int step = blockRows(rows, columns);
    int blocks = (rows + step - 1) / step;
    boolean affine = gamma != null;
    long partial = affine ? Dnnl.here().workspace(2, 8L * Math.max(1, blocks) * columns) : 0;
    long from = Native.floats(x);
    long scale = affine ? Native.floats(gamma) : 0;
    long gradient = Native.floats(dy);
    long more = extra == null ? 0 : Native.floats(extra);
    long to = Native.floats(dx);
    Native.floats(stats);
    FloatBuffer statistics = Tile.floats(stats);
    int start = Tile.start(stats);
    pool.parallelFor(
        blocks,
        i -> {
          Dnnl d = Dnnl.here();
          Tile tile = Tile.here();
          int n = Math.min(step, rows - i * step);
          long offset = 4L * i * step * columns;
          statistics.get(start + 2 * i * step, tile.a, 0, 2 * n);
          for (int r = 0; r < n; r++) {
            // oneDNN wants the variance: with an eps of 0 it finds the same reciprocal root.
            double root = tile.a[2 * r + 1];
            tile.direct.put(r, tile.a[2 * r]);
            tile.direct.put(Tile.ROWS + r, (float) (1 / (root * root)));
          }
          Dnnl.Kernel kernel = layerNormBackward(d, n, columns, affine);
          kernel
              .set(0, from + offset)
              .set(1, gradient + offset)
              .set(2, to + offset)
              .set(3, tile.directAddress)
              .set(4, tile.directAddress + 4L * Tile.ROWS);
          if (affine) {
            kernel
                .set(5, scale)
                .set(6, partial + 4L * i * columns)
                .set(7, partial + 4L * (blocks + i) * columns);
          }
          kernel.run();
          if (more != 0) {
            CpuElementwise.add(d, (long) n * columns, to + offset, more + offset, to + offset);
          }
        });
    if (affine) {
      reduce.columnSums(blocks, columns, partial, Native.floats(dGamma));
      reduce.columnSums(blocks, columns, partial + 4L * blocks * columns, Native.floats(dBeta));
    }
  }

  private static Dnnl.Kernel layerNormBackward(Dnnl d, int rows, int columns, boolean affine) {
    d.key(Dnnl.LAYER_NORM_BACKWARD).add(rows).add(columns).add(affine ? 1 : 0);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc md = builder.dense(rows, columns);
        dnnl_memory_desc row = builder.dense(rows);
        dnnl_primitive_desc hint = layerNorm(builder, md, row, 0, affine);
        dnnl_primitive_desc pd = builder.descriptor();
        Dnnl.check(
            dnnl_layer_normalization_backward_primitive_desc_create(
                pd,
                Dnnl.engine(),
                affine ? dnnl_backward : dnnl_backward_data,
                md,
                md,
                md,
                row,
                0,
                flags(affine),
                hint,
                builder.attributes()),
            "layer normalisation gradient");
        builder
            .argument(DNNL_ARG_SRC, md)
            .argument(DNNL_ARG_DIFF_DST, md)
            .argument(DNNL_ARG_DIFF_SRC, md)
            .argument(DNNL_ARG_MEAN, row)
            .argument(DNNL_ARG_VARIANCE, row);
        if (affine) {
          dnnl_memory_desc column = builder.dense(columns);
          builder
              .argument(DNNL_ARG_SCALE, column)
              .argument(DNNL_ARG_DIFF_SCALE, column)
              .argument(DNNL_ARG_DIFF_SHIFT, column);
        }
        kernel = builder.build(pd);
      }
    }
    return kernel;
  }
}
