package org.deixis.data;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.deixis.core.Rng;

/**
 * Which expressions of which pictures make up the batches of an epoch. A unit is a picture with the
 * expressions drawn for it.
 */
final class EpochPlan {
  /**
   * @param picture index of the picture
   * @param samples indices of its samples
   */
  record Unit(int picture, int[] samples) {}

  private final List<List<Unit>> batches;

  private EpochPlan(List<List<Unit>> batches) {
    this.batches = batches;
  }

  int size() {
    return batches.size();
  }

  List<Unit> batch(int index) {
    return batches.get(index);
  }

  /**
   * Every expression exactly once, in the order of the pictures: pictures with the same number of
   * expressions left are batched together, so that no batch needs filling.
   *
   * @param groups the samples of each picture
   */
  static EpochPlan inOrder(int[][] groups, int images, int expressions) {
    List<List<Unit>> batches = new ArrayList<>();
    List<List<Unit>> open = new ArrayList<>(Collections.nCopies(expressions + 1, null));
    for (int p = 0; p < groups.length; p++) {
      for (int from = 0; from < groups[p].length; from += expressions) {
        int to = Math.min(groups[p].length, from + expressions);
        List<Unit> batch = open.get(to - from);
        if (batch == null) {
          batch = new ArrayList<>();
          open.set(to - from, batch);
        }
        batch.add(new Unit(p, Arrays.copyOfRange(groups[p], from, to)));
        if (batch.size() == images) {
          batches.add(batch);
          open.set(to - from, null);
        }
      }
    }
    for (List<Unit> batch : open) {
      if (batch != null) {
        batches.add(batch);
      }
    }
    return new EpochPlan(batches);
  }

  /**
   * A shuffled epoch of full batches. Without weights every expression occurs at least once: a
   * picture occurs as often as its expressions need, and its last occurrence is filled up with
   * others of its expressions, with repetition only when it has fewer than a unit takes. With
   * weights as many units are drawn, each sample in proportion to its weight. The units that do not
   * fill a batch are left out; where there are fewer than one batch takes, they are repeated.
   *
   * @param weights of the samples, or null
   */
  static EpochPlan shuffled(
      int[][] groups, int images, int expressions, double[] weights, Rng rng) {
    List<Unit> units =
        weights == null
            ? evenly(groups, expressions, rng)
            : byWeight(groups, expressions, weights, rng);
    int n = units.size();
    int[] order = new int[n];
    Arrays.setAll(order, i -> i);
    rng.shuffle(order);
    List<List<Unit>> batches = new ArrayList<>();
    for (int b = 0; b < Math.max(1, n / images); b++) {
      List<Unit> batch = new ArrayList<>(images);
      for (int i = 0; i < images; i++) {
        batch.add(units.get(order[(b * images + i) % n]));
      }
      batches.add(batch);
    }
    return new EpochPlan(batches);
  }

  private static List<Unit> evenly(int[][] groups, int expressions, Rng rng) {
    List<Unit> units = new ArrayList<>();
    for (int p = 0; p < groups.length; p++) {
      int[] samples = groups[p].clone();
      rng.shuffle(samples);
      int n = samples.length;
      for (int from = 0; from < n; from += expressions) {
        int[] chosen = new int[expressions];
        for (int i = 0; i < expressions; i++) {
          if (from + i < n) {
            chosen[i] = samples[from + i];
          } else if (n < expressions) {
            chosen[i] = samples[rng.nextInt(n)];
          } else {
            // Others of the picture, each at most once: a partial shuffle of those before.
            int taken = from + i - n;
            int pick = taken + rng.nextInt(from - taken);
            int t = samples[taken];
            samples[taken] = samples[pick];
            samples[pick] = t;
            chosen[i] = samples[taken];
          }
        }
        units.add(new Unit(p, chosen));
      }
    }
    return units;
  }

  private static List<Unit> byWeight(int[][] groups, int expressions, double[] weights, Rng rng) {
    int n = 0;
    double[] cumulative = new double[groups.length];
    double sum = 0;
    for (int p = 0; p < groups.length; p++) {
      n += (groups[p].length + expressions - 1) / expressions;
      for (int sample : groups[p]) {
        sum += weights[sample];
      }
      cumulative[p] = sum;
    }
    // Systematic resampling: one random offset, then equal steps, so that a picture's count is its
    // expectation rounded up or down.
    double offset = rng.nextDouble();
    List<Unit> units = new ArrayList<>();
    for (int k = 0, p = 0; k < n; k++) {
      double at = (k + offset) / n * sum;
      while (p < groups.length - 1 && cumulative[p] <= at) {
        p++;
      }
      units.add(new Unit(p, draw(groups[p], expressions, weights, rng)));
    }
    return units;
  }

  /**
   * Without replacement as far as the picture's samples go (Efraimidis and Spirakis, "Weighted
   * random sampling with a reservoir", 2006: the largest of u^(1/w)), then by weight.
   */
  private static int[] draw(int[] group, int expressions, double[] weights, Rng rng) {
    double[] keys = new double[group.length];
    Integer[] order = new Integer[group.length];
    double sum = 0;
    for (int i = 0; i < group.length; i++) {
      order[i] = i;
      keys[i] = Math.log(1 - rng.nextDouble()) / weights[group[i]];
      sum += weights[group[i]];
    }
    Arrays.sort(order, (a, b) -> Double.compare(keys[b], keys[a]));
    int[] chosen = new int[expressions];
    for (int i = 0; i < expressions; i++) {
      if (i < group.length) {
        chosen[i] = group[order[i]];
        continue;
      }
      double at = rng.nextDouble() * sum;
      int pick = 0;
      while (pick < group.length - 1 && (at -= weights[group[pick]]) >= 0) {
        pick++;
      }
      chosen[i] = group[pick];
    }
    return chosen;
  }
}
