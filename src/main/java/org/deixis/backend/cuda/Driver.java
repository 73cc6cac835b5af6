package org.deixis.backend.cuda;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import org.bytedeco.cuda.cudart.CUctx_st;
import org.bytedeco.cuda.cudart.CUgraph_st;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.PointerPointer;

/**
 * The CUDA driver: one device, its primary context and one stream, in which all calls are ordered.
 */
final class Driver implements AutoCloseable {
  /** The CUDA that the bindings were made for; its libraries carry the number in their names. */
  static final int CUDA = cudart.CUDA_VERSION / 1000;

  /** The oldest that there is a build for. */
  private static final int OLDEST = 12;

  private static final int NO_DEVICE = 100;

  /** How often, and how many times in a row, a thread that captures is seen waiting. */
  private static final int POLL_MILLIS = 50;

  private static final int MOST_POLLS = 20;

  private final int device;
  private final CUctx_st context = new CUctx_st();
  private final CUstream_st stream = new CUstream_st();
  private volatile Thread capturing;
  private final ReentrantLock turn = new ReentrantLock();
  private final ThreadLocal<Boolean> current = ThreadLocal.withInitial(() -> false);

  /**
   * Null when the driver and a device are there, else one line that says what is missing. A machine
   * without CUDA learns it from the first library that cannot be loaded.
   */
  static String missing() {
    try {
      Loader.load(cudart.class);
    } catch (LinkageError | RuntimeException e) {
      return "the CUDA driver API cannot be loaded ("
          + reason(e)
          + "); it needs NVIDIA's driver (libcuda.so.1) and libcudart.so."
          + CUDA
          + " of CUDA "
          + CUDA
          + " on the library path: install both, then 'deixis doctor'";
    }
    int[] version = new int[1];
    int code = cudart.cuDriverGetVersion(version);
    if (code == 0 && version[0] / 1000 < CUDA) {
      return tooOld(version[0]);
    }
    if (code == 0) {
      code = cudart.cuInit(0);
    }
    int[] count = new int[1];
    if (code == 0) {
      code = cudart.cuDeviceGetCount(count);
    }
    if (code == NO_DEVICE || code == 0 && count[0] == 0) {
      return "the CUDA driver sees no device; check nvidia-smi and CUDA_VISIBLE_DEVICES";
    }
    return code == 0 ? null : "the CUDA driver does not start: " + text(code);
  }

  /** Libraries of a CUDA run on every driver that knows its first release. */
  private static String tooOld(int version) {
    return "the CUDA driver ends at CUDA "
        + release(version)
        + ", and this build is for CUDA "
        + CUDA
        + (version / 1000 == OLDEST ? ": set DEIXIS_CUDA=" + OLDEST + ", or " : ": ")
        + "install a newer driver";
  }

  /** CUDA's number for a release, 12040, as it is written: 12.4. */
  private static String release(int version) {
    return version / 1000 + "." + version % 1000 / 10;
  }

  /** Why a library did not load: what the system's loader says, without the path of who asked. */
  static String reason(Throwable e) {
    Throwable cause = e;
    while (cause.getCause() != null) {
      cause = cause.getCause();
    }
    String text = String.valueOf(cause.getMessage());
    return text.startsWith("/") && text.contains(": ")
        ? text.substring(text.indexOf(": ") + 2)
        : text;
  }

  /** Device 0, or another by CUDA_VISIBLE_DEVICES. */
  Driver() {
    check(cudart.cuInit(0), "cuInit");
    int[] number = new int[1];
    check(cudart.cuDeviceGet(number, 0), "cuDeviceGet");
    device = number[0];
    check(cudart.cuDevicePrimaryCtxRetain(context, device), "cuDevicePrimaryCtxRetain");
    enter();
    check(cudart.cuStreamCreate(stream, cudart.CU_STREAM_NON_BLOCKING), "cuStreamCreate");
  }

  /**
   * Takes the stream's turn, which each thread needs to put work into it, and {@link #unlock} gives
   * it on. A thread may hold it several times over. Whoever needs a lock of this package besides
   * takes the turn first. While a graph is captured, or work is done in the memory of graphs, its
   * thread holds the turn, and the others wait.
   *
   * @throws IllegalStateException when the thread that captures a graph waits for another one,
   *     which would never end
   */
  void lock() {
    if (turn.tryLock()) {
      return;
    }
    boolean interrupted = false;
    try {
      int waiting = 0;
      while (true) {
        try {
          if (turn.tryLock(POLL_MILLIS, TimeUnit.MILLISECONDS)) {
            return;
          }
          Thread thread = capturing;
          Thread.State state = thread == null ? null : thread.getState();
          boolean waits = state == Thread.State.WAITING || state == Thread.State.TIMED_WAITING;
          waiting = waits ? waiting + 1 : 0;
          if (waiting == MOST_POLLS) {
            throw new IllegalStateException(
                "thread '"
                    + thread.getName()
                    + "' waits for another thread while it captures a graph, and that one needs the"
                    + " cuda device; captured work must not wait for other threads");
          }
        } catch (InterruptedException e) {
          interrupted = true; // a turn ends soon: nothing to break off
        }
      }
    } finally {
      if (interrupted) {
        Thread.currentThread().interrupt();
      }
    }
  }

  void unlock() {
    turn.unlock();
  }

  /**
   * The stream, for a call that puts work into it.
   *
   * @throws IllegalStateException without {@link #lock}: the work might become part of a graph that
   *     another thread captures
   */
  CUstream_st stream() {
    if (!turn.isHeldByCurrentThread()) {
      throw new IllegalStateException("the stream is used without its turn");
    }
    return stream;
  }

  /** Whether this thread's calls are being recorded into a graph instead of done. */
  boolean capturing() {
    return capturing == Thread.currentThread();
  }

  /**
   * @param what for the message, with its article
   */
  void refuseWhileCapturing(String what) {
    if (capturing()) {
      throw new IllegalStateException(
          what
              + " inside of a captured graph: only kernels and products can be replayed; move data in"
              + " before the launch and out after it");
    }
  }

  /** Begins to record what this thread, whose turn it is, puts into the stream. */
  void beginCapture() {
    refuseWhileCapturing("a capture");
    enter();
    // Relaxed: the pool may still ask for memory, which does not touch the stream.
    check(
        cudart.cuStreamBeginCapture(stream(), cudart.CU_STREAM_CAPTURE_MODE_RELAXED),
        "cuStreamBeginCapture");
    capturing = Thread.currentThread();
  }

  /**
   * Ends the recording, also of one that went wrong, so that the stream works again.
   *
   * @return the driver's code
   */
  int endCapture(CUgraph_st graph) {
    capturing = null;
    return cudart.cuStreamEndCapture(stream, graph);
  }

  /** Makes the context this thread's own; every call to the driver needs it. */
  void enter() {
    if (!current.get()) {
      check(cudart.cuCtxSetCurrent(context), "cuCtxSetCurrent");
      current.set(true);
    }
  }

  String deviceName() {
    byte[] name = new byte[256];
    check(cudart.cuDeviceGetName(name, name.length, device), "cuDeviceGetName");
    int end = 0;
    while (end < name.length && name[end] != 0) {
      end++;
    }
    return new String(name, 0, end, java.nio.charset.StandardCharsets.UTF_8);
  }

  /** Of CUDA, as the driver names the newest that it knows: 13.0. */
  String version() {
    int[] version = new int[1];
    check(cudart.cuDriverGetVersion(version), "cuDriverGetVersion");
    return release(version[0]);
  }

  int attribute(int which) {
    int[] value = new int[1];
    check(cudart.cuDeviceGetAttribute(value, which, device), "cuDeviceGetAttribute");
    return value[0];
  }

  /** Compute capability as one number: 90 for 9.0. */
  int capability() {
    return 10 * attribute(cudart.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        + attribute(cudart.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  }

  void synchronize() {
    refuseWhileCapturing("waiting for the device");
    enter();
    lock();
    try {
      check(cudart.cuStreamSynchronize(stream), "cuStreamSynchronize");
    } finally {
      unlock();
    }
  }

  /**
   * @throws IllegalStateException when {@code code} is an error, with the driver's words
   */
  static void check(int code, String call) {
    if (code != 0) {
      throw new IllegalStateException(call + " failed: " + text(code));
    }
  }

  private static String text(int code) {
    try (PointerPointer<BytePointer> at = new PointerPointer<>(1)) {
      if (cudart.cuGetErrorString(code, at) != 0) {
        return "error " + code;
      }
      return at.get(BytePointer.class).getString() + " (error " + code + ")";
    }
  }

  @Override
  public void close() {
    enter();
    check(cudart.cuStreamSynchronize(stream), "cuStreamSynchronize");
    check(cudart.cuStreamDestroy(stream), "cuStreamDestroy");
    check(cudart.cuDevicePrimaryCtxRelease(device), "cuDevicePrimaryCtxRelease");
  }
}
