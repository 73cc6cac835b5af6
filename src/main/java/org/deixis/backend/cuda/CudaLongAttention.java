package org.deixis.backend.cuda;

import static org.deixis.backend.cuda.CudaAttention.from;
import static org.deixis.backend.cuda.CudaAttention.shape;

import org.deixis.backend.Array;
import org.deixis.backend.Attention;

/**
 * Launches of {@code attention_long_mma.cu}: attention on the tensor cores over more keys, or by
 * wider heads, than {@code attention_mma.cu} has room for.
 */
final class CudaLongAttention {
  private static final String FILE = "attention_long_mma";

  private static final int THREADS = 128;

  /** Blocks by keys a multiprocessor. */
  private static final int BLOCKS = 2;

  /** Of a cut of queries, and fewest for which a part of the keys' gradients is worth its bytes. */
  private static final int TILE = 64;

  private static final int CHUNK = 512;

  private final Kernels kernels;
  private final DeviceMemory memory;

  CudaLongAttention(Kernels kernels, DeviceMemory memory) {
    this.kernels = kernels;
    this.memory = memory;
  }

  /**
   * A variant of the kernels.
   *
   * @param planes of 32 columns that a head has at most
   * @param block queries, or keys in the backward by keys, of a block
   * @param keys that come into shared memory at a time
   * @param queries that do, in the backward by keys
   */
  private record Variant(int planes, int block, int keys, int queries) {
    private static final Variant[] ALL = {
      new Variant(1, 128, 64, 64), new Variant(2, 128, 64, 32), new Variant(4, 64, 32, 32)
    };

    /** The narrowest for a head, or null. */
    static Variant of(Attention s) {
      for (Variant v : ALL) {
        if (s.headDim() <= 32 * v.planes) {
          return v;
        }
      }
      return null;
    }

    String name(String kernel) {
      return "attention_long" + kernel + "_" + planes;
    }

    /** Two steps' rows of two matrices. */
    private int stream(int rows) {
      return 2 * 2 * rows * 64 * planes;
    }

    /** Shared memory of a block by queries: keys and values, and what is added to scores. */
    int byQueries(Attention s) {
      return stream(keys) + Float.BYTES * ((s.keys() + keys - 1) / keys * keys);
    }

    /** Of a block by keys: queries and dy, and two floats for each query. */
    int byKeys() {
      return stream(queries) + 2 * 2 * Float.BYTES * queries;
    }

    /** Launches a kernel by queries. */
    void launch(Launch launch, Attention s) {
      int blocks = (s.queries() + block - 1) / block;
      launch.grid(s.heads(), blocks, s.batch(), THREADS, 1, byQueries(s));
    }
  }

  /** Whether these kernels take such heads and so many keys: at least one. */
  boolean serves(Attention s) {
    Variant variant = Variant.of(s);
    return variant != null
        && s.keys() > 0
        && kernels.hasShared(Math.max(variant.byQueries(s), variant.byKeys()));
  }

  void forward(Attention s, Array q, Array k, Array v, Array mask, Array y, Array lse) {
    Variant variant = Variant.of(s);
    variant.launch(
        shape(kernels.of(FILE, variant.name(""), q), s)
            .p(from(q, s.qOffset()))
            .p(from(k, s.kOffset()))
            .p(from(v, s.vOffset()))
            .p(mask)
            .p(y)
            .p(lse),
        s);
  }

  void backward(
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
    Variant variant = Variant.of(s);
    int blocks = (s.keys() + variant.block - 1) / variant.block;
    Chunks c = chunks(s, blocks);
    // Of each query the log-sum-exp in powers of two, and D.
    DeviceBuffer pairs = memory.scratch(2L * s.batch() * s.heads() * s.queries() * Float.BYTES);
    DeviceBuffer parts = null;
    try {
      parts = CudaAttention.parts(memory, s, c.count());
      variant.launch(
          shape(kernels.of(FILE, variant.name("_queries"), q), s)
              .p(from(q, s.qOffset()))
              .p(from(k, s.kOffset()))
              .p(from(v, s.vOffset()))
              .p(mask)
              .p(y)
              .p(lse)
              .p(dy)
              .p(from(dq, s.qOffset()))
              .p(pairs),
          s);
      shape(kernels.of(FILE, variant.name("_keys"), q), s)
          .i(TILE * c.each())
          .p(from(q, s.qOffset()))
          .p(from(k, s.kOffset()))
          .p(from(v, s.vOffset()))
          .p(mask)
          .p(dy)
          .p(pairs)
          .p(from(dk, s.kOffset()))
          .p(from(dv, s.vOffset()))
          .p(parts)
          .grid(s.heads(), c.count() * blocks, s.batch(), THREADS, 1, variant.byKeys());
      CudaAttention.addParts(kernels, s, c.count(), parts, dk, dv);
    } finally {
      pairs.release();
      if (parts != null) {
        parts.release();
      }
    }
  }

  /** Chunks of 64 queries for blocks by keys: one, unless these are few and queries are many. */
  private Chunks chunks(Attention s, int blocks) {
    long others = (long) s.batch() * s.heads() * blocks;
    long wanted = Math.min(BLOCKS * kernels.multiprocessors() / others, s.queries() / CHUNK);
    return Chunks.of((s.queries() + TILE - 1) / TILE, wanted);
  }
}
