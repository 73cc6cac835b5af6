package org.deixis.backend.cuda;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayDeque;
import java.util.Map;
import java.util.TreeMap;
import org.bytedeco.cuda.cudart.CUevent_st;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerPointer;
import org.deixis.backend.Download;

/**
 * Page-locked host memory between Java's memory and the device's: only from there can the device
 * copy by itself while the host goes on. Pieces are made on demand, up to a bound, and used in
 * turn; an event marks when the device is done with one.
 */
final class Staging implements AutoCloseable {
  private static final long SMALLEST = 4L << 10;
  private static final long LARGEST = 16L << 20;

  /** Most page-locked bytes in all; the operating system cannot move or swap them. */
  private static final long MOST = 128L << 20;

  /** A piece of page-locked memory, and the event after its last use. */
  private static final class Piece {
    final Pointer memory;
    final ByteBuffer bytes;
    final CUevent_st done = new CUevent_st();

    Piece(Pointer memory, int size) {
      this.memory = memory;
      bytes = new BytePointer(memory).capacity(size).asByteBuffer();
    }
  }

  private final Driver driver;
  private final long most;

  /** By size, each queue with the piece first that was used longest ago. */
  private final Map<Long, ArrayDeque<Piece>> pieces = new TreeMap<>();

  private long held;

  Staging(Driver driver) {
    this(driver, MOST);
  }

  /**
   * @param most bytes to hold at most; at least one piece is made all the same
   */
  Staging(Driver driver, long most) {
    this.driver = driver;
    this.most = most;
  }

  /** Copies from the host, in the order of the stream; {@code source} is free on return. */
  void upload(ByteBuffer source, long target) {
    driver.refuseWhileCapturing("an upload");
    driver.enter();
    ByteBuffer rest = source.slice();
    while (rest.hasRemaining()) {
      int bytes = (int) Math.min(LARGEST, rest.remaining());
      Piece piece = take(bytes);
      piece.bytes.clear().put(rest.slice(rest.position(), bytes));
      driver.lock();
      try {
        Driver.check(
            cudart.cuMemcpyHtoDAsync(
                target + rest.position(), piece.memory, bytes, driver.stream()),
            "upload");
        Driver.check(cudart.cuEventRecord(piece.done, driver.stream()), "cuEventRecord");
      } finally {
        driver.unlock();
      }
      give(piece, bytes);
      rest.position(rest.position() + bytes);
    }
  }

  /** Copies to the host, and waits for it: for each part while the next is on its way. */
  void download(long source, ByteBuffer target) {
    driver.refuseWhileCapturing("a download");
    driver.enter();
    ByteBuffer rest = target.slice();
    int asked = 0;
    Piece first = null;
    while (rest.hasRemaining()) {
      int bytes = (int) Math.min(LARGEST, rest.remaining());
      Piece piece = first;
      if (piece == null) {
        piece = ask(source + asked, bytes);
        asked += bytes;
      }
      first = null;
      int next = Math.min((int) LARGEST, target.remaining() - asked);
      if (next > 0) {
        first = ask(source + asked, next);
        asked += next;
      }
      finish(piece, bytes, rest);
    }
  }

  /** Begins a copy to the host that is waited for later. */
  Download download(long source, long bytes) {
    Pending pending = new Pending(Math.toIntExact(bytes));
    for (long at = 0; at < bytes; at += LARGEST) {
      pending.pieces.add(ask(source + at, (int) Math.min(LARGEST, bytes - at)));
    }
    return pending;
  }

  private final class Pending implements Download {
    private final ByteBuffer bytes;
    private final ArrayDeque<Piece> pieces = new ArrayDeque<>();

    Pending(int size) {
      bytes = ByteBuffer.allocate(size);
    }

    @Override
    public synchronized ByteBuffer get() {
      while (!pieces.isEmpty()) {
        finish(pieces.remove(), (int) Math.min(LARGEST, bytes.remaining()), bytes);
      }
      return bytes.duplicate().flip().order(ByteOrder.LITTLE_ENDIAN);
    }
  }

  /** Begins a copy of at most the largest piece's size to the host. */
  private Piece ask(long source, int bytes) {
    driver.refuseWhileCapturing("a download");
    driver.enter();
    Piece piece = take(bytes);
    driver.lock();
    try {
      Driver.check(
          cudart.cuMemcpyDtoHAsync(piece.memory, source, bytes, driver.stream()), "download");
      Driver.check(cudart.cuEventRecord(piece.done, driver.stream()), "cuEventRecord");
    } finally {
      driver.unlock();
    }
    return piece;
  }

  /** Waits for a copy that {@link #ask} began, and puts it into {@code target}. */
  private void finish(Piece piece, int bytes, ByteBuffer target) {
    driver.enter();
    Driver.check(cudart.cuEventSynchronize(piece.done), "download");
    target.put(piece.bytes.clear().limit(bytes));
    synchronized (this) {
      queue(bytes).addFirst(piece);
    }
  }

  private ArrayDeque<Piece> queue(long bytes) {
    return pieces.computeIfAbsent(size(bytes), s -> new ArrayDeque<>());
  }

  private static long size(long bytes) {
    return bytes <= SMALLEST ? SMALLEST : Long.highestOneBit(bytes - 1) << 1;
  }

  /** A piece that the device is done with; the caller puts it back into its queue. */
  private synchronized Piece take(int bytes) {
    ArrayDeque<Piece> queue = queue(bytes);
    long size = size(bytes);
    Piece oldest = queue.peekFirst();
    if (oldest != null && (idle(oldest) || held + size > most)) {
      Driver.check(cudart.cuEventSynchronize(oldest.done), "an upload before this one");
      return queue.pollFirst();
    }
    if (held + size > most) {
      release();
    }
    try (PointerPointer<Pointer> made = new PointerPointer<>(1L)) {
      Driver.check(
          cudart.cuMemHostAlloc(made, size, 0),
          "cuMemHostAlloc of " + size + " bytes of page-locked memory");
      held += size;
      Piece piece = new Piece(made.get(), (int) size);
      Driver.check(
          cudart.cuEventCreate(piece.done, cudart.CU_EVENT_DISABLE_TIMING), "cuEventCreate");
      return piece;
    }
  }

  private static boolean idle(Piece piece) {
    int code = cudart.cuEventQuery(piece.done);
    if (code != cudart.CUDA_ERROR_NOT_READY) {
      Driver.check(code, "cuEventQuery");
    }
    return code == 0;
  }

  private synchronized void give(Piece piece, long bytes) {
    queue(bytes).addLast(piece);
  }

  /** Page-locked bytes held. */
  synchronized long held() {
    return held;
  }

  /** Gives up all pieces that nobody is reading from, after the device is done with them. */
  private void release() {
    pieces.forEach(
        (size, queue) -> {
          for (Piece piece : queue) {
            Driver.check(cudart.cuEventSynchronize(piece.done), "an upload");
            Driver.check(cudart.cuEventDestroy(piece.done), "cuEventDestroy");
            Driver.check(cudart.cuMemFreeHost(piece.memory), "cuMemFreeHost");
            held -= size;
          }
          queue.clear();
        });
  }

  @Override
  public synchronized void close() {
    driver.enter();
    release();
  }
}
