package org.deixis.backend.cpu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Every index once, whoever is late, and each thread's own share first. */
class WorkerPoolTest {
  @ParameterizedTest
  @CsvSource({"1, 5", "2, 0", "2, 1", "2, 7", "3, 2", "3, 100", "5, 64"})
  void everyIndexOnce(int threads, int count) {
    try (WorkerPool pool = new WorkerPool(threads)) {
      for (int repeat = 0; repeat < 200; repeat++) {
        AtomicIntegerArray calls = new AtomicIntegerArray(count + 1);
        pool.parallelFor(count, calls::getAndIncrement);
        for (int i = 0; i < count; i++) {
          assertEquals(1, calls.get(i), "index " + i);
        }
        assertEquals(0, calls.get(count));
      }
    }
  }

  /** Both threads must come, or the first index waits in vain for the last. */
  @Test
  void aThreadStartsWithItsOwnShare() {
    try (WorkerPool pool = new WorkerPool(2)) {
      for (int repeat = 0; repeat < 50; repeat++) {
        CountDownLatch both = new CountDownLatch(2);
        ConcurrentHashMap<Integer, Thread> first = new ConcurrentHashMap<>();
        pool.parallelFor(
            8,
            i -> {
              if (i == 0 || i == 4) {
                first.put(i, Thread.currentThread());
                both.countDown();
                await(both);
              }
            });
        assertEquals(Thread.currentThread(), first.get(0), "the caller takes the first half");
        assertTrue(first.get(4).getName().startsWith("deixis-cpu"), "a worker takes the other");
      }
    }
  }

  /** The caller is held at its first index until all others are done, by the worker alone. */
  @Test
  void whoIsDoneHelpsTheOthers() {
    try (WorkerPool pool = new WorkerPool(2)) {
      CountDownLatch others = new CountDownLatch(99);
      pool.parallelFor(
          100,
          i -> {
            if (i == 0) {
              await(others);
            } else {
              others.countDown();
            }
          });
      assertEquals(0, others.getCount());
    }
  }

  @Test
  void severalCallers() throws InterruptedException {
    try (WorkerPool pool = new WorkerPool(2)) {
      AtomicInteger sum = new AtomicInteger();
      Thread[] callers = new Thread[4];
      for (int c = 0; c < callers.length; c++) {
        callers[c] =
            new Thread(
                () -> {
                  for (int repeat = 0; repeat < 500; repeat++) {
                    pool.parallelFor(9, sum::addAndGet);
                  }
                });
        callers[c].start();
      }
      for (Thread caller : callers) {
        caller.join();
      }
      assertEquals(4 * 500 * 36, sum.get());
    }
  }

  @Test
  void aFailureReachesTheCallerAndThePoolGoesOn() {
    try (WorkerPool pool = new WorkerPool(2)) {
      IllegalStateException e =
          assertThrows(
              IllegalStateException.class,
              () ->
                  pool.parallelFor(
                      10,
                      i -> {
                        if (i == 9) {
                          throw new IllegalStateException("nine");
                        }
                      }));
      assertEquals("nine", e.getMessage());
      AtomicInteger calls = new AtomicInteger();
      pool.parallelFor(10, i -> calls.incrementAndGet());
      assertEquals(10, calls.get());
    }
  }

  private static void await(CountDownLatch latch) {
    try {
      assertTrue(latch.await(20, TimeUnit.SECONDS), "nobody else came");
    } catch (InterruptedException e) {
      throw new IllegalStateException(e);
    }
  }
}
