package org.deixis.bench;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * One line of the table.
 *
 * @param group which part of the table it belongs to
 * @param name what was measured
 * @param unit "s", "MiB", "count", "IoU", or a rate that ends with "/s"
 * @param engine the engine's figure, a median
 * @param peers those of others on the same, by name
 * @param wanted ratios to be reached, by peer
 * @param more further figures by name: "gflops", "gbs", "share_of_limit", quartiles, …
 */
public record Row(
    Group group,
    String name,
    String unit,
    double engine,
    Map<String, Double> peers,
    Map<String, Double> wanted,
    Map<String, Double> more) {

  /** The engine's column. */
  public static final String ENGINE = "Deixis";

  public static final String PYTORCH = "PyTorch";
  public static final String PYTORCH_COMPILED = "PyTorch compiled";
  public static final String ONNX_RUNTIME = "ONNX Runtime";
  public static final String ONNX_RUNTIME_JAVA = "ONNX Runtime (Java)";
  public static final String LIBTORCH_JAVA = "LibTorch (Java)";

  /** Parts of the table, in its order. */
  public enum Group {
    INFERENCE,
    TRAINING,
    ENCODERS,
    OPERATIONS,
    FOOTPRINT
  }

  public Row {
    peers = new LinkedHashMap<>(peers);
    wanted = new LinkedHashMap<>(wanted);
    more = new LinkedHashMap<>(more);
  }

  /** A line without peers. */
  public static Row of(Group group, String name, String unit, double engine) {
    return new Row(group, name, unit, engine, Map.of(), Map.of(), Map.of());
  }

  /** Times in seconds as a row. */
  static Row timed(Group group, String name, Map<String, Rounds.Timing> timings) {
    Rounds.Timing own = timings.get(ENGINE);
    Row row = of(group, name, "s", own.median());
    row.more.put("quartile_low", own.low());
    row.more.put("quartile_high", own.high());
    timings.forEach(
        (who, t) -> {
          if (!who.equals(ENGINE)) {
            row.peers.put(who, t.median());
          }
        });
    return row;
  }

  /** The same times as a rate: {@code amount} of a thing a call. */
  Row asRate(String newUnit, double amount) {
    Row rate = of(group, name, newUnit, amount / engine);
    peers.forEach((who, seconds) -> rate.peers.put(who, amount / seconds));
    rate.wanted.putAll(wanted);
    rate.more.put("seconds", engine);
    return rate;
  }

  Row with(String key, double value) {
    more.put(key, value);
    return this;
  }

  Row peer(String who, double value) {
    peers.put(who, value);
    return this;
  }

  Row wants(String who, double ratio) {
    wanted.put(who, ratio);
    return this;
  }

  /** Whether more is better: rates and shares are, times and sizes are not. */
  public boolean higherIsBetter() {
    return unit.endsWith("/s") || unit.equals("IoU");
  }

  /** How many times as good as a peer: above 1 the engine is ahead. NaN without that peer. */
  public double ratio(String peer) {
    Double theirs = peers.get(peer);
    if (theirs == null) {
      return Double.NaN;
    }
    return higherIsBetter() ? engine / theirs : theirs / engine;
  }
}
