package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import java.nio.FloatBuffer;
import org.bytedeco.dnnl.dnnl_memory_desc;
import org.bytedeco.dnnl.dnnl_primitive_desc;
import org.bytedeco.javacpp.FloatPointer;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Gemm;
import org.deixis.backend.Reduction;

/**
 * Folding an axis. Sums are taken in blocks whose extent depends on nothing but the shape, and the
 * blocks' sums are folded in turn, which keeps both the bits and the rounding error small and
 * fixed.
 */
final class CpuReduce {
  /** Rows whose sum is one product with a row of ones: oneDNN's own reduction is a plain loop. */
  static final int BLOCK = 1024;

  /** Columns of such a product. */
  private static final int COLUMNS = 4096;

  /** Adjacent elements that are folded in one go. */
  private static final int RUN = 4096;

  /** Fewest elements worth a task. */
  private static final long GRAIN = 32 * 1024;

  private static final FloatPointer ONES = ones();

  private final WorkerPool pool;
  private final CpuGemm gemm;
  private final CpuMove move;

  CpuReduce(WorkerPool pool, CpuGemm gemm, CpuMove move) {
    this.pool = pool;
    this.gemm = gemm;
    this.move = move;
  }

  private static FloatPointer ones() {
    FloatPointer p = new FloatPointer(BLOCK);
    for (int i = 0; i < BLOCK; i++) {
      p.put(i, 1);
    }
    return p;
  }

  void reduce(Reduction kind, int outer, int axis, int inner, Array x, Array y) {
    if (outer == 0 || inner == 0) {
      return;
    }
    if (axis == 0) {
      move.fill(y, kind == Reduction.MAX ? Double.NEGATIVE_INFINITY : 0);
      return;
    }
    long from = Native.floats(x);
    long to = Native.floats(y);
    float factor = kind == Reduction.MEAN ? 1f / axis : 1;
    if (inner == 1) {
      runs(kind == Reduction.MAX ? dnnl_reduction_max : dnnl_reduction_sum, outer, axis, from, to);
      if (factor != 1) {
        CpuElementwise.scale(Dnnl.here(), outer, factor, to);
      }
    } else if (kind == Reduction.MAX) {
      maximum(outer, axis, inner, x, y);
    } else {
      columns(outer, axis, inner, factor, from, to, 0);
    }
  }

  /** y[j] = Σ over rows of x[row][j]; scratch slot 0 of the calling thread is overwritten. */
  void columnSums(int rows, int columns, long x, long y) {
    if (rows == 0) {
      Dnnl.here().zero(y, 4L * columns);
      return;
    }
    columns(1, rows, columns, 1, x, y, 0);
  }

  /**
   * y[j] = Σ over at most {@link #BLOCK} rows of x[row][j], on the calling thread.
   *
   * @param accumulate whether to add to what y holds
   */
  void sumHere(int rows, int columns, long x, long y, boolean accumulate) {
    Gemm sum = product(1, columns, rows, columns, 1, 0, 0).accumulating(accumulate ? 1 : 0);
    gemm.run(sum, ONES.address(), x, 0, y);
  }

  private void columns(int outer, int rows, int columns, float factor, long x, long y, int slot) {
    int blocks = (rows + BLOCK - 1) / BLOCK;
    if (blocks > 1) {
      // Two slots serve every depth: a level reads the one and writes the other.
      long partial = Dnnl.here().workspace(slot, 4L * outer * blocks * columns);
      int wide = (columns + COLUMNS - 1) / COLUMNS;
      pool.parallelFor(
          outer * blocks * wide,
          i -> {
            int column = i % wide * COLUMNS;
            int block = i / wide % blocks;
            long o = i / wide / blocks;
            int n = Math.min(COLUMNS, columns - column);
            int k = Math.min(BLOCK, rows - block * BLOCK);
            gemm.run(
                product(1, n, k, columns, 1, 0, 0),
                ONES.address(),
                x + 4 * ((o * rows + (long) block * BLOCK) * columns + column),
                0,
                partial + 4 * ((o * blocks + block) * columns + column));
          });
      columns(outer, blocks, columns, factor, partial, y, 1 - slot);
      return;
    }
    long plane = (long) rows * columns;
    int together = (int) Math.max(1, Math.min(outer, GRAIN / plane));
    int groups = (outer + together - 1) / together;
    int wide = together > 1 ? 1 : (columns + COLUMNS - 1) / COLUMNS;
    pool.parallelFor(
        groups * wide,
        i -> {
          int column = i % wide * COLUMNS;
          int first = i / wide * together;
          int n = together > 1 ? columns : Math.min(COLUMNS, columns - column);
          int batch = Math.min(together, outer - first);
          gemm.run(
              product(batch, n, rows, columns, factor, plane, columns),
              ONES.address(),
              x + 4 * (first * plane + column),
              0,
              y + 4 * ((long) first * columns + column));
        });
  }

  private static Gemm product(
      int batch, int n, int k, int leading, float factor, long strideB, long strideC) {
    return new Gemm(
        batch,
        1,
        n,
        k,
        false,
        false,
        factor,
        0,
        k,
        leading,
        leading,
        0,
        strideB,
        strideC,
        Activation.NONE);
  }

  /** Folds each of {@code outer} rows of adjacent elements. */
  private void runs(int algorithm, int outer, int axis, long x, long y) {
    int blocks = axis / RUN;
    if (blocks < 2) {
      pool.parallelRanges(
          outer,
          Math.max(1, GRAIN / axis),
          (first, end) ->
              fold(Dnnl.here(), algorithm, end - first, axis, x + 4 * first * axis, y + 4 * first));
      return;
    }
    int tail = axis % RUN;
    int parts = blocks + (tail > 0 ? 1 : 0);
    int together = (int) (GRAIN / RUN);
    int groups = (blocks + together - 1) / together;
    int tasks = groups + (tail > 0 ? 1 : 0);
    long partial = Dnnl.here().workspace(0, 4L * outer * parts);
    pool.parallelFor(
        outer * tasks,
        i -> {
          long o = i / tasks;
          int group = i % tasks;
          int first = Math.min(blocks, group * together);
          boolean last = group == groups;
          int count = last ? 1 : Math.min(together, blocks - first);
          fold(
              Dnnl.here(),
              algorithm,
              count,
              last ? tail : RUN,
              x + 4 * (o * axis + (long) first * RUN),
              partial + 4 * (o * parts + first));
        });
    fold(Dnnl.here(), algorithm, outer, parts, partial, y);
  }

  private static void fold(Dnnl d, int algorithm, long rows, long columns, long x, long y) {
    d.key(Dnnl.FOLD).add(algorithm).add(rows).add(columns);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc source = builder.dense(rows, columns);
        dnnl_memory_desc target = builder.dense(rows, 1);
        dnnl_primitive_desc pd = builder.descriptor();
        if (columns == 1) {
          // A fold of one element is a copy, which oneDNN does not take for a reduction.
          Dnnl.check(
              dnnl_reorder_primitive_desc_create(
                  pd, source, Dnnl.engine(), target, Dnnl.engine(), builder.attributes()),
              "reduction");
        } else {
          Dnnl.check(
              dnnl_reduction_primitive_desc_create(
                  pd, Dnnl.engine(), algorithm, source, target, 0, 0, builder.attributes()),
              "reduction");
        }
        kernel = builder.argument(DNNL_ARG_SRC, source).argument(DNNL_ARG_DST, target).build(pd);
      }
    }
    kernel.run(x, y);
  }

  private void maximum(int outer, int axis, int inner, Array x, Array y) {
    FloatBuffer from = Tile.floats(x);
    FloatBuffer to = Tile.floats(y);
    int startX = Tile.start(x);
    int startY = Tile.start(y);
    int wide = (inner + Tile.SIZE - 1) / Tile.SIZE;
    pool.parallelRanges(
        (long) outer * wide,
        Math.max(1, GRAIN / ((long) axis * Math.min(inner, Tile.SIZE))),
        (first, end) -> {
          float[] best = Tile.here().a;
          float[] row = Tile.here().b;
          for (long i = first; i < end; i++) {
            int o = (int) (i / wide);
            int column = (int) (i % wide) * Tile.SIZE;
            int n = Math.min(Tile.SIZE, inner - column);
            from.get(startX + o * axis * inner + column, best, 0, n);
            for (int r = 1; r < axis; r++) {
              from.get(startX + (o * axis + r) * inner + column, row, 0, n);
              for (int j = 0; j < n; j++) {
                best[j] = Math.max(best[j], row[j]);
              }
            }
            to.put(startY + o * inner + column, best, 0, n);
          }
        });
  }
}
