package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * Launches of attention over sequences: for half types, wherever the device has tensor cores for
 * them and rows are whole packs, {@code attention_mma.cu} for few keys and {@code
 * attention_long_mma.cu} for more, else {@code attention.cu}.
 */
final class CudaAttention {
  private static final String PLAIN = "attention";
  private static final String TENSOR = "attention_mma";

  /** What the few keys' kernels serve; {@link CudaLongAttention} has the rest. */
  private static final int MOST_KEYS = 64;

  private static final int MOST_COLUMNS = 64;

  // As in the files.
  private static final int WARPS = 4;
  private static final int THREADS = 32 * WARPS;
  private static final int QUERIES = 64;

  private static final int QUERIES_OF_WARP = 16;
  private static final int PACK_BYTES = 16;

  /**
   * Blocks a multiprocessor: several rounds of them forward, one backward, so that parts are few.
   */
  private static final int FORWARD_BLOCKS = 16;

  private static final int BACKWARD_BLOCKS = 4;

  private final Kernels kernels;
  private final DeviceMemory memory;
  private final CudaLongAttention many;

  CudaAttention(Kernels kernels, DeviceMemory memory) {
    this.kernels = kernels;
    this.memory = memory;
    many = new CudaLongAttention(kernels, memory);
  }

  static Launch shape(Launch launch, Attention s) {
    return launch
        .i(s.heads())
        .i(s.queries())
        .i(s.keys())
        .i(s.headDim())
        .f(s.scale())
        .i(s.qStride())
        .i(s.kStride())
        .i(s.vStride());
  }

  /** The array from there on: where a head's rows begin. */
  static Array from(Array x, int elements) {
    return new Array(x.buffer(), x.offset() + elements, Shape.of(0), x.dtype());
  }

  /**
   * A variant of the tensor-core kernels, as their template arguments.
   *
   * @param tiles of eight keys that a sequence has at most
   * @param planes of 32 columns that a head has at most
   */
  private record Variant(int tiles, int planes) {
    String name(String kernel) {
      return kernel + "_" + tiles + "x" + planes;
    }

    /** Shared memory of keys, values, and what is added to keys' scores. */
    int forward() {
      int rows = 8 * tiles;
      return 2 * planes * rows * 64 + Float.BYTES * rows;
    }

    /** The same, queries, dy, p and ds of a block. */
    int backward() {
      return forward() + 2 * QUERIES * 64 * planes + 2 * QUERIES * 16 * tiles;
    }
  }

  /**
   * Whether the tensor cores multiply such rows.
   *
   * @param addresses where rows begin, joined by "or"
   */
  private boolean onTensorCores(Attention s, DType dtype, long addresses) {
    return kernels.hasTensorCores(dtype)
        && (s.headDim() | s.qStride() | s.kStride() | s.vStride()) % Kernels.pack(dtype) == 0
        && addresses % PACK_BYTES == 0;
  }

  /** The variant for few keys of narrow heads, else null. */
  private static Variant variant(Attention s) {
    return s.keys() > MOST_KEYS || s.headDim() > MOST_COLUMNS
        ? null
        : new Variant(s.keys() <= 32 ? 4 : 8, s.headDim() <= 32 ? 1 : 2);
  }

  private static long addresses(Attention s, Array q, Array k, Array v) {
    return DeviceBuffer.addresses(from(q, s.qOffset()), from(k, s.kOffset()), from(v, s.vOffset()));
  }

  /** Chunks of tiles of a head's queries. */
  private Chunks chunks(Attention s, int tile, int blocks) {
    long heads = (long) s.batch() * s.heads();
    return Chunks.of(
        (s.queries() + tile - 1) / tile, (long) blocks * kernels.multiprocessors() / heads);
  }

  void attention(Attention s, Array q, Array k, Array v, Array mask, Array y, Array lse) {
    if (y.size() == 0) {
      return;
    }
    boolean cores = onTensorCores(s, q.dtype(), addresses(s, q, k, v) | DeviceBuffer.address(y));
    Variant variant = variant(s);
    if (cores && variant == null && many.serves(s)) {
      many.forward(s, q, k, v, mask, y, lse);
      return;
    }
    if (cores && variant != null) {
      int warps = Math.min(WARPS, (s.queries() + QUERIES_OF_WARP - 1) / QUERIES_OF_WARP);
      int tile = QUERIES_OF_WARP * warps;
      Chunks c = chunks(s, tile, FORWARD_BLOCKS);
      shape(kernels.of(TENSOR, variant.name("attention"), q), s)
          .i(tile * c.each())
          .p(from(q, s.qOffset()))
          .p(from(k, s.kOffset()))
          .p(from(v, s.vOffset()))
          .p(mask)
          .p(y)
          .p(lse)
          .grid(s.heads(), c.count(), s.batch(), 32 * warps, 1, variant.forward());
      return;
    }
    shape(kernels.of(PLAIN, "attention", q), s)
        .p(from(q, s.qOffset()))
        .p(from(k, s.kOffset()))
        .p(from(v, s.vOffset()))
        .p(mask)
        .p(y)
        .p(lse)
        .grid(
            (s.queries() + WARPS - 1) / WARPS,
            s.heads(),
            s.batch(),
            THREADS,
            1,
            Float.BYTES * WARPS * (s.headDim() + s.keys()));
  }

  void attentionBackward(
      Attention s,
      Array q,
      Array k,
      Array v,
      Array mask,
      Array y,
      Array lse,
      Array dy,
      Array dq,
      Array dk,
      Array dv) {
    if (s.batch() == 0) {
      return;
    }
    boolean cores =
        s.queries() > 0
            && s.keys() > 0
            && onTensorCores(
                s,
                q.dtype(),
                addresses(s, q, k, v) | addresses(s, dq, dk, dv) | DeviceBuffer.addresses(y, dy));
    Variant variant = variant(s);
    if (cores && variant == null && many.serves(s)) {
      many.backward(s, q, k, v, mask, y, lse, dy, dq, dk, dv);
      return;
    }
    if (cores && variant != null) {
      backwardOnTensorCores(variant, s, q, k, v, mask, y, lse, dy, dq, dk, dv);
      return;
    }
    long n = (long) s.batch() * s.heads() * s.queries();
    DeviceBuffer dots = memory.scratch(n * Float.BYTES);
    try {
      if (n > 0) {
        backwardOfQueries(s, q, k, v, mask, y, lse, dy, dq, dots);
      }
      if (s.keys() > 0) {
        backwardOfKeys(s, q, k, v, mask, lse, dy, dk, dv, dots);
      }
    } finally {
      dots.release();
    }
  }

  /** Also where there are no queries: keys and values then get a gradient of zero. */
  private void backwardOfKeys(
      Attention s,
      Array q,
      Array k,
      Array v,
      Array mask,
      Array lse,
      Array dy,
      Array dk,
      Array dv,
      DeviceBuffer dots) {
    shape(kernels.of(PLAIN, "attention_backward_keys", q), s)
        .p(from(q, s.qOffset()))
        .p(from(k, s.kOffset()))
        .p(from(v, s.vOffset()))
        .p(mask)
        .p(lse)
        .p(dots)
        .p(dy)
        .p(from(dk, s.kOffset()))
        .p(from(dv, s.vOffset()))
        .grid(
            (s.keys() + WARPS - 1) / WARPS,
            s.heads(),
            s.batch(),
            THREADS,
            1,
            Float.BYTES * WARPS * (4 * s.headDim() + 2 * 32));
  }

  private void backwardOfQueries(
      Attention s,
      Array q,
      Array k,
      Array v,
      Array mask,
      Array y,
      Array lse,
      Array dy,
      Array dq,
      DeviceBuffer dots) {
    long n = (long) s.batch() * s.heads() * s.queries();
    kernels
        .of(PLAIN, "attention_dots", y)
        .l(n)
        .i(s.heads())
        .i(s.queries())
        .i(s.headDim())
        .p(y)
        .p(dy)
        .p(dots)
        .over(n);
    shape(kernels.of(PLAIN, "attention_backward_queries", q), s)
        .p(from(q, s.qOffset()))
        .p(from(k, s.kOffset()))
        .p(from(v, s.vOffset()))
        .p(mask)
        .p(lse)
        .p(dots)
        .p(dy)
        .p(from(dq, s.qOffset()))
        .grid(
            (s.queries() + WARPS - 1) / WARPS,
            s.heads(),
            s.batch(),
            THREADS,
            1,
            Float.BYTES * WARPS * (2 * s.headDim() + s.keys()));
  }

  private void backwardOnTensorCores(
      Variant variant,
      Attention s,
      Array q,
      Array k,
      Array v,
      Array mask,
      Array y,
      Array lse,
      Array dy,
      Array dq,
      Array dk,
      Array dv) {
    Chunks c = chunks(s, QUERIES, BACKWARD_BLOCKS);
    DeviceBuffer parts = parts(memory, s, c.count());
    try {
      shape(kernels.of(TENSOR, variant.name("attention_backward"), q), s)
          .i(QUERIES * c.each())
          .p(from(q, s.qOffset()))
          .p(from(k, s.kOffset()))
          .p(from(v, s.vOffset()))
          .p(mask)
          .p(y)
          .p(lse)
          .p(dy)
          .p(from(dq, s.qOffset()))
          .p(from(dk, s.kOffset()))
          .p(from(dv, s.vOffset()))
          .p(parts)
          .grid(s.heads(), c.count(), s.batch(), THREADS, 1, variant.backward());
      addParts(kernels, s, c.count(), parts, dk, dv);
    } finally {
      if (parts != null) {
        parts.release();
      }
    }
  }

  /** Room for what each chunk of queries gives keys and values; null where one gives all. */
  static DeviceBuffer parts(DeviceMemory memory, Attention s, int chunks) {
    long rows = (long) s.batch() * s.keys();
    long matrix = rows * s.heads() * s.headDim() * Float.BYTES;
    return chunks == 1 ? null : memory.scratch(2 * chunks * matrix);
  }

  /** Adds up what chunks gave, if there are several. */
  static void addParts(
      Kernels kernels, Attention s, int chunks, DeviceBuffer parts, Array dk, Array dv) {
    if (parts == null) {
      return;
    }
    long rows = (long) s.batch() * s.keys();
    int channels = s.heads() * s.headDim();
    kernels
        .of(TENSOR, "attention_parts", dk)
        .l(rows)
        .i(channels)
        .i(chunks)
        .f(s.scale())
        .i(s.kStride())
        .i(s.vStride())
        .p(parts)
        .p(from(dk, s.kOffset()))
        .p(from(dv, s.vOffset()))
        .over(2 * rows * channels / Kernels.pack(dk.dtype()));
  }
}
