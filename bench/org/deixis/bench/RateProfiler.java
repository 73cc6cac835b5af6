package org.deixis.bench;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import org.deixis.bench.BenchCases.Cost;
import org.deixis.bench.BenchCases.Timed;
import org.deixis.core.DType;
import org.openjdk.jmh.infra.BenchmarkParams;
import org.openjdk.jmh.infra.IterationParams;
import org.openjdk.jmh.profile.InternalProfiler;
import org.openjdk.jmh.results.AggregationPolicy;
import org.openjdk.jmh.results.IterationResult;
import org.openjdk.jmh.results.Result;
import org.openjdk.jmh.results.ScalarResult;

/**
 * Beside the time of a {@link KernelBenchmark}, the bytes and operations that it must move and
 * compute, a second: {@code -prof org.deixis.bench.RateProfiler}, which {@link
 * KernelBenchmark#main} adds by itself.
 */
public final class RateProfiler implements InternalProfiler {
  static final String BYTES = "GB/s";
  static final String OPERATIONS = "GFLOP/s";

  @Override
  public String getDescription() {
    return "Bytes and operations a second of Deixis' kernels";
  }

  @Override
  public void beforeIteration(BenchmarkParams benchmark, IterationParams iteration) {}

  @Override
  public Collection<? extends Result<?>> afterIteration(
      BenchmarkParams benchmark, IterationParams iteration, IterationResult result) {
    String name = benchmark.getParam("name");
    if (name == null || !benchmark.getBenchmark().startsWith(KernelBenchmark.class.getName())) {
      return List.of();
    }
    boolean forward = benchmark.getBenchmark().endsWith(".forward");
    DType dtype = DType.valueOf(benchmark.getParam("dtype").toUpperCase(Locale.ROOT));
    double unit = benchmark.getTimeUnit().toNanos(1) / (double) TimeUnit.SECONDS.toNanos(1);
    double seconds = result.getPrimaryResult().getScore() * unit;
    return rates(BenchCases.byName(name), forward, dtype, seconds);
  }

  /**
   * @param seconds of a call
   */
  static List<ScalarResult> rates(Timed timed, boolean forward, DType dtype, double seconds) {
    Cost cost = forward ? timed.forward() : timed.both();
    List<ScalarResult> rates = new ArrayList<>();
    rates.add(rate(BYTES, cost.bytes(dtype) / seconds));
    if (cost.flops() > 0) { // a copy has none
      rates.add(rate(OPERATIONS, cost.flops() / seconds));
    }
    return rates;
  }

  private static ScalarResult rate(String unit, double aSecond) {
    return new ScalarResult(unit, aSecond / 1e9, unit, AggregationPolicy.AVG);
  }
}
