package org.deixis.backend.cuda;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import org.bytedeco.cuda.global.cudart;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;

/**
 * Launches of {@code optimizer.cu}. The table of arrays and the list of pieces are written to the
 * device when they differ from the last call's. A graph has tables of its own, of the addresses
 * that it was captured with.
 */
final class CudaOptimizer {
  private static final String FILE = "optimizer";

  /** Elements of a piece: a block of 256 threads has 64 each. */
  private static final int PIECE = 16_384;

  private static final int GRADIENT_BYTES = 24;
  private static final int SLOT_BYTES = 64;
  private static final int PIECE_BYTES = 16;

  /**
   * A table on the device, and what it was made of. It outlives the step, and is no buffer of the
   * pool: a step must end with the bytes that it began with.
   */
  private final class Table {
    private ByteBuffer content;
    private long address;
    private long capacity;

    /** Brings the content to the device, in the order of the stream; its address there. */
    long set(ByteBuffer wanted) {
      if (driver.capturing()) {
        return graphs.constant(wanted).address();
      }
      if (wanted.equals(content)) {
        return address;
      }
      driver.enter();
      int bytes = wanted.remaining();
      if (bytes > capacity) {
        close();
        long[] made = new long[1];
        Driver.check(cudart.cuMemAlloc(made, bytes), "cuMemAlloc of the optimiser's table");
        address = made[0];
        capacity = bytes;
      }
      staging.upload(wanted, address);
      content = wanted;
      return address;
    }

    void close() {
      if (address != 0) {
        driver.synchronize();
        Driver.check(cudart.cuMemFree(address), "cuMemFree of the optimiser's table");
        address = 0;
        capacity = 0;
        content = null;
      }
    }
  }

  private final Driver driver;
  private final Staging staging;
  private final CudaGraphs graphs;
  private final Kernels kernels;
  private final DeviceMemory memory;
  private final Table gradients = new Table();
  private final Table parameters = new Table();

  CudaOptimizer(
      Driver driver, Staging staging, CudaGraphs graphs, Kernels kernels, DeviceMemory memory) {
    this.driver = driver;
    this.staging = staging;
    this.graphs = graphs;
    this.kernels = kernels;
    this.memory = memory;
  }

  private static int pieces(long size) {
    return Math.toIntExact((size + PIECE - 1) / PIECE);
  }

  private static void putPieces(ByteBuffer table, int array, long size) {
    for (long first = 0; first < size; first += PIECE) {
      table.putLong(array).putLong(first);
    }
  }

  private static ByteBuffer table(int bytes) {
    return ByteBuffer.allocate(Math.max(1, bytes)).order(ByteOrder.nativeOrder());
  }

  void norm(List<Array> all, double maxNorm, Array control) {
    driver.lock();
    try {
      normInTurn(all, maxNorm, control);
    } finally {
      driver.unlock();
    }
  }

  private void normInTurn(List<Array> all, double maxNorm, Array control) {
    int count = all.stream().mapToInt(g -> pieces(g.size())).sum();
    int head = all.size() * GRADIENT_BYTES;
    ByteBuffer bytes = table(head + count * PIECE_BYTES);
    for (Array g : all) {
      bytes.putLong(DeviceBuffer.address(g)).putLong(g.size()).putLong(Kernels.type(g.dtype()));
    }
    for (int i = 0; i < all.size(); i++) {
      putPieces(bytes, i, all.get(i).size());
    }
    DeviceBuffer partial = memory.scratch(Math.max(1, count) * (long) Float.BYTES);
    try {
      if (count > 0) {
        long table = gradients.set(bytes.flip());
        kernels
            .of(FILE, "gradient_squares", 0)
            .l(table)
            .l(table + head)
            .i(PIECE)
            .p(partial)
            .grid(count, 1, 1, Kernels.THREADS, 1, Kernels.SCRATCH);
      }
      kernels
          .of(FILE, "gradient_norm", 0)
          .i(count)
          .p(partial)
          .f(maxNorm)
          .p(control)
          .grid(1, 1, 1, Kernels.THREADS, 1, Kernels.SCRATCH);
    } finally {
      partial.release();
    }
  }

  void step(AdamW spec, List<AdamW.Slot> slots, Array control) {
    driver.lock();
    try {
      stepInTurn(spec, slots, control);
    } finally {
      driver.unlock();
    }
  }

  private void stepInTurn(AdamW spec, List<AdamW.Slot> slots, Array control) {
    int count = slots.stream().mapToInt(s -> pieces(s.parameter().size())).sum();
    if (count == 0) {
      return;
    }
    int head = slots.size() * SLOT_BYTES;
    ByteBuffer bytes = table(head + count * PIECE_BYTES);
    for (AdamW.Slot s : slots) {
      bytes
          .putLong(DeviceBuffer.address(s.parameter()))
          .putLong(DeviceBuffer.address(s.gradient()))
          .putLong(DeviceBuffer.address(s.m()))
          .putLong(DeviceBuffer.address(s.v()))
          .putLong(DeviceBuffer.address(s.half()))
          .putLong(s.parameter().size())
          .putInt(Kernels.type(s.gradient().dtype()))
          .putInt(s.half() == null ? 0 : Kernels.type(s.half().dtype()))
          .putFloat(s.rateFactor())
          .putFloat(s.weightDecay());
    }
    for (int i = 0; i < slots.size(); i++) {
      putPieces(bytes, i, slots.get(i).parameter().size());
    }
    long table = parameters.set(bytes.flip());
    kernels
        .of(FILE, "adamw", 0)
        .l(table)
        .l(table + head)
        .i(PIECE)
        .f(spec.beta1())
        .f(spec.beta2())
        .f(spec.eps())
        .p(control)
        .grid(count, 1, 1, Kernels.THREADS, 1, 0);
  }

  void advance(int growthInterval, Array control) {
    kernels.of(FILE, "advance", 0).i(growthInterval).p(control).grid(1, 1, 1, 1, 1, 0);
  }

  void close() {
    gradients.close();
    parameters.close();
  }
}
