package org.deixis.backend.cuda;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import org.bytedeco.cuda.cudart.CUfunc_st;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerPointer;
import org.deixis.backend.Array;

/**
 * One kernel launch: arguments in the kernel's order, then the shape. Arguments are packed into one
 * buffer, each at a multiple of its size as the ABI wants it; the driver copies it, so that a
 * thread's launches share theirs and a launch allocates nothing native.
 */
final class Launch {
  private static final int MOST_BYTES = 1024;

  // cuda.h: CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END
  private static final long BUFFER_POINTER = 1;
  private static final long BUFFER_SIZE = 2;
  private static final long END = 0;

  /** A thread's argument buffer. */
  private static final class Arguments {
    final BytePointer memory = new BytePointer(MOST_BYTES);
    final ByteBuffer bytes = memory.asByteBuffer().order(ByteOrder.nativeOrder());
    final LongPointer size = new LongPointer(1);
    final LongPointer words =
        new LongPointer(BUFFER_POINTER, memory.address(), BUFFER_SIZE, size.address(), END);
    final PointerPointer<Pointer> extra = new PointerPointer<>(words);

    /** The launch begun last, which alone may write here. */
    Launch owner;
  }

  private static final ThreadLocal<Arguments> OWN = ThreadLocal.withInitial(Arguments::new);

  private final Kernels kernels;
  private final Driver driver;
  private final CUfunc_st function;
  private final String name;
  private final Arguments arguments = OWN.get();
  private int at;

  Launch(Kernels kernels, Driver driver, CUfunc_st function, String name) {
    this.kernels = kernels;
    this.driver = driver;
    this.function = function;
    this.name = name;
    arguments.owner = this;
  }

  private int slot(int bytes) {
    requireOwner();
    at = (at + bytes - 1) & -bytes;
    int here = at;
    at += bytes;
    return here;
  }

  private void requireOwner() {
    if (arguments.owner != this) {
      throw new IllegalStateException(
          "a launch of "
              + arguments.owner.name
              + " was begun before that of "
              + name
              + " was done");
    }
  }

  /** The array's address; a null pointer for null. */
  Launch p(Array a) {
    return l(DeviceBuffer.address(a));
  }

  /** The address of scratch memory; a null pointer for null. */
  Launch p(DeviceBuffer b) {
    return l(b == null ? 0 : b.address());
  }

  Launch l(long v) {
    arguments.bytes.putLong(slot(8), v);
    return this;
  }

  Launch i(int v) {
    arguments.bytes.putInt(slot(4), v);
    return this;
  }

  Launch i(boolean v) {
    return i(v ? 1 : 0);
  }

  Launch f(double v) {
    arguments.bytes.putFloat(slot(4), (float) v);
    return this;
  }

  /** A loop over n elements; nothing for n = 0. */
  void over(long n) {
    if (n > 0) {
      grid(kernels.gridFor(n), 1, 1, Kernels.THREADS, 1, 0);
    }
  }

  /**
   * Tiles of an array that hold {@code packs} packs of sixteen bytes a thread; nothing for none.
   */
  void packs(Array tiled, int packs) {
    tiles(tiled.size(), packs * Kernels.pack(tiled.dtype()));
  }

  /** Blocks that take {@code each} elements a thread; nothing for n = 0. */
  void tiles(long n, int each) {
    if (n > 0) {
      long tile = (long) each * Kernels.THREADS;
      grid(Math.toIntExact((n + tile - 1) / tile), 1, 1, Kernels.THREADS, 1, 0);
    }
  }

  /** A group of threads a row; nothing for no rows. */
  void rows(long rows, int columns) {
    if (rows > 0) {
      int atOnce = Kernels.rowsAtOnce(columns);
      grid(
          Math.toIntExact((rows + atOnce - 1) / atOnce),
          1,
          1,
          Kernels.threadsOfRow(columns),
          atOnce,
          Kernels.SCRATCH);
    }
  }

  void grid(int x, int y, int z, int threadsX, int threadsY, int shared) {
    requireOwner();
    kernels.requireShared(name, shared);
    driver.enter();
    arguments.size.put(at);
    driver.lock();
    try {
      Driver.check(
          cudart.cuLaunchKernel(
              function,
              x,
              y,
              z,
              threadsX,
              threadsY,
              1,
              shared,
              driver.stream(),
              (PointerPointer<Pointer>) null,
              arguments.extra),
          "launch of " + name);
    } finally {
      driver.unlock();
    }
  }
}
