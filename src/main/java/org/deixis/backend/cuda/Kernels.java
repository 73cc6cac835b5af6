package org.deixis.backend.cuda;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.bytedeco.cuda.cudart.CUfunc_st;
import org.bytedeco.cuda.cudart.CUmod_st;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;
import org.deixis.backend.Array;
import org.deixis.core.DType;

/** The kernels of all files, compiled and loaded on first use. */
final class Kernels {
  /** Threads of a block that runs over elements. */
  static final int THREADS = 256;

  /** Columns from which on a row gets a whole block. */
  static final int LONG_ROW = 2048;

  private static final int ROWS_AT_ONCE = 4;

  /** Bytes of shared memory that sums of a block need. */
  static final int SCRATCH = 128;

  private static final int PACK_BYTES = 16;

  /** All kernel files. */
  static final List<String> FILES =
      List.of(
          "attention",
          "attention_long_mma",
          "attention_mma",
          "elementwise",
          "gemm",
          "geometry",
          "group_norm",
          "loss",
          "mask_loss",
          "move",
          "norm",
          "optimizer",
          "region_attention",
          "region_attention_mma",
          "window_attention",
          "window_attention_large",
          "window_attention_large_backward",
          "window_attention_mma",
          "window_attention_mma_backward");

  /** fp32, fp16, bf16. */
  private static final int TYPES = 3;

  private record Key(String file, int type, String name) {}

  private final Driver driver;
  private final KernelCompiler compiler;
  private final int capability;
  private final int mostShared;
  private final int blocks;
  private final Map<Key, CUmod_st> modules = new ConcurrentHashMap<>();
  private final Map<Key, CUfunc_st> functions = new ConcurrentHashMap<>();

  Kernels(Driver driver, KernelCompiler compiler) {
    this.driver = driver;
    this.compiler = compiler;
    capability = driver.capability();
    mostShared = driver.attribute(cudart.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    // Eight blocks of 256 threads fill a multiprocessor; more only queue.
    blocks = 8 * driver.attribute(cudart.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  }

  /** 0, 1, 2 for fp32, fp16, bf16; 3 and 4 for bytes and 32-bit integers. */
  static int type(DType dtype) {
    return switch (dtype) {
      case F32 -> 0;
      case F16 -> 1;
      case BF16 -> 2;
      case U8 -> 3;
      case I32 -> 4;
      default -> throw new IllegalArgumentException("no kernel takes " + dtype);
    };
  }

  /** Elements that one wide load moves. */
  static int pack(DType dtype) {
    return PACK_BYTES / dtype.bytes();
  }

  /** Begins a launch of a kernel for an array's floating type. */
  Launch of(String file, String name, Array typed) {
    return of(file, name, type(typed.dtype()));
  }

  Launch of(String file, String name, int type) {
    return new Launch(this, driver, function(new Key(file, type, name)), name);
  }

  private CUfunc_st function(Key key) {
    CUfunc_st found = functions.get(key);
    if (found != null) {
      return found;
    }
    driver.lock(); // a module is not loaded into another thread's capture
    try {
      return functions.computeIfAbsent(
          key,
          k -> {
            driver.enter();
            CUmod_st module = modules.computeIfAbsent(new Key(k.file, k.type, ""), this::load);
            CUfunc_st function = new CUfunc_st();
            Driver.check(
                cudart.cuModuleGetFunction(function, module, k.name),
                "cuModuleGetFunction " + k.name);
            Driver.check(
                cudart.cuFuncSetAttribute(
                    function, cudart.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, mostShared),
                "cuFuncSetAttribute " + k.name);
            return function;
          });
    } finally {
      driver.unlock();
    }
  }

  private CUmod_st load(Key key) {
    try (BytePointer image = compiler.compile(key.file, key.type, capability)) {
      CUmod_st module = new CUmod_st();
      Driver.check(cudart.cuModuleLoadData(module, image), "cuModuleLoadData " + key.file);
      return module;
    }
  }

  /** All files for all types, side by side; how many that were. */
  int compileAll(int threads) {
    ExecutorService workers = Executors.newFixedThreadPool(threads);
    try {
      List<Future<?>> compiled = new ArrayList<>();
      for (String file : FILES) {
        for (int type = 0; type < TYPES; type++) {
          int of = type;
          compiled.add(workers.submit(() -> compiler.compile(file, of, capability).close()));
        }
      }
      for (Future<?> one : compiled) {
        one.get();
      }
      return compiled.size();
    } catch (ExecutionException e) {
      throw e.getCause() instanceof RuntimeException cause
          ? cause
          : new IllegalStateException(e.getCause());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted while kernels are compiled", e);
    } finally {
      workers.shutdownNow();
    }
  }

  /** Blocks of {@link #THREADS} threads that the device can run at once. */
  int residentBlocks() {
    return blocks;
  }

  /** Blocks for a loop over n elements with a stride of the grid. */
  int gridFor(long n) {
    return (int) Math.max(1, Math.min((n + THREADS - 1) / THREADS, 4L * blocks));
  }

  /** Chunks that a sum over {@code length} is cut into beside {@code width} blocks of columns. */
  int chunks(long length, long width) {
    long wanted = Math.max(1, blocks / Math.max(1, width));
    return (int) Math.max(1, Math.min(wanted, length / 32));
  }

  /** Whether the device's tensor cores multiply this type as the kernels ask them to. */
  boolean hasTensorCores(DType dtype) {
    return dtype == DType.F16 && capability >= 75 || dtype == DType.BF16 && capability >= 80;
  }

  int multiprocessors() {
    return blocks / 8;
  }

  /** Whether a block may have so much shared memory. */
  boolean hasShared(long bytes) {
    return bytes <= mostShared;
  }

  void requireShared(String kernel, long bytes) {
    if (bytes > mostShared) {
      throw new IllegalArgumentException(
          "%s needs %d bytes of shared memory and this device has %d a block: it cannot take this shape;"
              + " use the cpu device, or for windowed attention a smaller window"
                  .formatted(kernel, bytes, mostShared));
    }
  }

  static int rowsAtOnce(int columns) {
    return columns < LONG_ROW ? ROWS_AT_ONCE : 1;
  }

  static int threadsOfRow(int columns) {
    return columns < LONG_ROW ? 32 : THREADS;
  }
}
