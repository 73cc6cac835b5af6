package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import org.bytedeco.cuda.global.cudart;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Graphs;
import org.deixis.backend.Scope;
import org.deixis.backend.Unary;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Capture and replay on the stand-in driver, which does nothing while it captures. */
@Tag("cuda-host")
class CudaGraphsTest {
  private static final int N = 1_000;

  private static Array array(Backend backend, float value) {
    Array a = backend.allocate(Shape.of(N), DType.F32);
    backend.fill(a, value);
    return a;
  }

  private static float[] values(Array a) {
    ByteBuffer bytes =
        ByteBuffer.allocate(Math.toIntExact(a.bytes())).order(ByteOrder.LITTLE_ENDIAN);
    a.backend().download(a, bytes);
    float[] values = new float[Math.toIntExact(a.size())];
    bytes.asFloatBuffer().get(values);
    return values;
  }

  private static void holds(float value, Array a) {
    float[] expected = new float[N];
    Arrays.fill(expected, value);
    assertArrayEquals(expected, values(a));
  }

  /** y = (x² + 1)², with room for intermediate values that is given back. */
  private static Runnable work(Array x, Array y) {
    Backend backend = x.backend();
    return () -> {
      try (Scope scope = Scope.open()) {
        Array square = backend.allocate(x.shape(), DType.F32);
        backend.unary(Unary.SQUARE, x, square);
        Array sum = backend.allocate(x.shape(), DType.F32);
        backend.fill(sum, 1);
        backend.axpby(1, square, 1, sum);
        backend.unary(Unary.SQUARE, sum, y);
      }
    };
  }

  @Test
  void replaysOnWhatIsThereThen() {
    CudaBackend backend = CudaHost.backend();
    long live = backend.memory().stats().live();
    try (Scope scope = Scope.open()) {
      Array x = array(backend, 2);
      Array y = array(backend, -1);
      Runnable work = work(x, y);
      backend.graphs().warmUp(work);
      holds(25, y);
      backend.fill(y, -1);
      long held = backend.memory().stats().live();
      try (Graphs.Graph graph = backend.graphs().capture(work)) {
        holds(-1, y); // recorded, not done
        assertEquals(held, backend.memory().stats().live());
        for (int i = 0; i < 4; i++) {
          backend.fill(x, i);
          graph.launch();
          holds((float) Math.pow(i * i + 1, 2), y);
        }
        backend.memory().resetPeak();
        graph.launch();
        assertTrue(
            backend.memory().stats().peak() >= held + 2 * N * 4,
            "a launch's memory is not counted");
      }
    }
    assertEquals(live, backend.memory().stats().live());
  }

  @Test
  void whatIsAllocatedBetweenReplaysIsSafe() {
    CudaBackend backend = CudaHost.caching();
    long live = backend.memory().stats().live();
    try (Scope scope = Scope.open()) {
      Array x = array(backend, 1);
      Array y = array(backend, 0);
      Array z = array(backend, 0);
      List<Array> others = new ArrayList<>();
      backend.graphs().warmUp(work(x, y));
      long reserved = backend.memory().stats().reserved();
      try (Graphs.Graph first = backend.graphs().capture(work(x, y));
          Graphs.Graph second = backend.graphs().capture(work(x, z))) {
        assertEquals(reserved, backend.memory().stats().reserved(), "graphs need memory anew");
        for (int i = 0; i < 5; i++) {
          others.add(array(backend, 100 + i));
          backend.fill(x, i);
          backend.graphs().warmUp(work(x, y)); // calls in the graphs' memory between launches
          first.launch();
          others.add(array(backend, 200 + i));
          second.launch();
          holds((float) Math.pow(i * i + 1, 2), y);
          holds((float) Math.pow(i * i + 1, 2), z);
        }
        for (int i = 0; i < 5; i++) {
          holds(100 + i, others.get(2 * i));
          holds(200 + i, others.get(2 * i + 1));
        }
      }
      // Without graphs their blocks serve everybody again.
      reserved = backend.memory().stats().reserved();
      array(backend, 0);
      array(backend, 0);
      assertEquals(reserved, backend.memory().stats().reserved());
    }
    assertEquals(live, backend.memory().stats().live());
    backend.memory().trim();
    assertEquals(live, backend.memory().stats().live());
  }

  @Test
  void dropoutDrawsAnew() {
    CudaBackend backend = CudaHost.backend();
    try (Scope scope = Scope.open()) {
      Array x = array(backend, 1);
      Array y = array(backend, 0);
      Array plain = array(backend, 0);
      Array rng = backend.allocate(Shape.of(2), DType.I64);
      Runnable work = () -> backend.dropout(0.3, 1, 8, rng, x, y);
      stream(rng, 0);
      backend.graphs().warmUp(work);
      float[] before = values(y);
      try (Graphs.Graph graph = backend.graphs().capture(work)) {
        for (int i = 1; i < 4; i++) {
          stream(rng, i);
          graph.launch();
          float[] drawn = values(y);
          assertFalse(Arrays.equals(before, drawn), "launch " + i);
          backend.dropout(0.3, 1, 8, rng, x, plain);
          assertArrayEquals(values(plain), drawn);
          before = drawn;
        }
      }
    }
  }

  private static void stream(Array rng, long stream) {
    ByteBuffer bytes = ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN);
    rng.backend().upload(bytes.putLong(7).putLong(stream).flip(), rng);
  }

  private static void refused(CudaBackend backend, Runnable work, String... words) {
    String message =
        assertThrows(IllegalStateException.class, () -> backend.graphs().capture(work))
            .getMessage();
    for (String word : words) {
      assertTrue(message.contains(word), message);
    }
    // The device works on.
    try (Scope scope = Scope.open()) {
      Array x = array(backend, 3);
      Array y = array(backend, 0);
      work(x, y).run();
      holds(100, y);
      try (Graphs.Graph graph = backend.graphs().capture(work(x, y))) {
        backend.fill(x, 1);
        graph.launch();
        holds(4, y);
      }
    }
  }

  @Test
  void whatCannotBeRecordedIsRefused() {
    CudaBackend backend = CudaHost.backend();
    long live = backend.memory().stats().live();
    try (Scope scope = Scope.open()) {
      Array x = array(backend, 2);
      Array y = array(backend, 0);
      work(x, y).run();
      ByteBuffer host = ByteBuffer.allocate(4 * N);
      refused(backend, () -> backend.upload(host, x), "an upload", "before the launch");
      refused(backend, () -> backend.download(x, host), "a download", "after it");
      refused(backend, backend::synchronize, "waiting for the device");
      refused(backend, () -> backend.graphs().capture(work(x, y)), "inside of another graph");
      refused(backend, () -> array(backend, 1), "still in use", "arrays made before it");
      // What no check of ours sees, the driver refuses, and says so at the end.
      refused(
          backend,
          () -> cudart.cuStreamSynchronize(backend.stream()),
          "capture of a graph",
          "cuStreamSynchronize");
      refused(
          backend,
          () -> {
            throw new IllegalStateException("the work's own fault");
          },
          "the work's own fault");
      holds(2, x);
    }
    assertEquals(live, backend.memory().stats().live());
  }

  /** What another thread asks for while a graph is captured is done after it, and no part of it. */
  @Test
  void otherThreadsWaitForACapture() throws InterruptedException {
    CudaBackend backend = CudaHost.backend();
    try (Scope scope = Scope.open()) {
      Array x = array(backend, 2);
      Array y = array(backend, 0);
      Thread other = new Thread(() -> backend.fill(y, 7));
      Runnable work =
          () -> {
            other.start();
            while (other.getState() != Thread.State.TIMED_WAITING) {
              Thread.onSpinWait();
            }
            backend.fill(x, 5);
          };
      try (Graphs.Graph graph = backend.graphs().capture(work)) {
        other.join();
        holds(2, x);
        holds(7, y);
        backend.fill(y, 1);
        graph.launch();
        holds(5, x);
        holds(1, y);
      }
    }
  }

  /** Work that waits for a thread which waits for its end would hang. */
  @Test
  void capturedWorkMustNotWaitForOtherThreads() {
    CudaBackend backend = CudaHost.backend();
    try (Scope scope = Scope.open()) {
      Array x = array(backend, 2);
      List<String> messages = new ArrayList<>();
      Runnable work =
          () -> {
            Thread other =
                new Thread(
                    () -> {
                      try {
                        backend.fill(x, 7);
                      } catch (IllegalStateException e) {
                        messages.add(e.getMessage());
                      }
                    });
            other.start();
            try {
              other.join();
            } catch (InterruptedException e) {
              Thread.currentThread().interrupt();
            }
            backend.fill(x, 5);
          };
      try (Graphs.Graph graph = backend.graphs().capture(work)) {
        assertEquals(1, messages.size());
        assertTrue(messages.get(0).contains("must not wait for other threads"), messages.get(0));
        holds(2, x);
        graph.launch();
        holds(5, x);
      }
    }
  }

  /** Calls between those of work in the graphs' memory must not be launches of graphs. */
  @Test
  void launchesDoNotDisturbWorkInTheirMemory() throws InterruptedException {
    CudaBackend backend = CudaHost.caching();
    try (Scope scope = Scope.open()) {
      Array x = array(backend, 3);
      Array y = array(backend, 0);
      Array z = array(backend, 1);
      work(z, y).run();
      try (Graphs.Graph graph = backend.graphs().capture(work(z, y))) {
        AtomicBoolean stop = new AtomicBoolean();
        Thread other =
            new Thread(
                () -> {
                  while (!stop.get()) {
                    graph.launch();
                    Thread.yield();
                  }
                });
        Array own = array(backend, 0);
        Runnable mine =
            () -> {
              try (Scope inner = Scope.open()) {
                Array square = backend.allocate(x.shape(), DType.F32);
                backend.unary(Unary.SQUARE, x, square);
                for (int i = 0; i < 200; i++) {
                  backend.unary(Unary.RELU, square, square);
                }
                backend.unary(Unary.SQUARE, square, own);
              }
            };
        other.start();
        try {
          for (int i = 0; i < 20; i++) {
            backend.fill(own, 0);
            backend.graphs().warmUp(mine);
            holds(81, own);
          }
        } finally {
          stop.set(true);
          other.join();
        }
      }
    }
  }

  @Test
  void aClosedGraphIsNotLaunched() {
    CudaBackend backend = CudaHost.backend();
    try (Scope scope = Scope.open()) {
      Array x = array(backend, 2);
      Graphs.Graph graph = backend.graphs().capture(() -> backend.fill(x, 5));
      graph.close();
      graph.close();
      assertThrows(IllegalStateException.class, graph::launch);
      holds(2, x);
    }
  }
}
