package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import org.bytedeco.dnnl.dnnl_memory_desc;
import org.bytedeco.dnnl.dnnl_primitive_desc;
import org.deixis.backend.Array;
import org.deixis.backend.Conv2d;
import org.deixis.core.DType;

/**
 * Convolutions by oneDNN on channels-last maps. The pictures are shared among the threads; where
 * there are too few, a picture is cut into bands of rows, each a convolution of its own with the
 * padding that is left of it. The weight is laid out anew for every piece, which is a thousandth of
 * its work.
 */
final class CpuConv {
  /** Operations below which a convolution is not cut. */
  private static final long SMALL = 4_000_000;

  private final WorkerPool pool;

  private final FrozenWinograd winograd;

  CpuConv(WorkerPool pool) {
    this.pool = pool;
    this.winograd = new FrozenWinograd(pool);
  }

  /**
   * A piece of a convolution as one call: {@code inRows} rows of x that start at {@code in}, {@code
   * outRows} of y that start at {@code out}, and the padding above and below.
   */
  private record Band(int in, int inRows, int out, int outRows, int above, int below) {}

  /** How a convolution is cut: by pictures, or each picture into bands. */
  private record Cut(int pictures, Band[] bands) {
    int groups(int batch) {
      return (batch + pictures - 1) / pictures;
    }
  }

  private Cut cut(Conv2d s, boolean byInput) {
    int threads = pool.threads();
    long flops =
        2L * s.batch() * s.outHeight() * s.outWidth() * s.kernel() * s.kernel() * s.inChannels();
    int pieces = threads == 1 || flops * s.outChannels() < SMALL ? 1 : threads;
    int perGroup = (s.batch() + pieces - 1) / pieces;
    int groups = (s.batch() + perGroup - 1) / perGroup;
    int bands = 1;
    if (groups < pieces || s.batch() % pieces != 0 && s.batch() < 4 * pieces) {
      perGroup = 1;
      bands = pieces;
    }
    if (s.padding() >= s.kernel()) {
      bands = 1; // a band could see padding alone
    }
    return new Cut(perGroup, byInput ? inputBands(s, bands) : outputBands(s, bands));
  }

  private static Band[] outputBands(Conv2d s, int wanted) {
    int step = (s.outHeight() + wanted - 1) / wanted;
    Band[] bands = new Band[(s.outHeight() + step - 1) / step];
    for (int i = 0; i < bands.length; i++) {
      int first = i * step;
      int end = Math.min(s.outHeight(), first + step);
      int top = first * s.stride() - s.padding();
      int bottom = (end - 1) * s.stride() - s.padding() + s.kernel();
      int from = Math.max(0, top);
      int to = bands.length == 1 ? s.height() : Math.min(s.height(), bottom);
      bands[i] = new Band(from, to - from, first, end - first, from - top, bottom - to);
    }
    return bands;
  }

  /** Bands of rows of x, with the rows of y that read them. */
  private static Band[] inputBands(Conv2d s, int wanted) {
    int stride = s.stride();
    int step = ((s.height() + wanted - 1) / wanted + stride - 1) / stride * stride;
    // Bands begin where a row of y begins to read, so that none has negative padding above.
    int lead = s.padding() % stride;
    int count = wanted == 1 ? 1 : Math.max(1, (s.height() + lead + step - 1) / step);
    Band[] bands = new Band[count];
    for (int i = 0; i < count; i++) {
      int from = i == 0 ? 0 : i * step - lead;
      int to = i == count - 1 ? s.height() : (i + 1) * step - lead;
      int first = Math.max(0, Math.floorDiv(from + s.padding() - s.kernel() + stride, stride));
      int last = Math.min(s.outHeight() - 1, (to - 1 + s.padding()) / stride);
      int outRows = Math.max(0, last - first + 1);
      int above = s.padding() + from - first * stride;
      int below = (outRows - 1) * stride + s.kernel() - above - (to - from);
      bands[i] = new Band(from, to - from, first, outRows, above, below);
    }
    return bands;
  }

  /** One piece's work: where its part of x and of y lie. */
  private interface Piece {
    void run(Dnnl d, int index, int batch, Band band, long x, long y);
  }

  private int pieces(Conv2d s, Cut cut) {
    return cut.groups(s.batch()) * cut.bands.length;
  }

  /**
   * @param bytes of an element of x
   */
  private void forEach(Conv2d s, Cut cut, int bytes, long x, long y, Piece piece) {
    long inRow = (long) bytes * s.width() * s.inChannels();
    long outRow = 4L * s.outWidth() * s.outChannels();
    pool.parallelFor(
        pieces(s, cut),
        i -> {
          Band band = cut.bands[i % cut.bands.length];
          int first = i / cut.bands.length * cut.pictures;
          piece.run(
              Dnnl.here(),
              i,
              Math.min(cut.pictures, s.batch() - first),
              band,
              x + inRow * ((long) first * s.height() + band.in),
              y + outRow * ((long) first * s.outHeight() + band.out));
        });
  }

  private static boolean empty(Conv2d s) {
    return s.batch() == 0
        || s.outHeight() <= 0
        || s.outWidth() <= 0
        || s.inChannels() == 0
        || s.outChannels() == 0;
  }

  /** See {@link org.deixis.backend.Backend#conv2d}. */
  void conv2d(Conv2d spec, Array x, Array weight, Array bias, Array y) {
    if (empty(spec)) {
      return;
    }
    if (FrozenWeights.of(weight) != null) {
      frozen(spec, x, weight, bias, y);
      return;
    }
    long shift = bias == null ? 0 : Native.floats(bias);
    long plain = Native.floats(weight);
    forEach(
        spec,
        cut(spec, false),
        4,
        Native.floats(x),
        Native.floats(y),
        (d, i, batch, band, from, to) -> {
          key(d, Dnnl.CONV, spec, batch, band).add(shift != 0 ? 1 : 0);
          Dnnl.Kernel kernel = d.find();
          if (kernel == null) {
            kernel = forward(d, spec, batch, band, shift != 0);
          }
          kernel.set(0, from).set(1, arranged(d, kernel, plain)).set(2, to);
          if (shift != 0) {
            kernel.set(3, shift);
          }
          kernel.run();
        });
  }

  /** A convolution whose weight was laid out before, in bf16 with x rounded on the way in. */
  private void frozen(Conv2d spec, Array x, Array weight, Array bias, Array y) {
    FrozenWeights weights = FrozenWeights.of(weight);
    DType type = weights.products();
    if (FrozenWinograd.takes(spec, type)) {
      winograd.conv2d(spec, x, weight, bias, y);
      return;
    }
    long shift = bias == null ? 0 : Native.floats(bias);
    long from = Native.floats(x);
    if (type != DType.F32) {
      long halves = Dnnl.here().workspace(1, type.bytes() * x.size());
      FrozenGemm.round(pool, from, halves, x.size());
      from = halves;
    }
    long[] dims = {spec.outChannels(), spec.inChannels(), spec.kernel(), spec.kernel()};
    forEach(
        spec,
        cut(spec, false),
        type.bytes(),
        from,
        Native.floats(y),
        (d, i, batch, band, in, out) -> {
          key(d, Dnnl.FROZEN_CONV, spec, batch, band)
              .add(type.ordinal() << 1 | (shift != 0 ? 1 : 0));
          Dnnl.Kernel kernel = d.find();
          if (kernel == null) {
            kernel = frozen(d, type, spec, batch, band, shift != 0);
          }
          kernel.set(0, in).set(1, weights.dense(weight, dims, kernel.layout())).set(2, out);
          if (shift != 0) {
            kernel.set(3, shift);
          }
          kernel.run();
        });
  }

  /** See {@link org.deixis.backend.Backend#conv2dBackwardData}. */
  void conv2dBackwardData(Conv2d spec, Array weight, Array dy, Array dx) {
    if (empty(spec)) {
      Dnnl.here().zero(Native.floats(dx), dx.bytes());
      return;
    }
    long plain = Native.floats(weight);
    long inRow = 4L * spec.width() * spec.inChannels();
    forEach(
        spec,
        cut(spec, true),
        4,
        Native.floats(dx),
        Native.floats(dy),
        (d, i, batch, band, to, from) -> {
          if (band.outRows == 0) { // rows that no window reads; then a group is one picture
            d.zero(to, band.inRows * inRow);
            return;
          }
          key(d, Dnnl.CONV_DATA, spec, batch, band);
          Dnnl.Kernel kernel = d.find();
          if (kernel == null) {
            kernel = backwardData(d, spec, batch, band);
          }
          kernel.run(to, arranged(d, kernel, plain), from);
        });
  }

  /** See {@link org.deixis.backend.Backend#conv2dBackwardWeight}. */
  void conv2dBackwardWeight(Conv2d spec, Array x, Array dy, Array dWeight) {
    long target = Native.floats(dWeight);
    if (empty(spec)) {
      Dnnl.here().zero(target, dWeight.bytes());
      return;
    }
    Cut cut = cut(spec, false);
    long size = dWeight.size();
    int pieces = pieces(spec, cut);
    // Each piece has a gradient of its own, the first in place; they are added in order.
    long partial = pieces == 1 ? 0 : Dnnl.here().workspace(2, 4 * size * (pieces - 1));
    forEach(
        spec,
        cut,
        4,
        Native.floats(x),
        Native.floats(dy),
        (d, i, batch, band, from, gradient) -> {
          key(d, Dnnl.CONV_WEIGHT, spec, batch, band);
          Dnnl.Kernel kernel = d.find();
          if (kernel == null) {
            kernel = backwardWeight(d, spec, batch, band);
          }
          long own = d.workspace(0, kernel.companionBytes());
          kernel.run(from, own, gradient);
          kernel.companion().run(own, i == 0 ? target : partial + 4 * size * (i - 1));
        });
    for (int i = 1; i < pieces; i++) {
      long other = partial + 4 * size * (i - 1);
      pool.parallelRanges(
          size,
          64 * 1024,
          (first, end) ->
              CpuElementwise.add(
                  Dnnl.here(),
                  end - first,
                  target + 4 * first,
                  other + 4 * first,
                  target + 4 * first));
    }
  }

  private static Dnnl.Key key(Dnnl d, int family, Conv2d s, int batch, Band band) {
    return d.key(family)
        .add(batch)
        .add((long) band.inRows << 32 | s.width())
        .add((long) s.inChannels() << 32 | s.outChannels())
        .add((long) s.kernel() << 32 | s.stride())
        .add((long) band.above << 32 | band.below & 0xffffffffL)
        .add((long) s.padding() << 32 | band.outRows);
  }

  /** The weight in the layout that the kernel wants. */
  private static long arranged(Dnnl d, Dnnl.Kernel kernel, long plain) {
    long own = d.workspace(0, kernel.companionBytes());
    kernel.companion().run(plain, own);
    return own;
  }

  private static dnnl_memory_desc map(
      DnnlBuilder builder, DType type, long batch, long channels, long rows, long columns) {
    return builder.strided(
        DnnlBuilder.type(type),
        new long[] {batch, channels, rows, columns},
        new long[] {rows * columns * channels, 1, columns * channels, channels});
  }

  /** The descriptors of one piece. */
  private static final class Shape {
    final dnnl_memory_desc x;
    final dnnl_memory_desc y;
    final dnnl_memory_desc weight;
    final dnnl_memory_desc plain;
    final long[] strides;
    final long[] dilations = {0, 0};
    final long[] before;
    final long[] after;

    Shape(DnnlBuilder builder, Conv2d s, int batch, Band band) {
      this(builder, DType.F32, s, batch, band);
    }

    /**
     * @param type of x and the weight; y is F32
     */
    Shape(DnnlBuilder builder, DType type, Conv2d s, int batch, Band band) {
      x = map(builder, type, batch, s.inChannels(), band.inRows, s.width());
      y = map(builder, DType.F32, batch, s.outChannels(), band.outRows, s.outWidth());
      weight = builder.any(type, s.outChannels(), s.inChannels(), s.kernel(), s.kernel());
      plain = builder.dense(s.outChannels(), s.inChannels(), s.kernel(), s.kernel());
      strides = new long[] {s.stride(), s.stride()};
      before = new long[] {band.above, s.padding()};
      int right = (s.outWidth() - 1) * s.stride() + s.kernel() - s.padding() - s.width();
      after = new long[] {band.below, right};
    }

    dnnl_primitive_desc forward(DnnlBuilder builder, dnnl_memory_desc bias) {
      dnnl_primitive_desc pd = builder.descriptor();
      Dnnl.check(
          dnnl_convolution_forward_primitive_desc_create(
              pd,
              Dnnl.engine(),
              dnnl_forward_training,
              dnnl_convolution_direct,
              x,
              weight,
              bias,
              y,
              strides,
              dilations,
              before,
              after,
              builder.attributes()),
          "convolution");
      return pd;
    }
  }

  private static Dnnl.Kernel reorder(
      DnnlBuilder builder, dnnl_memory_desc from, dnnl_memory_desc to) {
    dnnl_primitive_desc pd = builder.descriptor();
    Dnnl.check(
        dnnl_reorder_primitive_desc_create(
            pd, from, Dnnl.engine(), to, Dnnl.engine(), builder.attributes()),
        "weight layout");
    return builder.argument(DNNL_ARG_FROM, from).argument(DNNL_ARG_TO, to).make(pd);
  }

  private static Dnnl.Kernel forward(Dnnl d, Conv2d s, int batch, Band band, boolean withBias) {
    try (DnnlBuilder builder = new DnnlBuilder(d)) {
      Shape shape = new Shape(builder, s, batch, band);
      dnnl_memory_desc bias = withBias ? builder.dense(s.outChannels()) : null;
      dnnl_primitive_desc pd = shape.forward(builder, bias);
      dnnl_memory_desc chosen = DnnlBuilder.chosen(pd, dnnl_query_weights_md);
      Dnnl.Kernel layout = reorder(builder, shape.plain, chosen);
      builder
          .argument(DNNL_ARG_SRC, shape.x)
          .argument(DNNL_ARG_WEIGHTS, chosen)
          .argument(DNNL_ARG_DST, shape.y);
      if (withBias) {
        builder.argument(DNNL_ARG_BIAS, bias);
      }
      Dnnl.Kernel kernel = builder.build(pd);
      kernel.accompany(layout, dnnl_memory_desc_get_size(chosen));
      return kernel;
    }
  }

  private static Dnnl.Kernel frozen(
      Dnnl d, DType type, Conv2d s, int batch, Band band, boolean withBias) {
    try (DnnlBuilder builder = new DnnlBuilder(d)) {
      Shape shape = new Shape(builder, type, s, batch, band);
      dnnl_memory_desc bias = withBias ? builder.dense(s.outChannels()) : null;
      dnnl_primitive_desc pd = shape.forward(builder, bias);
      FrozenWeights.Layout layout = FrozenWeights.layout(pd);
      builder
          .argument(DNNL_ARG_SRC, shape.x)
          .argument(DNNL_ARG_WEIGHTS, layout.descriptor())
          .argument(DNNL_ARG_DST, shape.y);
      if (withBias) {
        builder.argument(DNNL_ARG_BIAS, bias);
      }
      return builder.build(pd).wants(layout);
    }
  }

  private static Dnnl.Kernel backwardData(Dnnl d, Conv2d s, int batch, Band band) {
    try (DnnlBuilder builder = new DnnlBuilder(d)) {
      Shape shape = new Shape(builder, s, batch, band);
      dnnl_primitive_desc hint = shape.forward(builder, null);
      dnnl_primitive_desc pd = builder.descriptor();
      Dnnl.check(
          dnnl_convolution_backward_data_primitive_desc_create(
              pd,
              Dnnl.engine(),
              dnnl_convolution_direct,
              shape.x,
              shape.weight,
              shape.y,
              shape.strides,
              shape.dilations,
              shape.before,
              shape.after,
              hint,
              builder.attributes()),
          "convolution data gradient");
      dnnl_memory_desc chosen = DnnlBuilder.chosen(pd, dnnl_query_weights_md);
      Dnnl.Kernel layout = reorder(builder, shape.plain, chosen);
      Dnnl.Kernel kernel =
          builder
              .argument(DNNL_ARG_DIFF_SRC, shape.x)
              .argument(DNNL_ARG_WEIGHTS, chosen)
              .argument(DNNL_ARG_DIFF_DST, shape.y)
              .build(pd);
      kernel.accompany(layout, dnnl_memory_desc_get_size(chosen));
      return kernel;
    }
  }

  private static Dnnl.Kernel backwardWeight(Dnnl d, Conv2d s, int batch, Band band) {
    try (DnnlBuilder builder = new DnnlBuilder(d)) {
      Shape shape = new Shape(builder, s, batch, band);
      dnnl_primitive_desc hint = shape.forward(builder, null);
      dnnl_primitive_desc pd = builder.descriptor();
      Dnnl.check(
          dnnl_convolution_backward_weights_primitive_desc_create(
              pd,
              Dnnl.engine(),
              dnnl_convolution_direct,
              shape.x,
              shape.weight,
              null,
              shape.y,
              shape.strides,
              shape.dilations,
              shape.before,
              shape.after,
              hint,
              builder.attributes()),
          "convolution weight gradient");
      dnnl_memory_desc chosen = DnnlBuilder.chosen(pd, dnnl_query_diff_weights_md);
      Dnnl.Kernel layout = reorder(builder, chosen, shape.plain);
      Dnnl.Kernel kernel =
          builder
              .argument(DNNL_ARG_SRC, shape.x)
              .argument(DNNL_ARG_DIFF_WEIGHTS, chosen)
              .argument(DNNL_ARG_DIFF_DST, shape.y)
              .build(pd);
      kernel.accompany(layout, dnnl_memory_desc_get_size(chosen));
      return kernel;
    }
  }
}
