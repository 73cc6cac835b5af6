package org.deixis.bench;

import java.util.Locale;
import java.util.concurrent.TimeUnit;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.core.DType;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Level;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * One operation at a model's shape: forward alone, and forward with backward, in forked virtual
 * machines with errors. Times include scopes, tape and launch.
 */
@State(Scope.Benchmark)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
@Fork(2)
public class KernelBenchmark {
  /**
   * Names of {@link BenchCases}: Swin-B 224 and BERT-base for one picture and phrase, then the
   * demo's step. Any other name of the table may be given with {@code -p name=…}.
   */
  @Param({
    "linear 3136×384×128",
    "linear 196×2048×512 GELU",
    "linear 20×3072×768 GELU",
    "layer_norm 3136×128",
    "layer_norm 196×512",
    "softmax 12544×49",
    "gelu 3136×512",
    "bias_residual 3136×128",
    "window_attention 1×56²×128, window 7, shift 3",
    "window_block 1×56²×128, window 7, shift 3",
    "window_block 1×14²×512, window 7, shift 3",
    "self_attention 1×20×768",
    "region_attention 1×8×3136×512",
    "linear 18432×96×96",
    "cross_attention 32×576×10×96",
    "region_attention 32×8×576×96",
    "conv2d 32×24²×96 to 64",
    "mask_loss 32×24² to 96², Dice",
    "upsample_add 8·4×24²×96",
    "add_layer_norm 50176×128",
    "group_norm 64×56²×256, 32 groups",
    "self_attention 16×128×768, padded",
    "self_attention 64×512×768, padded",
    "embedding 1280 of 30522×768",
    "merge_gather 16×56²×128",
    "dropout 1280×768",
    "gru_cell 64×768"
  })
  public String name;

  @Param("cpu")
  public String device;

  /** f32, f16 or bf16. */
  @Param("f32")
  public String dtype;

  private Backend backend;
  private OperationRun run;

  @Setup(Level.Trial)
  public void prepare() {
    backend = Backends.get(device);
    run =
        new OperationRun(
            backend,
            BenchCases.byName(name).opCase(),
            DType.valueOf(dtype.toUpperCase(Locale.ROOT)));
  }

  @TearDown(Level.Trial)
  public void free() {
    run.close();
  }

  @Benchmark
  public void forward() {
    run.forward();
    backend.synchronize();
  }

  @Benchmark
  public void forwardBackward() {
    run.forwardBackward();
    backend.synchronize();
  }
}
