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
  private volatile Derived derived;

  /** What a backend computed from a buffer's bytes and keeps as long as the buffer lives. */
  public interface Derived {
    void free();
  }

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

  /** What was derived from the bytes, or null; while there is something, they must not change. */
  public Derived derived() {
    return derived;
  }

  /** Keeps {@code fresh} until this buffer is freed; what was kept before is freed now. */
  public void derive(Derived fresh) {
    Derived old = derived;
    derived = fresh;
    if (old != null) {
      old.free();
    }
  }

  @Override
  protected void free() {
    if (derived != null) {
      derive(null);
    }
    HostMemory.Block b = block;
    block = null;
    floats = null;
    memory.free(b);
  }
}
