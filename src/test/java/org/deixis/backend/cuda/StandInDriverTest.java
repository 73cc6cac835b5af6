package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.concurrent.atomic.AtomicBoolean;
import org.bytedeco.cuda.cudart.CUctx_st;
import org.bytedeco.cuda.cudart.CUfunc_st;
import org.bytedeco.cuda.cudart.CUmod_st;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerPointer;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** What a real driver refuses, the stand-in refuses too: or mistakes would wait for the card. */
@Tag("cuda-host")
class StandInDriverTest {
  private static final int SHARED_WITHOUT_ASKING = 48 << 10;
  private static CUstream_st stream;
  private static CUfunc_st advance;
  private static CUfunc_st windows;
  private static CUfunc_st fill;

  @BeforeAll
  static void load() {
    CudaHost.require();
    CudaHost.backend();
    CUctx_st context = new CUctx_st();
    ok(cudart.cuDevicePrimaryCtxRetain(context, 0));
    ok(cudart.cuCtxSetCurrent(context));
    stream = new CUstream_st();
    ok(cudart.cuStreamCreate(stream, cudart.CU_STREAM_NON_BLOCKING));
    advance = function("optimizer", 0, "advance");
    windows = function("window_attention_mma", 1, "window_attention_7x1");
    fill = function("move", 0, "fill");
  }

  private static CUfunc_st function(String file, int type, String name) {
    CUmod_st module = new CUmod_st();
    CUfunc_st function = new CUfunc_st();
    try (BytePointer image = CudaHost.compiler().compile(file, type, 90)) {
      ok(cudart.cuModuleLoadData(module, image));
      ok(cudart.cuModuleGetFunction(function, module, name));
    }
    return function;
  }

  private static void ok(int code) {
    Driver.check(code, "the test's call");
  }

  /** Of {@code advance(int, float*)}, which reads nothing when it is not run. */
  private static int launch(CUfunc_st function, int threads, int shared, long bytes) {
    try (BytePointer packed = new BytePointer(256L);
        LongPointer size = new LongPointer(new long[] {bytes});
        LongPointer words = new LongPointer(1, packed.address(), 2, size.address(), 0);
        PointerPointer<Pointer> extra = new PointerPointer<>(words)) {
      return cudart.cuLaunchKernel(
          function, 1, 1, 1, threads, 1, 1, shared, stream, (PointerPointer<Pointer>) null, extra);
    }
  }

  private static void refused(String words, int code) {
    IllegalStateException e = assertThrows(IllegalStateException.class, () -> ok(code));
    assertTrue(e.getMessage().contains(words), e.getMessage());
  }

  /** The buffer ends with the last argument: an int, padding to 8 bytes, an address. */
  @Test
  void argumentsThatDoNotFitTheKernel() {
    for (long bytes : new long[] {0, 8, 12, 20, 24}) {
      refused("its parameters have 16", launch(advance, 1, 0, bytes));
    }
  }

  @Test
  void moreThreadsThanAKernelWasCompiledFor() {
    refused("it was compiled for 1024", launch(advance, 1025, 0, 16));
    refused("256 threads a block; it was compiled for 128", launch(windows, 256, 0, 16));
  }

  @Test
  void moreSharedMemoryThanAKernelHasAskedFor() {
    refused("bytes of shared memory", launch(advance, 1, SHARED_WITHOUT_ASKING + 1, 16));
    int dynamic = cudart.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    ok(cudart.cuFuncSetAttribute(advance, dynamic, SHARED_WITHOUT_ASKING + 1024));
    refused("bytes of shared memory", launch(advance, 1, SHARED_WITHOUT_ASKING + 1025, 16));
    refused("no block may have", cudart.cuFuncSetAttribute(advance, dynamic, 1 << 20));
  }

  @Test
  void aThreadWithoutTheContext() throws InterruptedException {
    int[] codes = new int[4];
    Thread thread =
        new Thread(
            () -> {
              codes[0] = cudart.cuMemAlloc(new long[1], 16);
              codes[1] = launch(advance, 1, 0, 16);
              codes[2] = cudart.cuStreamSynchronize(stream);
              codes[3] = cudart.cuStreamBeginCapture(stream, 0);
            });
    thread.start();
    thread.join();
    for (int code : codes) {
      assertEquals(cudart.CUDA_ERROR_INVALID_CONTEXT, code);
    }
  }

  /** {@code fill(float* y, long count, float v)}. */
  private static int fill(int blocks, int threads, long address, long count) {
    try (BytePointer packed = new BytePointer(24L);
        LongPointer size = new LongPointer(new long[] {20});
        LongPointer words = new LongPointer(1, packed.address(), 2, size.address(), 0);
        PointerPointer<Pointer> extra = new PointerPointer<>(words)) {
      packed.putLong(0, address);
      packed.putLong(8, count);
      packed.putFloat(16, 7);
      return cudart.cuLaunchKernel(
          fill, blocks, 1, 1, threads, 1, 1, 0, stream, (PointerPointer<Pointer>) null, extra);
    }
  }

  /**
   * One element too many, in the second of two blocks: the last of three that are no whole pack,
   * which the first three threads write.
   */
  @Test
  void aWriteBesideABufferNamesKernelBlockThreadAndBuffer() {
    int count = 2 * 256 * 4 * 4 - 2; // of two blocks of 256 threads, four packs of four each
    long[] address = new long[1];
    ok(cudart.cuMemAlloc(address, 4L * count));
    try {
      refused(
          "kernel fill, block (1, 0, 0), thread (2, 0, 0): wrote beyond a buffer of " + 4 * count,
          fill(2, 256, address[0], count + 1L));
    } finally {
      ok(cudart.cuMemFree(address[0]));
    }
  }

  /** No page of a process lies at 64, and no machine has 2⁶². */
  @Test
  void anAddressWithoutMemoryNamesKernelBlockAndThread() {
    String who = "kernel fill, block (0, 0, 0), thread (0, 0, 0): ";
    refused(who + "writes at address 0x40, where no memory is", fill(2, 32, 64, 1000));
    refused(who + "reads or writes at an address that no", fill(2, 32, 1L << 62, 1000));
  }

  /**
   * The JVM makes a null reference an exception by the same signal: it goes on doing so, in other
   * threads while a kernel faults and in the one that launched it.
   */
  @Test
  void theJvmKeepsItsOwnFaults() throws InterruptedException {
    AtomicBoolean done = new AtomicBoolean();
    int[] met = new int[1];
    Thread other =
        new Thread(
            () -> {
              while (!done.get()) {
                met[0] += nulls(1000);
              }
            });
    other.start();
    long[] address = new long[1];
    ok(cudart.cuMemAlloc(address, 4000));
    try {
      int own = 0;
      for (int i = 0; i < 200; i++) {
        assertEquals(cudart.CUDA_ERROR_ILLEGAL_ADDRESS, fill(1, 32, 64, 1000));
        ok(fill(4, 64, address[0], 1000)); // and the next launch is a good one
        own += nulls(100);
      }
      assertEquals(20_000, own);
    } finally {
      done.set(true);
      other.join();
      ok(cudart.cuMemFree(address[0]));
    }
    assertTrue(met[0] > 0 && met[0] % 1000 == 0, met[0] + " exceptions");
  }

  /** How many of so many null references became exceptions. */
  private static int nulls(int times) {
    int met = 0;
    int[][] arrays = new int[2][];
    for (int i = 0; i < times; i++) {
      try {
        met -= arrays[i % 2].length + 1;
      } catch (NullPointerException e) {
        met++;
      }
    }
    return met;
  }
}
