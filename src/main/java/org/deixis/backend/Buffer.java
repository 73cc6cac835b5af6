package org.deixis.backend;

import java.util.concurrent.atomic.AtomicInteger;

/**
 * A piece of a device's memory, counted by reference. It is born with one reference, which belongs
 * to the {@link Scope} it was made in (or to its maker, where no scope is open); the last {@link
 * #release} gives the memory back.
 */
public abstract class Buffer {
  private final AtomicInteger references = new AtomicInteger(1);
  private final long bytes;

  protected Buffer(long bytes) {
    this.bytes = bytes;
  }

  /** Size that was asked for, in bytes. */
  public final long bytes() {
    return bytes;
  }

  /** The backend whose memory this is. */
  public abstract Backend backend();

  public final void retain() {
    if (references.getAndIncrement() <= 0) {
      throw new IllegalStateException(
          "buffer used after its last release: keep it beyond the scope it was made in");
    }
  }

  public final void release() {
    int left = references.decrementAndGet();
    if (left == 0) {
      free();
    } else if (left < 0) {
      throw new IllegalStateException("buffer released more often than retained");
    }
  }

  /** True while exactly one owner holds this buffer, who may then write into it in place. */
  public final boolean exclusive() {
    return references.get() == 1;
  }

  public final boolean alive() {
    return references.get() > 0;
  }

  /** Gives the memory back; called once. */
  protected abstract void free();
}
