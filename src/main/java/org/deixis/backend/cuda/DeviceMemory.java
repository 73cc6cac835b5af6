package org.deixis.backend.cuda;

import java.util.ArrayDeque;
import java.util.HashMap;
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
 */
final class DeviceMemory implements Memory {
  private static final long ALIGNMENT = 512;

  private final Backend backend;
  private final Driver driver;
  private final boolean caching;
  private final Map<Long, ArrayDeque<Long>> cached = new HashMap<>();
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
  synchronized DeviceBuffer scratch(long bytes) {
    long size = caching ? sizeClass(bytes) : Math.max(1, bytes);
    if (live + size > cap) {
      throw new OutOfMemoryException(backend.name(), bytes, stats());
    }
    ArrayDeque<Long> free = cached.get(size);
    Long address = free == null ? null : free.pollLast();
    if (address == null) {
      address = fromDevice(bytes, size);
    }
    live += size;
    peak = Math.max(peak, live);
    return new DeviceBuffer(this, address, bytes, size);
  }

  private long fromDevice(long bytes, long size) {
    driver.enter();
    if (reserved + size > cap) {
      trim();
    }
    long[] address = new long[1];
    int code = cudart.cuMemAlloc(address, size);
    if (code == cudart.CUDA_ERROR_OUT_OF_MEMORY) {
      trim();
      code = cudart.cuMemAlloc(address, size);
    }
    if (code == cudart.CUDA_ERROR_OUT_OF_MEMORY) {
      throw new OutOfMemoryException(backend.name(), bytes, stats());
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

  synchronized void free(long address, long bytes, long size) {
    live -= size;
    if (caching) {
      cached.computeIfAbsent(size, s -> new ArrayDeque<>()).add(address);
    } else {
      reserved -= size;
      driver.enter();
      Driver.check(cudart.cuMemFree(address), "cuMemFree");
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
  public synchronized void trim() {
    driver.synchronize();
    cached.forEach(
        (size, addresses) -> {
          for (long address : addresses) {
            Driver.check(cudart.cuMemFree(address), "cuMemFree");
            reserved -= size;
          }
        });
    cached.clear();
  }
}
