package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import java.nio.FloatBuffer;
import org.bytedeco.dnnl.dnnl_memory_desc;
import org.bytedeco.dnnl.dnnl_primitive_desc;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.core.DType;

/** Moving elements: filling, copying, converting, permuting axes, copying columns, repeating. */
final class CpuMove {
  /** Bytes worth a task. */
  private static final long GRAIN = 128 * 1024;

  /** Elements of a piece that is converted in one call. */
  private static final long PIECE = 32 * 1024;

  /** Elements of a repeated run below which a copy of its own costs more than a loop. */
  private static final int SHORT = 64;

  private final WorkerPool pool;

  CpuMove(WorkerPool pool) {
    this.pool = pool;
  }

  void fill(Array y, double value) {
    long n = y.size();
    if (n == 0) {
      return;
    }
    long to = Native.address(y);
    boolean zero = Double.doubleToRawLongBits(value) == 0;
    int head = (int) (zero ? 0 : Math.min(n, Tile.SIZE));
    for (int i = 0; i < head; i++) {
      put(y, (int) (y.offset() + i), value);
    }
    long done = (long) head * y.dtype().bytes();
    pool.parallelRanges(
        y.bytes() - done,
        GRAIN,
        (first, end) -> {
          Dnnl d = Dnnl.here();
          if (zero) {
            d.zero(to + first, end - first);
            return;
          }
          // The pattern repeats with every element, so a piece continues it at any element's start.
          for (long i = first; i < end; ) {
            long phase = i % done;
            long length = Math.min(end - i, done - phase);
            d.copy(to + phase, to + done + i, length);
            i += length;
          }
        });
  }

  private static void put(Array y, int index, double value) {
    HostBuffer buffer = HostBuffer.of(y);
    switch (y.dtype()) {
      case F32 -> buffer.floats().put(index, (float) value);
      case F64 -> buffer.doubles().put(index, value);
      case F16, BF16 -> buffer.shorts().put(index, half(y.dtype(), value));
      case I64 -> buffer.longs().put(index, (long) value);
      case I32 -> buffer.ints().put(index, (int) value);
      case I16 -> buffer.shorts().put(index, (short) value);
      case I8, U8, BOOL -> buffer.bytesView().put(index, (byte) (int) value);
    }
  }

  private static short half(DType type, double value) {
    return org.deixis.core.Half.fromFloat(type, (float) value);
  }

  void copy(Array x, Array y) {
    long from = Native.address(x);
    long to = Native.address(y);
    if (x.dtype() == y.dtype()) {
      pool.parallelRanges(
          x.bytes(),
          GRAIN,
          (first, end) -> Dnnl.here().copy(from + first, to + first, end - first));
      return;
    }
    long n = x.size();
    int pieces = (int) ((n + PIECE - 1) / PIECE);
    pool.parallelFor(
        pieces,
        i -> {
          long first = i * PIECE;
          Conversion.convert(x, y, first, Math.min(PIECE, n - first));
        });
  }

  void transpose(Array x, int[] permutation, Array y) {
    int rank = permutation.length;
    long[] strides = new long[rank + 1];
    long[] from = new long[rank + 1];
    long stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
      strides[i] = stride;
      stride *= x.dim(i);
    }
    if (stride == 0) {
      return;
    }
    // Axes of one element go, and axes that stay neighbours are one.
    long[] dims = new long[rank + 1];
    int kept = 0;
    for (int i = 0; i < rank; i++) {
      int extent = y.dim(i);
      long step = strides[permutation[i]];
      if (extent == 1) {
        continue;
      }
      if (kept > 0 && from[kept - 1] == step * extent) {
        dims[kept - 1] *= extent;
        from[kept - 1] = step;
      } else {
        dims[kept] = extent;
        from[kept++] = step;
      }
    }
    if (kept == 0) {
      dims[kept] = 1;
      from[kept++] = 1;
    }
    long[] to = new long[kept];
    stride = 1;
    for (int i = kept - 1; i >= 0; i--) {
      to[i] = stride;
      stride *= dims[i];
    }
    int axis = 0;
    for (int i = 1; i < kept && dims[axis] < 4L * pool.threads(); i++) {
      if (dims[i] > dims[axis]) {
        axis = i;
      }
    }
    long[] extents = java.util.Arrays.copyOf(dims, kept);
    long[] source = java.util.Arrays.copyOf(from, kept);
    strided(extents, source, to, axis, false, x.dtype(), Native.address(x), Native.address(y));
  }

  void copyColumns(
      int rows,
      int columns,
      Array x,
      int xOffset,
      int xStride,
      Array y,
      int yOffset,
      int yStride,
      boolean accumulate) {
    if (rows == 0 || columns == 0) {
      return;
    }
    if (accumulate) {
      Native.floats(x);
    }
    int bytes = x.dtype().bytes();
    strided(
        new long[] {rows, columns},
        new long[] {xStride, 1},
        new long[] {yStride, 1},
        0,
        accumulate,
        x.dtype(),
        Native.address(x) + (long) bytes * xOffset,
        Native.address(y) + (long) bytes * yOffset);
  }

  /** Copies elements between two layouts of the same extents, cut along {@code axis}. */
  private void strided(
      long[] dims,
      long[] source,
      long[] target,
      int axis,
      boolean accumulate,
      DType type,
      long x,
      long y) {
    long n = 1;
    for (long dim : dims) {
      n *= dim;
    }
    long slice = n / dims[axis] * type.bytes();
    pool.parallelRanges(
        dims[axis],
        Math.max(1, GRAIN / slice),
        (first, end) -> {
          long[] part = dims.clone();
          part[axis] = end - first;
          reorder(
              Dnnl.here(),
              part,
              source,
              target,
              accumulate,
              type,
              x + first * source[axis] * type.bytes(),
              y + first * target[axis] * type.bytes());
        });
  }

  private static void reorder(
      Dnnl d,
      long[] dims,
      long[] source,
      long[] target,
      boolean accumulate,
      DType type,
      long x,
      long y) {
    d.key(Dnnl.REORDER)
        .add(type.bytes() << 1 | (accumulate ? 1 : 0))
        .add(dims)
        .add(source)
        .add(target);
    Dnnl.Kernel kernel = d.find();
    if (kernel == null) {
      try (DnnlBuilder builder = new DnnlBuilder(d)) {
        dnnl_memory_desc from = layout(builder, type, dims, source);
        dnnl_memory_desc to = layout(builder, type, dims, target);
        if (accumulate) {
          builder.thenSum(1);
        }
        dnnl_primitive_desc pd = builder.descriptor();
        Dnnl.check(
            dnnl_reorder_primitive_desc_create(
                pd, from, Dnnl.engine(), to, Dnnl.engine(), builder.attributes()),
            "reorder");
        kernel = builder.argument(DNNL_ARG_FROM, from).argument(DNNL_ARG_TO, to).build(pd);
      }
    }
    kernel.run(x, y);
  }

  /** The layout as one of elements of equal size that oneDNN moves without touching their bits. */
  private static dnnl_memory_desc layout(
      DnnlBuilder builder, DType type, long[] dims, long[] strides) {
    if (type.bytes() == 4) {
      return builder.strided(dnnl_f32, dims, strides);
    }
    if (type.bytes() == 1) {
      return builder.strided(dnnl_u8, dims, strides);
    }
    // Two bytes, or eight: runs of bytes or of words, along an axis more.
    int words = 2;
    int rank = dims.length;
    long[] longer = java.util.Arrays.copyOf(dims, rank + 1);
    long[] steps = new long[rank + 1];
    longer[rank] = words;
    steps[rank] = 1;
    for (int i = 0; i < rank; i++) {
      steps[i] = strides[i] * words;
    }
    return builder.strided(type.bytes() == 8 ? dnnl_f32 : dnnl_u8, longer, steps);
  }

  void repeat(int outer, int times, int inner, Array x, Array y) {
    if (outer == 0 || times == 0 || inner == 0) {
      return;
    }
    if (inner < SHORT && x.dtype() == DType.F32) {
      repeatShort(outer, times, inner, x, y);
      return;
    }
    long from = Native.address(x);
    long to = Native.address(y);
    long run = (long) inner * x.dtype().bytes();
    pool.parallelRanges(
        (long) outer * times,
        Math.max(1, GRAIN / run),
        (first, end) -> {
          Dnnl d = Dnnl.here();
          for (long i = first; i < end; i++) {
            d.copy(from + i / times * run, to + i * run, run);
          }
        });
  }

  private void repeatShort(int outer, int times, int inner, Array x, Array y) {
    FloatBuffer from = Tile.floats(x);
    FloatBuffer to = Tile.floats(y);
    int startX = Tile.start(x);
    int startY = Tile.start(y);
    int runs = Tile.SIZE / inner;
    pool.parallelRanges(
        (long) outer * times,
        Math.max(1, GRAIN / 4 / inner),
        (first, end) -> {
          float[] source = Tile.here().a;
          float[] target = Tile.here().b;
          for (long i = first; i < end; i += runs) {
            int count = (int) Math.min(runs, end - i);
            int firstSource = (int) (i / times);
            int sources = (int) ((i + count - 1) / times) - firstSource + 1;
            from.get(startX + firstSource * inner, source, 0, sources * inner);
            for (int j = 0; j < count; j++) {
              int row = ((int) ((i + j) / times) - firstSource) * inner;
              for (int k = 0; k < inner; k++) {
                target[j * inner + k] = source[row + k];
              }
            }
            to.put(startY + (int) i * inner, target, 0, count * inner);
          }
        });
  }
}
