package org.deixis.backend.cuda;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.SizeTPointer;
import org.deixis.backend.Backend;
import org.deixis.backend.Buffer;
import org.deixis.backend.Memory;
import org.deixis.backend.OutOfMemoryException;
import org.deixis.backend.Scope;
import org.deixis.core.Env;

/**
 * Device memory, cached by size class. All work is in one stream, so that a block may be handed out
 * again as soon as it is freed: what still reads it comes before what writes it next.
 *
 * <p>Graphs write to the same addresses at every launch, also long after the buffers there were
 * freed. So what a thread allocates while it captures one comes from blocks that are handed out for
 * nothing else as long as there are graphs. All graphs share these blocks: they run one after the
 * other, and none leaves anything there that is read later.
 */
final class DeviceMemory implements Memory {
  private static final long ALIGNMENT = 512;

  private final Backend backend;
  private final Driver driver;
  private final boolean caching;
  private final Map<Long, ArrayDeque<Long>> cached = new HashMap<>();

  /** Free blocks of the graphs. */
  private final Map<Long, ArrayDeque<Long>> ofGraphs = new HashMap<>();

  private long liveOfGraphs;
  private int graphs;
  private Region region;
  private long live;
  private long peak;
  private long reserved;
  private long cap;

  /**
   * The cap is {@code DEIXIS_MEMORY_MIB}, else 95 % of what is free on the device.
   *
   * @param caching whether freed blocks are kept, and sizes rounded up to a class; without, every
   *     buffer is a block of exactly its size, so that a driver that guards blocks guards buffers
   */
  DeviceMemory(Backend backend, Driver driver, boolean caching) {
    this.backend = backend;
    this.driver = driver;
    this.caching = caching;
    int mib = Env.getInt("MEMORY_MIB", 0, 0);
    if (mib > 0) {
      cap = (long) mib << 20;
    } else {
      try (SizeTPointer free = new SizeTPointer(1);
          SizeTPointer total = new SizeTPointer(1)) {
        driver.enter();
        Driver.check(cudart.cuMemGetInfo(free, total), "cuMemGetInfo");
        cap = free.get() / 100 * 95;
      }
    }
  }

  @Override
  public long cacheBytes() {
    return driver.attribute(cudart.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
  }

  Backend backend() {
    return backend;
  }

  @Override
  public Buffer allocate(long bytes) {
    DeviceBuffer buffer = scratch(bytes);
    Scope.adopt(buffer);
    return buffer;
  }

  /** As {@link #allocate}, but of no scope: the caller releases it. */
  DeviceBuffer scratch(long bytes) {
    return take(bytes, true);
  }

  /** As {@link #scratch}, but never from the blocks of graphs. */
  DeviceBuffer outsideGraphs(long bytes) {
    return take(bytes, false);
  }

  private DeviceBuffer take(long bytes, boolean mayBeOfGraphs) {
    driver.enter();
    DeviceBuffer taken = take(bytes, mayBeOfGraphs, false);
    // Giving blocks back waits for the device, which a capture must not.
    if (taken == null && !driver.capturing()) {
      trim();
    }
    return taken != null ? taken : take(bytes, mayBeOfGraphs, true);
  }

  /**
   * @param last whether there is nothing to be given back any more
   * @return null, unless {@code last}, when cached blocks have to make room
   */
  private synchronized DeviceBuffer take(long bytes, boolean mayBeOfGraphs, boolean last) {
    boolean forGraphs = mayBeOfGraphs && region != null && region.thread == Thread.currentThread();
    long size = caching ? sizeClass(bytes) : Math.max(1, bytes);
    if (live + size > cap) {
      throw new OutOfMemoryException(backend.name(), bytes, stats());
    }
    Long address = forGraphs ? poll(ofGraphs, size) : null;
    if (address == null) {
      address = poll(cached, size);
    }
    if (address == null) {
      if (reserved + size > cap && !last) {
        return null;
      }
      address = fromDevice(size);
      if (address == null) {
        if (last) {
          throw new OutOfMemoryException(backend.name(), bytes, stats());
        }
        return null;
      }
    }
    live += size;
    peak = Math.max(peak, live);
    if (forGraphs) {
      liveOfGraphs += size;
      region.most = Math.max(region.most, liveOfGraphs - region.liveOfGraphsBefore);
    }
    return new DeviceBuffer(this, address, bytes, size, forGraphs);
  }

  private static Long poll(Map<Long, ArrayDeque<Long>> blocks, long size) {
    ArrayDeque<Long> free = blocks.get(size);
    return free == null ? null : free.pollLast();
  }

  /** A stretch of one thread's work whose memory is the graphs'. */
  final class Region {
    private final Thread thread = Thread.currentThread();
    private final long liveOfGraphsBefore = liveOfGraphs;
    private long most;
    private long left;

    /** Most bytes of the graphs' memory that it had in use at once. */
    long most() {
      return most;
    }

    /**
     * @throws IllegalStateException when some of the graphs' memory is still in use
     */
    void requireNothingLeft() {
      if (left > 0) {
        throw new IllegalStateException(
            left
                + " bytes are still in use after the work of a graph, whose next launch would"
                + " overwrite them: hand results out through arrays made before it");
      }
    }
  }

  /** From here on, what this thread allocates is the graphs'. */
  synchronized Region enterGraph() {
    if (region != null) {
      throw new IllegalStateException("work of a graph inside of another graph's");
    }
    region = new Region();
    return region;
  }

  void leaveGraph(Region entered) {
    synchronized (this) {
      entered.left = liveOfGraphs - entered.liveOfGraphsBefore;
      region = null;
    }
    returnBlocks();
  }

  synchronized int graphs() {
    return graphs;
  }

  synchronized void addGraph() {
    graphs++;
  }

  void removeGraph() {
    synchronized (this) {
      graphs--;
    }
    returnBlocks();
  }

  /** Accounts for a launch, in which so many bytes are in use. */
  synchronized void touch(long bytes) {
    peak = Math.max(peak, live + bytes);
  }

  /** Without graphs, their free blocks are everybody's. */
  private void returnBlocks() {
    List<Long> back = new ArrayList<>();
    synchronized (this) {
      if (graphs > 0 || region != null) {
        return;
      }
      ofGraphs.forEach(
          (size, blocks) -> {
            for (long address : blocks) {
              if (!recycle(address, size)) {
                back.add(address);
              }
            }
          });
      ofGraphs.clear();
    }
    toDevice(back);
  }

  /** Keeps a free block for the next of its size; false when it is the device's again. */
  private boolean recycle(long address, long size) {
    if (caching) {
      cached.computeIfAbsent(size, s -> new ArrayDeque<>()).add(address);
    } else {
      reserved -= size;
    }
    return caching;
  }

  /** Gives blocks back, after the device is done with them; not called with this locked. */
  private void toDevice(List<Long> addresses) {
    if (addresses.isEmpty()) {
      return;
    }
    driver.enter();
    driver.lock();
    try {
      for (long address : addresses) {
        Driver.check(cudart.cuMemFree(address), "cuMemFree");
      }
    } finally {
      driver.unlock();
    }
  }

  /** A new block, or null when the device has none of that size. */
  private Long fromDevice(long size) {
    long[] address = new long[1];
    int code = cudart.cuMemAlloc(address, size);
    if (code == cudart.CUDA_ERROR_OUT_OF_MEMORY) {
      return null;
    }
    Driver.check(code, "cuMemAlloc of " + size + " bytes");
    reserved += size;
    return address[0];
  }

  /** Rounded up to 1/8 of its power of two. */
  private static long sizeClass(long bytes) {
    if (bytes <= 8 * ALIGNMENT) {
      return Math.max(ALIGNMENT, (bytes + ALIGNMENT - 1) & -ALIGNMENT);
    }
    long step = Long.highestOneBit(bytes - 1) >> 3;
    return (bytes + step - 1) & -step;
  }

  void free(long address, long size, boolean forGraphs) {
    boolean kept = true;
    synchronized (this) {
      live -= size;
      if (forGraphs) {
        liveOfGraphs -= size;
        ofGraphs.computeIfAbsent(size, s -> new ArrayDeque<>()).add(address);
      } else {
        kept = recycle(address, size);
      }
    }
    if (!kept) {
      toDevice(List.of(address));
    }
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
  public void trim() {
    driver.refuseWhileCapturing("giving memory back");
    returnBlocks();
    List<Long> back = new ArrayList<>();
    synchronized (this) {
      cached.forEach(
          (size, addresses) -> {
            back.addAll(addresses);
            reserved -= size * addresses.size();
          });
      cached.clear();
    }
    // A block is in nobody's hands now; what the device still does with it comes to its end.
    driver.synchronize();
    toDevice(back);
  }
}
