package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.core.DType;

/**
 * Launches of region attention: {@code region_attention_mma.cu}, on the tensor cores, for half
 * types wherever the device has them and rows are whole packs, else {@code region_attention.cu}.
 */
final class CudaRegionAttention {
  private static final String PLAIN = "region_attention";
  private static final String TENSOR = "region_attention_mma";

  // As in the files.
  private static final int THREADS = 128;
  private static final int TILE = 64;
  private static final int SCORES = TILE + 4;
  private static final int SLICE = 64;
  private static final int FINISH_COLUMNS = 32;
  private static final int FINISH_PIXELS = 2048;

  /** Blocks that a multiprocessor's registers hold. */
  private static final int BLOCKS = 3;

  private static final int PACK_BYTES = 16;

  /** Elements that a lane takes of whole rows outside the tensor cores. */
  private static final int FOUR = 4;

  private final Kernels kernels;
  private final DeviceMemory memory;
  private final CudaMoves moves;

  CudaRegionAttention(Kernels kernels, DeviceMemory memory, CudaMoves moves) {
    this.kernels = kernels;
    this.memory = memory;
    this.moves = moves;
  }

  /**
   * Which of the kernels, and how they lay out shared memory.
   *
   * @param cores whether on the tensor cores
   * @param columns that a lane takes
   * @param set regions that a block folds
   */
  private record Variant(boolean cores, int columns, int set) {
    String file() {
      return cores ? TENSOR : PLAIN;
    }

    String name(String kernel) {
      return "region_" + kernel + (cores ? "_mma_" + set / 8 : "_" + columns);
    }

    int sets(int regions) {
      return (regions + set - 1) / set;
    }

    int padded(int regions) {
      int to = cores ? Math.max(16, set) : set;
      return (regions + to - 1) / to * to;
    }

    int weights(int regions) {
      return cores ? 2 * regions * (TILE + 8) : Float.BYTES * regions * TILE;
    }

    /** Sums of a set that wait between tiles. */
    int sums(int dim) {
      int whole = cores ? SLICE : THREADS * columns;
      return Float.BYTES * set * ((dim + whole - 1) / whole * whole);
    }

    int scores() {
      return Float.BYTES * set * SCORES;
    }
  }

  private Variant variant(int regions, int dim, Array... rows) {
    DType dtype = rows[0].dtype();
    long begins = DeviceBuffer.addresses(rows);
    boolean cores = kernels.hasTensorCores(dtype);
    if (cores && dim % Kernels.pack(dtype) == 0 && begins % PACK_BYTES == 0) {
      return new Variant(true, 0, regions <= 8 ? 8 : regions <= 16 ? 16 : 32);
    }
    boolean fours = dim % FOUR == 0 && begins % (FOUR * dtype.bytes()) == 0;
    return new Variant(false, fours ? FOUR : 1, 8);
  }

  /**
   * Chunks of tiles: one round of blocks, so that parts are few, what registers and shared memory
   * hold at once.
   */
  private Chunks chunks(int batch, int pixels, int sets, long shared) {
    int held = BLOCKS;
    while (held > 1 && !kernels.hasShared(held * shared)) {
      held--;
    }
    int tiles = (pixels + TILE - 1) / TILE;
    return Chunks.of(tiles, (long) held * kernels.multiprocessors() / ((long) batch * sets));
  }

  private Launch shape(
      Variant variant, String kernel, Array typed, int regions, int pixels, int dim, Chunks c) {
    return kernels
        .of(variant.file(), variant.name(kernel), typed)
        .i(regions)
        .i(pixels)
        .i(dim)
        .i(c.each());
  }

  void forward(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array q,
      Array k,
      Array v,
      Array y,
      Array map) {
    if (batch == 0 || regions == 0) {
      return;
    }
    Variant variant = variant(regions, dim, q, k, v);
    int sets = variant.sets(regions);
    int shared = variant.scores() + 3 * Float.BYTES * variant.set + variant.weights(variant.set);
    int sums = variant.sums(dim);
    Chunks c = chunks(batch, pixels, sets, shared + sums);
    long rows = (long) batch * regions;
    long tiles = (pixels + TILE - 1) / TILE;
    DeviceBuffer tops = memory.scratch(rows * tiles * Float.BYTES);
    DeviceBuffer states = memory.scratch(2 * rows * c.count() * Float.BYTES);
    DeviceBuffer parts = memory.scratch(rows * c.count() * dim * Float.BYTES);
    try {
      shape(variant, "forward", q, regions, pixels, dim, c)
          .f(scale)
          .p(q)
          .p(k)
          .p(v)
          .p(map)
          .p(tops)
          .p(states)
          .p(parts)
          .grid(sets, c.count(), batch, THREADS, 1, shared + (c.each() > 1 ? sums : 0));
      finish(batch, regions, pixels, dim, c, 1, states, tops, parts, map, y);
    } finally {
      tops.release();
      states.release();
      parts.release();
    }
  }

  /** Adds the chunks' parts to y; with a map, by their shares, and finishes the map too. */
  private void finish(
      int batch,
      int regions,
      int pixels,
      int dim,
      Chunks c,
      float scale,
      DeviceBuffer states,
      DeviceBuffer tops,
      DeviceBuffer parts,
      Array map,
      Array y) {
    int columns = dim % FOUR == 0 ? FOUR * FINISH_COLUMNS : FINISH_COLUMNS;
    int wide = (dim + columns - 1) / columns;
    int high = map == null ? 0 : (pixels + FINISH_PIXELS - 1) / FINISH_PIXELS;
    kernels
        .of(PLAIN, "region_finish", y)
        .i(regions)
        .i(pixels)
        .i(dim)
        .i(c.count())
        .i(wide)
        .f(scale)
        .p(states)
        .p(tops)
        .p(parts)
        .p(map)
        .p(y)
        .grid(wide + high, regions, batch, THREADS, 1, Float.BYTES * THREADS * FOUR);
  }

  void backward(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array q,
      Array k,
      Array v,
      Array map,
      Array dy,
      Array dMap,
      Array dq,
      Array dk,
      Array dv) {
    if (batch == 0) {
      return;
    }
    if (regions == 0) {
      moves.fill(dk, 0);
      moves.fill(dv, 0);
      return;
    }
    Variant variant = variant(regions, dim, q, k, v, dy, dk, dv);
    int sets = variant.sets(regions);
    long rows = (long) batch * regions;
    int padded = variant.padded(regions);
    int weights = variant.weights(padded) + Float.BYTES * padded;
    int sums = variant.sums(dim);
    int ofScores = variant.scores() + weights;
    Chunks ofValues = chunks(batch, pixels, 1, ofScores);
    Chunks ofKeys = chunks(batch, pixels, sets, weights + sums);
    DeviceBuffer whole = memory.scratch(rows * pixels * Float.BYTES);
    DeviceBuffer dots = memory.scratch(rows * ofValues.count() * Float.BYTES);
    DeviceBuffer parts = memory.scratch(rows * ofKeys.count() * dim * Float.BYTES);
    try {
      shape(variant, "values", v, regions, pixels, dim, ofValues)
          .p(v)
          .p(map)
          .p(dMap)
          .p(dy)
          .p(whole)
          .p(dots)
          .p(dv)
          .grid(1, ofValues.count(), batch, THREADS, 1, ofScores);
      shape(variant, "keys", k, regions, pixels, dim, ofKeys)
          .f(scale)
          .p(q)
          .p(k)
          .p(map)
          .p(whole)
          .i(ofValues.count())
          .p(dots)
          .p(dk)
          .p(parts)
          .grid(sets, ofKeys.count(), batch, THREADS, 1, weights + (ofKeys.each() > 1 ? sums : 0));
      finish(batch, regions, pixels, dim, ofKeys, scale, null, null, parts, null, dq);
    } finally {
      whole.release();
      dots.release();
      parts.release();
    }
  }
}
