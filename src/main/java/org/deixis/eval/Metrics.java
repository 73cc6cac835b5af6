package org.deixis.eval;

import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The measures of generalised referring segmentation (Liu et al., "GRES", CVPR 2023, section 5.1),
 * counted as its published evaluation does:
 *
 * <ul>
 *   <li>gIoU: mean over expressions of the intersection over union; 1 for a no-target expression
 *       that is recognised, 0 for one that is not.
 *   <li>cIoU: all intersections over all unions; a no-target expression adds what was predicted to
 *       the union unless it is recognised.
 *   <li>N-acc: share of no-target expressions recognised; T-acc: share of the others not taken for
 *       one.
 *   <li>Pr@k: share of expressions with a target whose IoU is at least k.
 * </ul>
 *
 * All in percent; NaN where there is nothing to count. An expression with a target that is taken
 * for one without has an intersection of 0. Not thread-safe; {@link #merge} joins parts.
 */
public final class Metrics {
  /** Thresholds of Pr@k. */
  private static final double[] THRESHOLDS = {0.5, 0.6, 0.7, 0.8, 0.9};

  /** What an expression names. */
  public enum Kind {
    SINGLE,
    MULTI,
    NONE
  }

  /** Sums over expressions. */
  private static final class Counts {
    long intersection;
    long union;
    double iouSum;
    long expressions;
    long targeted;
    long targetKept;
    long noTarget;
    long noTargetFound;
    final long[] precise = new long[THRESHOLDS.length];

    void merge(Counts o) {
      intersection += o.intersection;
      union += o.union;
      iouSum += o.iouSum;
      expressions += o.expressions;
      targeted += o.targeted;
      targetKept += o.targetKept;
      noTarget += o.noTarget;
      noTargetFound += o.noTargetFound;
      for (int i = 0; i < precise.length; i++) {
        precise[i] += o.precise[i];
      }
    }

    Map<String, Double> values() {
      Map<String, Double> v = new LinkedHashMap<>();
      v.put("gIoU", 100 * iouSum / expressions);
      v.put("cIoU", 100.0 * intersection / union);
      v.put("N-acc", 100.0 * noTargetFound / noTarget);
      v.put("T-acc", 100.0 * targetKept / targeted);
      for (int i = 0; i < THRESHOLDS.length; i++) {
        v.put("Pr@" + THRESHOLDS[i], 100.0 * precise[i] / targeted);
      }
      return v;
    }
  }

  private final Counts all = new Counts();
  private final Map<Kind, Counts> split = new EnumMap<>(Kind.class);

  public Metrics() {
    for (Kind kind : Kind.values()) {
      split.put(kind, new Counts());
    }
  }

  /**
   * Counts one expression.
   *
   * @param prediction bitmap of 0 and 1, as long as {@code truth}
   * @param saysNoTarget whether the model says that the phrase names nothing
   * @return the IoU that this expression adds to gIoU
   */
  public double add(byte[] prediction, byte[] truth, boolean saysNoTarget, Kind kind) {
    if (prediction.length != truth.length) {
      throw new IllegalArgumentException(
          "prediction has " + prediction.length + " pixels and truth " + truth.length);
    }
    long intersection = 0;
    long union = 0;
    for (int i = 0; i < truth.length; i++) {
      intersection += prediction[i] & truth[i];
      union += prediction[i] | truth[i];
    }
    Counts one = new Counts();
    one.expressions = 1;
    if (kind == Kind.NONE) {
      one.noTarget = 1;
      one.noTargetFound = saysNoTarget ? 1 : 0;
      one.iouSum = saysNoTarget ? 1 : 0;
      one.union = saysNoTarget ? 0 : union;
    } else {
      one.targeted = 1;
      one.targetKept = saysNoTarget ? 0 : 1;
      one.intersection = saysNoTarget ? 0 : intersection;
      one.union = union;
      one.iouSum = union == 0 ? 0 : (double) one.intersection / union;
      for (int i = 0; i < THRESHOLDS.length; i++) {
        one.precise[i] = one.iouSum >= THRESHOLDS[i] ? 1 : 0;
      }
    }
    all.merge(one);
    split.get(kind).merge(one);
    return one.iouSum;
  }

  /** Adds what another part has counted. */
  public void merge(Metrics other) {
    all.merge(other.all);
    other.split.forEach((kind, counts) -> split.get(kind).merge(counts));
  }

  public long expressions() {
    return all.expressions;
  }

  /** Number of expressions of that kind. */
  public long expressions(Kind kind) {
    return split.get(kind).expressions;
  }

  /** All measures by name, in percent. */
  public Map<String, Double> values() {
    return all.values();
  }

  /** The measures over expressions of one kind; those that such a part cannot have are NaN. */
  public Map<String, Double> values(Kind kind) {
    return split.get(kind).values();
  }

  /** A table for the console: one row for all, and one for each kind. */
  public String table() {
    StringBuilder out = new StringBuilder();
    out.append(String.format("%-10s %7s", "", "count"));
    values().keySet().forEach(name -> out.append(String.format(" %7s", name)));
    out.append('\n');
    row(out, "all", all);
    for (Kind kind : Kind.values()) {
      row(
          out,
          kind == Kind.NONE ? "no target" : kind.name().toLowerCase(java.util.Locale.ROOT),
          split.get(kind));
    }
    return out.toString();
  }

  private static void row(StringBuilder out, String name, Counts counts) {
    out.append(String.format("%-10s %7d", name, counts.expressions));
    counts
        .values()
        .values()
        .forEach(
            v ->
                out.append(
                    v.isNaN() ? "       –" : String.format(java.util.Locale.ROOT, " %7.2f", v)));
    out.append('\n');
  }
}
