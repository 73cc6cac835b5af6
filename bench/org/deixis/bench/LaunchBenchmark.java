package org.deixis.bench;

import java.util.concurrent.TimeUnit;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Graphs;
import org.deixis.backend.Unary;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * What the host pays on the way to a device: in bursts, as a model launches, with one wait at the
 * end; a time is that of one call.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class LaunchBenchmark {
  /** Calls of a burst, and kernels of the captured graph. */
  public static final int BURST = 256;

  @Param("cuda")
  public String device;

  private Backend backend;
  private Array one;
  private Array none;
  private Graphs.Graph graph;

  @Setup(Level.Trial)
  public void prepare() {
    prepare(Backends.get(device));
  }

  void prepare(Backend on) {
    backend = on;
    one = backend.allocate(Shape.of(1), DType.F32);
    none = backend.allocate(Shape.of(0), DType.F32);
    backend.fill(one, 1);
    if (backend.graphs() != null) {
      Runnable work = this::burst;
      backend.graphs().warmUp(work);
      graph = backend.graphs().capture(work);
    }
  }

  private void burst() {
    for (int i = 0; i < BURST; i++) {
      backend.unary(Unary.RELU, one, one);
    }
  }

  @TearDown(Level.Trial)
  public void free() {
    if (graph != null) {
      graph.close();
    }
    one.release();
    none.release();
  }

  /** A kernel over one element: its launch is all that it costs. */
  @Benchmark
  @OperationsPerInvocation(BURST)
  public void launch() {
    burst();
    backend.synchronize();
  }

  /** The kernel looked up and its arguments packed, for no elements: nothing is launched. */
  @Benchmark
  @OperationsPerInvocation(BURST)
  public void packing() {
    for (int i = 0; i < BURST; i++) {
      backend.unary(Unary.RELU, none, none);
    }
  }

  /** A buffer from the pool, and back. */
  @Benchmark
  @OperationsPerInvocation(BURST)
  public void allocation() {
    for (int i = 0; i < BURST; i++) {
      backend.memory().allocate(1 << 20).release();
    }
  }

  /** A graph of so many of those kernels, by kernel. */
  @Benchmark
  @OperationsPerInvocation(BURST)
  public void replay() {
    if (graph == null) {
      throw new IllegalStateException("device '" + device + "' has no graphs to replay");
    }
    graph.launch();
    backend.synchronize();
  }
}
