package org.deixis.bench;

import java.io.IOException;
import java.util.List;
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
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.CommandLineOptionException;
import org.openjdk.jmh.runner.options.CommandLineOptions;
import org.openjdk.jmh.runner.options.Options;
import org.openjdk.jmh.runner.options.OptionsBuilder;

/**
 * One operation at a model's shape: forward alone, and forward with backward, with errors; times
 * include scopes, tape and launch. Run by {@link #main}, which knows all of JMH's options, it also
 * gives bytes and operations a second, and on cuda it takes a batch's shapes in half precision. In
 * forked virtual machines, unless {@code -f 0} says otherwise.
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
   * demo's step. Any other name of the table, the card's too, may be given with {@code -p name=…}.
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
    "upsample_add 8·4×24²×96"
  })
  public String name;

  @Param("cpu")
  public String device;

  /** f32, f16 or bf16. */
  @Param("f32")
  public String dtype;

  /** Every fused kernel at a shape of 16 pictures with 4 phrases each: what cuda is timed on. */
  static final List<String> OF_A_CARD =
      List.of(
          "linear 3136×2048×512 GELU",
          "softmax 200704×49",
          "layer_norm 50176×128",
          "layer_norm 784×1024",
          "add_layer_norm 50176×128",
          "group_norm 64×120²×256, 32 groups",
          "gelu 50176×512",
          "bias_residual 50176×128",
          "window_attention 16×56²×128, window 7, shift 3",
          "window_attention 16×24²×512, window 12, shift 6",
          "self_attention 64×20×768, padded",
          "self_attention 16×128×768, padded",
          "self_attention 64×512×768, padded",
          "cross_attention 64×3136×20×512",
          "region_attention 64×8×14400×512",
          "mask_loss 64×120² to 480², Dice",
          "binary_loss 64×14400",
          "cross_entropy 16×1000",
          "upsample_add 16·4×56²×512",
          "resize 16×28² to 56²×256",
          "embedding 1280 of 30522×768",
          "merge_gather 16×56²×128",
          "dropout 1280×768",
          "drop_path 16×56²×128",
          "reduce_columns 50176×128",
          "gru_cell 64×768");

  private Backend backend;
  private OperationRun run;

  @Setup(Level.Trial)
  public void prepare() {
    backend = Backends.get(device);
    run =
        new OperationRun(
            backend,
            BenchCases.byName(name).opCase(),
            DType.valueOf(dtype.toUpperCase(Locale.ROOT)),
            backend.name().equals("cuda") ? Bench.cycledBytes(backend) : 0);
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

  /**
   * @param args JMH's
   */
  public static void main(String[] args)
      throws CommandLineOptionException, IOException, RunnerException {
    CommandLineOptions given = new CommandLineOptions(args);
    if (given.shouldHelp()) {
      given.showHelp();
      return;
    }
    new Runner(options(given)).run();
  }

  static Options options(Options given) {
    ChainedOptionsBuilder options =
        new OptionsBuilder().parent(given).addProfiler(RateProfiler.class);
    if (given.getIncludes().isEmpty()) {
      options.include(KernelBenchmark.class.getName());
    }
    if (given.getParameter("device").orElse(List.<String>of()).contains("cuda")) {
      if (!given.getParameter("name").hasValue()) {
        options.param("name", OF_A_CARD.toArray(String[]::new));
      }
      if (!given.getParameter("dtype").hasValue()) {
        options.param("dtype", "f16");
      }
    }
    return options.build();
  }
}
