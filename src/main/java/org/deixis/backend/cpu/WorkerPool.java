package org.deixis.backend.cpu;

import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.locks.LockSupport;
import java.util.function.IntConsumer;

/**
 * A fixed set of threads that share loops. The calling thread works too, so a pool of n threads
 * starts n−1. Each thread begins with its own share of the indices, the same for every loop, so
 * that a kernel finds in its core's cache what the kernel before left there; then it helps the
 * others. What an index computes must not depend on who takes it. Several callers may use one pool
 * at once.
 */
final class WorkerPool implements AutoCloseable {
  /**
   * How often a worker looks for work before it sleeps: tens of microseconds, the gap between two
   * kernels.
   */
  private static final int SPINS = 4_000;

  private static final class Job {
    /** Counters this far apart lie in cache lines of their own. */
    private static final int LINE = 32;

    final int count;
    final IntConsumer body;
    private final int threads;

    /** First index of each thread's share that nobody has taken. */
    private final AtomicIntegerArray next;

    final AtomicInteger done = new AtomicInteger();
    volatile Throwable failure;

    Job(int count, IntConsumer body, int threads) {
      this.count = count;
      this.body = body;
      this.threads = threads;
      this.next = new AtomicIntegerArray(LINE * threads);
      for (int t = 1; t < threads; t++) {
        next.setPlain(LINE * t, end(t - 1));
      }
    }

    /** End of a thread's share. */
    private int end(int thread) {
      return (int) ((long) count * (thread + 1) / threads);
    }

    /** An index of the thread's own share or, when that is done, of another's; −1 when all are. */
    private int take(int thread) {
      for (int k = 0; k < threads; k++) {
        int t = (thread + k) % threads;
        if (next.get(LINE * t) < end(t)) {
          int i = next.getAndIncrement(LINE * t);
          if (i < end(t)) {
            return i;
          }
        }
      }
      return -1;
    }

    void work(int thread) {
      for (int i = take(thread); i >= 0; i = take(thread)) {
        try {
          if (failure == null) {
            body.accept(i);
          }
        } catch (Throwable t) {
          failure = t; // rethrown to the caller in parallelFor
        } finally {
          done.incrementAndGet();
        }
      }
    }

    boolean exhausted() {
      for (int t = 0; t < threads; t++) {
        if (next.get(LINE * t) < end(t)) {
          return false;
        }
      }
      return true;
    }
  }

  private static final ThreadLocal<Boolean> INSIDE = ThreadLocal.withInitial(() -> false);

  private final ConcurrentLinkedQueue<Job> jobs = new ConcurrentLinkedQueue<>();
  private final Thread[] workers;
  private volatile boolean closed;

  WorkerPool(int threads) {
    workers = new Thread[Math.max(0, threads - 1)];
    for (int i = 0; i < workers.length; i++) {
      int thread = i + 1;
      workers[i] = new Thread(() -> run(thread), "deixis-cpu-" + thread);
      workers[i].setDaemon(true);
      workers[i].start();
    }
  }

  int threads() {
    return workers.length + 1;
  }

  /**
   * Calls {@code body} once with each of 0 … count−1 and returns when all are done; nested loops
   * run in line.
   */
  void parallelFor(int count, IntConsumer body) {
    if (count <= 1 || workers.length == 0 || INSIDE.get()) {
      for (int i = 0; i < count; i++) {
        body.accept(i);
      }
      return;
    }
    Job job = new Job(count, body, threads());
    jobs.add(job);
    int wanted = Math.min(workers.length, count - 1);
    for (int i = 0; i < wanted; i++) {
      LockSupport.unpark(workers[i]);
    }
    INSIDE.set(true);
    try {
      job.work(0);
    } finally {
      INSIDE.set(false);
    }
    jobs.remove(job);
    while (job.done.get() < count) {
      Thread.onSpinWait();
    }
    if (job.failure instanceof RuntimeException e) {
      throw e;
    }
    if (job.failure instanceof Error e) {
      throw e;
    }
  }

  /** Splits [0, total) into about equal ranges of at least {@code grain}, four a thread at most. */
  void parallelRanges(long total, long grain, RangeBody body) {
    long pieces = Math.max(1, Math.min(total / Math.max(1, grain), 4L * threads()));
    if (pieces == 1) {
      if (total > 0) {
        body.accept(0, total);
      }
      return;
    }
    parallelFor((int) pieces, i -> body.accept(total * i / pieces, total * (i + 1) / pieces));
  }

  /** A piece of a loop: [from, to). */
  interface RangeBody {
    void accept(long from, long to);
  }

  private void run(int thread) {
    INSIDE.set(true);
    int idle = 0;
    while (!closed) {
      Job job = jobs.peek();
      if (job == null) {
        if (++idle < SPINS) {
          Thread.onSpinWait();
        } else {
          LockSupport.park(this);
          idle = 0;
        }
      } else {
        job.work(thread);
        if (job.exhausted()) {
          jobs.remove(job);
        }
        idle = 0;
      }
    }
  }

  @Override
  public void close() {
    closed = true;
    for (Thread worker : workers) {
      LockSupport.unpark(worker);
    }
  }
}
