package org.deixis.backend;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayDeque;
import java.util.HashMap;
import java.util.Map;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;
import org.deixis.core.Env;

/**
 * Memory outside the Java heap, 64-byte aligned, cached by size class: what a training step frees,
 * the next one takes again without asking the system. Sizes are rounded up to 1/8 of their power of
 * two, so that at most an eighth is lost.
 */
public final class HostMemory implements Memory {
  private static final int ALIGNMENT = 64;

  /** One piece from the system, reused under many {@link HostBuffer}s. */
  static final class Block {
    final Pointer raw;
    final long size;
    final ByteBuffer bytes;

    Block(Pointer raw, long size, ByteBuffer bytes) {
      this.raw = raw;
      this.size = size;
      this.bytes = bytes;
    }
  }

  private final Backend backend;
  private final Map<Long, ArrayDeque<Block>> cached = new HashMap<>();
  private long live;
  private long peak;
  private long reserved;
  private long cap;

  /** The cap is {@code DEIXIS_MEMORY_MIB}, else 80 % of the machine's memory. */
  public HostMemory(Backend backend) {
    this.backend = backend;
    int mib = Env.getInt("MEMORY_MIB", 0, 0);
    this.cap = mib > 0 ? (long) mib << 20 : Pointer.totalPhysicalBytes() / 10 * 8;
  }

  @Override
  public synchronized Buffer allocate(long bytes) {
    long size = sizeClass(bytes);
    if (size > Integer.MAX_VALUE - ALIGNMENT || live + size > cap) {
      throw new OutOfMemoryException(backend.name(), bytes, stats());
    }
    ArrayDeque<Block> free = cached.get(size);
    Block block = free == null ? null : free.pollLast();
    if (block == null) {
      block = fromSystem(size);
    }
    live += block.size;
    peak = Math.max(peak, live);
    HostBuffer buffer = new HostBuffer(backend, this, block, bytes);
    Scope.adopt(buffer);
    return buffer;
  }

  private Block fromSystem(long size) {
    if (reserved + size > cap) {
      trim();
    }
    Pointer raw = Pointer.malloc(size + ALIGNMENT);
    if (raw == null || raw.isNull()) {
      trim();
      raw = Pointer.malloc(size + ALIGNMENT);
      if (raw == null || raw.isNull()) {
        throw new OutOfMemoryException(backend.name(), size, stats());
      }
    }
    reserved += size;
    int shift = (int) (-raw.address() & (ALIGNMENT - 1));
    BytePointer view =
        new BytePointer(raw).capacity(size + ALIGNMENT).position(shift).limit(shift + size);
    return new Block(raw, size, view.asByteBuffer().slice().order(ByteOrder.nativeOrder()));
  }

  static long sizeClass(long bytes) {
    if (bytes <= 512) {
      return Math.max(ALIGNMENT, (bytes + 63) & -64L);
    }
    long step = Long.highestOneBit(bytes - 1) >> 3;
    return (bytes + step - 1) & -step;
  }

  synchronized void free(Block block) {
    live -= block.size;
    cached.computeIfAbsent(block.size, s -> new ArrayDeque<>()).add(block);
  }

  @Override
  public synchronized Stats stats() {
    return new Stats(live, peak, reserved, cap);
  }

  @Override
  public synchronized void resetPeak() {
    peak = live;
  }

  @Override
  public synchronized void cap(long bytes) {
    cap = bytes;
  }

  @Override
  public synchronized void trim() {
    for (ArrayDeque<Block> blocks : cached.values()) {
      for (Block block : blocks) {
        reserved -= block.size;
        Pointer.free(block.raw);
      }
    }
    cached.clear();
  }
}
