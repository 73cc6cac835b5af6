package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import java.nio.FloatBuffer;
import java.util.Arrays;
import org.bytedeco.dnnl.dnnl_memory_desc;
import org.bytedeco.dnnl.dnnl_primitive_desc;
import org.deixis.backend.Array;
import org.deixis.backend.Binary;
import org.deixis.backend.Unary;
import org.deixis.core.DType;

/** Elementwise arithmetic: oneDNN over pieces that the threads share. */
final class CpuElementwise {
  /** Fewest elements worth a task. */
  private static final long GRAIN = 16 * 1024;

  /** Elements of a task when there are enough for all threads: a call costs about a microsecond. */
  private static final long PIECE = 128 * 1024;

  private final WorkerPool pool;

  CpuElementwise(WorkerPool pool) {
    this.pool = pool;
  }

  static int algorithm(Unary kind) {
    return switch (kind) {
      case GELU -> dnnl_eltwise_gelu_erf;
      case GELU_TANH -> dnnl_eltwise_gelu_tanh;
      case RELU -> dnnl_eltwise_relu;
      case SIGMOID -> dnnl_eltwise_logistic;
      case TANH -> dnnl_eltwise_tanh;
      case EXP -> dnnl_eltwise_exp;
      case SQUARE -> dnnl_eltwise_square;
    };
  }

  void unary(Unary kind, Array x, Array y) {
    long from = Native.floats(x);
    long to = Native.floats(y);
    int algorithm = algorithm(kind);
    pieces(
        x.size(),
        (first, end) ->
            forward(Dnnl.here(), algorithm, end - first, from + 4 * first, to + 4 * first));
  }

  /** y = f(x) for n adjacent elements, on the calling thread. */
  static void forward(Dnnl d, int algorithm, long n, long x, long y) {
    d.key(Dnnl.ELTWISE).add(algorithm).add(n);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc md = builder.dense(n);
        dnnl_primitive_desc pd = builder.descriptor();
        Dnnl.check(
            dnnl_eltwise_forward_primitive_desc_create(
                pd,
                Dnnl.engine(),
                dnnl_forward_training,
                algorithm,
                md,
                md,
                0,
                0,
                builder.attributes()),
            "elementwise");
        kernel = builder.argument(DNNL_ARG_SRC, md).argument(DNNL_ARG_DST, md).build(pd);
      }
    }
    kernel.run(x, y);
  }

  void unaryBackward(Unary kind, Array x, Array y, Array dy, Array dx) {
    // Where the derivative is simpler in y = f(x), oneDNN takes y in the place of x.
    int algorithm =
        switch (kind) {
          case SIGMOID -> dnnl_eltwise_logistic_use_dst_for_bwd;
          case TANH -> dnnl_eltwise_tanh_use_dst_for_bwd;
          case EXP -> dnnl_eltwise_exp_use_dst_for_bwd;
          default -> algorithm(kind);
        };
    boolean byResult = algorithm != algorithm(kind);
    long data = Native.floats(byResult ? y : x);
    long from = Native.floats(dy);
    long to = Native.floats(dx);
    pieces(
        x.size(),
        (first, end) ->
            backward(
                Dnnl.here(),
                algorithm,
                byResult,
                end - first,
                data + 4 * first,
                from + 4 * first,
                to + 4 * first));
  }

  private static void backward(
      Dnnl d, int algorithm, boolean byResult, long n, long data, long dy, long dx) {
    d.key(Dnnl.ELTWISE_BACKWARD).add(algorithm).add(n);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc md = builder.dense(n);
        dnnl_primitive_desc hint = builder.descriptor();
        Dnnl.check(
            dnnl_eltwise_forward_primitive_desc_create(
                hint,
                Dnnl.engine(),
                dnnl_forward_training,
                algorithm,
                md,
                md,
                0,
                0,
                builder.attributes()),
            "elementwise");
        dnnl_primitive_desc pd = builder.descriptor();
        Dnnl.check(
            dnnl_eltwise_backward_primitive_desc_create(
                pd, Dnnl.engine(), algorithm, md, md, md, 0, 0, hint, builder.attributes()),
            "elementwise gradient");
        kernel =
            builder
                .argument(byResult ? DNNL_ARG_DST : DNNL_ARG_SRC, md)
                .argument(DNNL_ARG_DIFF_DST, md)
                .argument(DNNL_ARG_DIFF_SRC, md)
                .build(pd);
      }
    }
    kernel.run(data, dy, dx);
  }

  /**
   * Pieces that n elements are cut into: as many for each thread, so that all kernels over as many
   * elements give a thread the same ones.
   */
  private long parts(long n) {
    int threads = pool.threads();
    if (threads == 1) {
      return 1;
    }
    long each = Math.max(1, Math.min(4, n / PIECE / threads));
    return Math.max(1, Math.min(n / GRAIN, each * threads));
  }

  /**
   * Cuts [0, n) into pieces that are multiples of 1024 elements, so that all but the last share a
   * primitive.
   */
  private void pieces(long n, WorkerPool.RangeBody body) {
    if (n == 0) {
      return;
    }
    long parts = parts(n);
    long step = ((n + parts - 1) / parts + 1023) / 1024 * 1024;
    long count = (n + step - 1) / step;
    pool.parallelFor((int) count, i -> body.accept(i * step, Math.min(n, (i + 1) * step)));
  }

  void binary(
      Binary kind,
      int outer,
      int middle,
      int inner,
      boolean bOuter,
      boolean bMiddle,
      boolean bInner,
      Array a,
      Array b,
      Array y) {
    if (a.size() == 0) {
      return;
    }
    // Axes of one element go, and neighbours that b treats alike are one axis.
    int[] extents = {outer, middle, inner};
    boolean[] given = {bOuter, bMiddle, bInner};
    long[] dims = new long[3];
    boolean[] has = new boolean[3];
    int rank = 0;
    for (int i = 0; i < 3; i++) {
      if (extents[i] == 1) {
        continue;
      }
      if (rank > 0 && has[rank - 1] == given[i]) {
        dims[rank - 1] *= extents[i];
      } else {
        dims[rank] = extents[i];
        has[rank++] = given[i];
      }
    }
    long pa = Native.floats(a);
    long pb = Native.floats(b);
    long py = Native.floats(y);
    int algorithm = algorithm(kind);
    if (rank <= 1) {
      long step = rank == 0 || has[0] ? 4 : 0;
      pieces(
          a.size(),
          (first, end) ->
              apply(
                  Dnnl.here(),
                  algorithm,
                  new long[] {end - first},
                  new long[] {step == 0 ? 1 : end - first},
                  pa + 4 * first,
                  pb + step * first,
                  py + 4 * first));
      return;
    }
    long[] shape = Arrays.copyOf(dims, rank);
    long[] other = new long[rank];
    long row = 1;
    long otherRow = 1;
    for (int i = 0; i < rank; i++) {
      other[i] = has[i] ? shape[i] : 1;
      row *= i > 0 ? shape[i] : 1;
      otherRow *= i > 0 ? other[i] : 1;
    }
    long rowBytes = 4 * row;
    long otherBytes = has[0] ? 4 * otherRow : 0;
    long parts = Math.min(parts(a.size()), shape[0]);
    pool.parallelFor(
        (int) parts,
        i -> {
          long first = shape[0] * i / parts;
          long end = shape[0] * (i + 1) / parts;
          long[] part = shape.clone();
          long[] otherPart = other.clone();
          part[0] = end - first;
          otherPart[0] = has[0] ? end - first : 1;
          apply(
              Dnnl.here(),
              algorithm,
              part,
              otherPart,
              pa + first * rowBytes,
              pb + first * otherBytes,
              py + first * rowBytes);
        });
  }

  private static int algorithm(Binary kind) {
    return switch (kind) {
      case ADD -> dnnl_binary_add;
      case SUB -> dnnl_binary_sub;
      case MUL -> dnnl_binary_mul;
      case DIV -> dnnl_binary_div;
    };
  }

  /** y = a ∘ b for dense a and y of extents {@code dims}, b of extents {@code other}. */
  private static void apply(
      Dnnl d, int algorithm, long[] dims, long[] other, long a, long b, long y) {
    d.key(Dnnl.BINARY).add(algorithm).add(dims).add(other);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc md = builder.dense(dims);
        dnnl_memory_desc second = builder.dense(other);
        if (dims.length == 2 && other[0] == 1 && other[1] == dims[1]) {
          // A row for all rows is, to oneDNN, a channel for all pixels: its faster loop.
          long[] strides = {dims[0] * dims[1], 1, dims[1]};
          md = builder.strided(dnnl_f32, new long[] {1, dims[1], dims[0]}, strides);
          second = builder.strided(dnnl_f32, new long[] {1, dims[1], 1}, strides);
        }
        dnnl_primitive_desc pd = builder.descriptor();
        Dnnl.check(
            dnnl_binary_primitive_desc_create(
                pd, Dnnl.engine(), algorithm, md, second, md, builder.attributes()),
            "binary");
        kernel =
            builder
                .argument(DNNL_ARG_SRC_0, md)
                .argument(DNNL_ARG_SRC_1, second)
                .argument(DNNL_ARG_DST, md)
                .build(pd);
      }
    }
    kernel.run(a, b, y);
  }

  /** y = a + b for n adjacent elements, on the calling thread; y may be a. */
  static void add(Dnnl d, long n, long a, long b, long y) {
    d.key(Dnnl.ADD).add(n);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc md = builder.dense(n);
        dnnl_primitive_desc pd = builder.descriptor();
        Dnnl.check(
            dnnl_binary_primitive_desc_create(
                pd, Dnnl.engine(), dnnl_binary_add, md, md, md, builder.attributes()),
            "addition");
        kernel =
            builder
                .argument(DNNL_ARG_SRC_0, md)
                .argument(DNNL_ARG_SRC_1, md)
                .argument(DNNL_ARG_DST, md)
                .build(pd);
      }
    }
    kernel.run(a, b, y);
  }

  void axpby(double alpha, Array x, double beta, Array y) {
    if (x.dtype() != DType.F32 || y.dtype() != DType.F32) {
      throw new IllegalStateException("a kernel of the CPU for F32 was given " + x + " and " + y);
    }
    FloatBuffer from = Tile.floats(x);
    FloatBuffer to = Tile.floats(y);
    int startX = Tile.start(x);
    int startY = Tile.start(y);
    float scaleX = (float) alpha;
    float scaleY = (float) beta;
    // The factors change from call to call, and oneDNN would generate code for each.
    pieces(
        x.size(),
        (first, end) -> {
          Tile tile = Tile.here();
          for (long i = first; i < end; i += Tile.SIZE) {
            int n = (int) Math.min(Tile.SIZE, end - i);
            from.get(startX + (int) i, tile.a, 0, n);
            if (scaleY == 0) {
              scale(tile.a, scaleX, n);
            } else {
              to.get(startY + (int) i, tile.b, 0, n);
              combine(tile.a, scaleX, tile.b, scaleY, n);
            }
            to.put(startY + (int) i, tile.a, 0, n);
          }
        });
  }

  /** x *= factor for n adjacent elements, on the calling thread; for factors that shapes fix. */
  static void scale(Dnnl d, long n, float factor, long x) {
    d.key(Dnnl.SCALE).add(factor).add(n);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc md = builder.dense(n);
        dnnl_primitive_desc pd = builder.descriptor();
        Dnnl.check(
            dnnl_eltwise_forward_primitive_desc_create(
                pd,
                Dnnl.engine(),
                dnnl_forward_inference,
                dnnl_eltwise_linear,
                md,
                md,
                factor,
                0,
                builder.attributes()),
            "scaling");
        kernel = builder.argument(DNNL_ARG_SRC, md).argument(DNNL_ARG_DST, md).build(pd);
      }
    }
    kernel.run(x, x);
  }

  private static void scale(float[] x, float factor, int n) {
    for (int i = 0; i < n; i++) {
      x[i] *= factor;
    }
  }

  private static void combine(float[] x, float alpha, float[] y, float beta, int n) {
    for (int i = 0; i < n; i++) {
      x[i] = alpha * x[i] + beta * y[i];
    }
  }
}
