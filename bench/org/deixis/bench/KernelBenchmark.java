package org.deixis.bench;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * One operation at a model's shape: forward alone, and forward with backward. Times include scopes,
 * tape and launch.
 */
@State(org.openjdk.jmh.annotations.Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class KernelBenchmark {
  /** A name of {@link BenchCases}; the default is the smallest set that shows every family. */
  @Param({
    "linear 3136×384×128",
    "linear 196×2048×512 GELU",
    "layer_norm 3136×128",
    "softmax 12544×49",
    "gelu 3136×512",
    "window_attention 1×56²×128, window 7, shift 3",
    "cross_attention 32×576×10×96",
    "region_attention 32×8×576×96",
    "conv2d 32×24²×96 to 64",
    "mask_loss 32×24² to 96², Dice"
  })
  public String name;

  @Param("cpu")
  public String device;

  private OpCase opCase;
  private Backend backend;
  private Scope scope;
  private List<Array> arrays;
  private List<Array> upstream;

  @Setup(Level.Trial)
  public void prepare() {
    opCase = BenchCases.byName(name).opCase();
    backend = Backends.get(device);
    scope = Scope.open();
    arrays = new ArrayList<>();
    for (int i = 0; i < opCase.inputs().size(); i++) {
      arrays.add(operand(backend, opCase.inputs().get(i), i));
    }
    upstream = new ArrayList<>();
    for (Variable y : opCase.run().apply(variables(false))) {
      Array up = backend.allocate(y.shape(), y.dtype());
      backend.fill(up, 0.5);
      upstream.add(up);
    }
  }

  @TearDown(Level.Trial)
  public void free() {
    scope.close();
  }

  private Variable[] variables(boolean gradients) {
    Variable[] v = new Variable[arrays.size()];
    for (int i = 0; i < v.length; i++) {
      v[i] =
          gradients && opCase.inputs().get(i).gradient()
              ? Variable.leaf(arrays.get(i))
              : Variable.constant(arrays.get(i));
    }
    return v;
  }

  @Benchmark
  public void forward() {
    try (Scope step = Scope.open()) {
      opCase.run().apply(variables(false));
      backend.synchronize();
    }
  }

  @Benchmark
  public void forwardBackward() {
    Variable[] inputs = variables(true);
    try (Scope step = Scope.open();
        Tape tape = Tape.open()) {
      tape.backward(List.of(opCase.run().apply(inputs)), upstream);
      backend.synchronize();
    } finally {
      for (Variable v : inputs) {
        v.clearGradient();
      }
    }
  }

  /** Uploads drawn values of the kind that the case asks for. */
  static Array operand(Backend backend, OpCase.Input in, int index) {
    Rng rng = new Rng(1, index);
    DType dtype =
        switch (in.kind()) {
          case FLOATS, BITS -> DType.F32;
          case INTS, MASK -> DType.I32;
          case BITMAP, PICTURE -> DType.U8;
          case RNG -> DType.I64;
        };
    int n = Math.toIntExact(in.shape().size());
    ByteBuffer bytes = ByteBuffer.allocate(n * dtype.bytes()).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < n; i++) {
      switch (in.kind()) {
        case FLOATS -> bytes.putFloat((float) (rng.nextGaussian() * in.scale()));
        case BITS -> bytes.putFloat(rng.nextInt(2));
        case INTS -> bytes.putInt(rng.nextInt((int) in.scale()));
        case MASK -> bytes.putInt(1);
        case BITMAP -> bytes.put((byte) rng.nextInt(2));
        case PICTURE -> bytes.put((byte) rng.nextInt(256));
        case RNG -> bytes.putLong(i + 1L);
      }
    }
    bytes.flip();
    Array array = backend.allocate(in.shape(), dtype);
    backend.upload(bytes, array);
    return array;
  }
}
