package org.deixis.nn;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
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
 */
public final class RandomState implements AutoCloseable {
  private final Array rng;
  private final long seed;
  private long stream;
  private long offset;

  public RandomState(Backend backend, long seed) {
    this.seed = seed;
    try (Scope scope = Scope.open()) {
      rng = Scope.detach(backend.allocate(Shape.of(2), DType.I64));
    }
    upload();
  }

  /** Begins another independent sequence of draws: a trainer gives each step its number. */
  public void stream(long newStream) {
    stream = newStream;
    offset = 0;
    upload();
  }

  public long stream() {
    return stream;
  }

  /** Goes back to the first draw of the stream: every forward begins so. */
  public void restart() {
    offset = 0;
  }

  private void upload() {
    ByteBuffer bytes = ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN);
    bytes.putLong(seed).putLong(stream).flip();
    rng.backend().upload(bytes, rng);
  }

  /** I64 (2): seed and stream, as the dropout operation takes them. */
  public Tensor tensor() {
    return Tensor.of(rng);
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
    rng.release();
  }
}
