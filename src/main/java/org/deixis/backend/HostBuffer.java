package org.deixis.backend;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.ShortBuffer;

/**
 * A buffer in the host's memory, seen as NIO buffers; all views start at the buffer's first byte.
 */
public final class HostBuffer extends Buffer {
  private final Backend backend;
  private final HostMemory memory;
  private HostMemory.Block block;
  private FloatBuffer floats;

  HostBuffer(Backend backend, HostMemory memory, HostMemory.Block block, long bytes) {
    super(bytes);
    this.backend = backend;
    this.memory = memory;
    this.block = block;
  }

  public static HostBuffer of(Array array) {
    return (HostBuffer) array.buffer();
  }

  @Override
  public Backend backend() {
    return backend;
  }

  private HostMemory.Block block() {
    HostMemory.Block b = block;
    if (b == null) {
      throw new IllegalStateException(
          "buffer used after its last release: keep it beyond the scope it was made in");
    }
    return b;
  }

  /** Address of the first byte. */
  public long address() {
    HostMemory.Block b = block();
    return (b.raw.address() + 63) & -64L;
  }

  public ByteBuffer bytesView() {
    return block().bytes.duplicate().order(ByteOrder.nativeOrder());
  }

  public FloatBuffer floats() {
    block();
    if (floats == null) {
      floats = block.bytes.asFloatBuffer();
    }
    return floats;
  }

  public DoubleBuffer doubles() {
    return block().bytes.asDoubleBuffer();
  }

  public IntBuffer ints() {
    return block().bytes.asIntBuffer();
  }

  public LongBuffer longs() {
    return block().bytes.asLongBuffer();
  }

  public ShortBuffer shorts() {
    return block().bytes.asShortBuffer();
  }

  @Override
  protected void free() {
    HostMemory.Block b = block;
    block = null;
    floats = null;
    memory.free(b);
  }
}
