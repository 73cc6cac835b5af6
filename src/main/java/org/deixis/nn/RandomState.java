package org.deixis.nn;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.Map;
import java.util.function.Supplier;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * Where a model's dropout draws come from: seed and stream on the device, so that a captured step
 * draws anew when replayed with another stream, and on the host the number of the next draw. The
 * same seed, stream and order of draws give the same bits. Used by one thread at a time.
 *
 * <p>A step of several micro-batches needs a stream for each, all of them on the device before it
 * begins: {@link #streams} writes them, {@link #select} takes one up without touching the device.
 */
public final class RandomState implements AutoCloseable {
  private final Backend backend;
  private final long seed;

  /** I64 (n, 2) by n: a captured step goes on reading the array that it was captured with. */
  private final Map<Integer, Array> tables = new HashMap<>();

  private Array rng;
  private long first;
  private int selected;
  private long offset;

  public RandomState(Backend backend, long seed) {
    this.backend = backend;
    this.seed = seed;
    stream(0);
  }

  /** Begins another independent sequence of draws: a trainer gives each step its number. */
  public void stream(long newStream) {
    streams(newStream, 1);
  }

  /** Brings {@code count} streams from {@code newFirst} on to the device, and begins the first. */
  public void streams(long newFirst, int count) {
    Array table = tables.get(count);
    if (table == null) {
      try (Scope scope = Scope.open()) {
        table = Scope.detach(backend.allocate(Shape.of(count, 2), DType.I64));
        tables.put(count, table);
      }
    }
    ByteBuffer bytes = ByteBuffer.allocate(count * 16).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < count; i++) {
      bytes.putLong(seed).putLong(newFirst + i);
    }
    backend.upload(bytes.flip(), table);
    first = newFirst;
    rng = table;
    select(0);
  }

  /** Begins the {@code i}-th of the streams that {@link #streams} brought. */
  public void select(int i) {
    if (i < 0 || i >= rng.dim(0)) {
      throw new IllegalArgumentException("stream " + i + " of " + rng.dim(0));
    }
    selected = i;
    offset = 0;
  }

  public long stream() {
    return first + selected;
  }

  /** Goes back to the first draw of the stream: every forward begins so. */
  public void restart() {
    offset = 0;
  }

  /** I64 (2): seed and stream, as the dropout operation takes them. */
  public Tensor tensor() {
    return Tensor.of(rng.slice(selected, selected + 1).view(2));
  }

  /** Number of the next draw. */
  public long offset() {
    return offset;
  }

  /** Reserves draws; returns the first one's number, a multiple of Philox's four words. */
  public long take(long draws) {
    long first = offset;
    offset += (draws + 3) & -4L;
    return first;
  }

  /**
   * Runs {@code body} with its draws beginning at {@code start}: a segment that is computed again
   * in backward makes the draws of its first time, and what comes after it goes on where it was.
   */
  public <T> T from(long start, Supplier<T> body) {
    long before = offset;
    offset = start;
    try {
      return body.get();
    } finally {
      offset = Math.max(before, offset);
    }
  }

  @Override
  public void close() {
    tables.values().forEach(Array::release);
    tables.clear();
  }
}
