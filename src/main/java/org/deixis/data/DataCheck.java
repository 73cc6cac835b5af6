package org.deixis.data;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import org.deixis.core.InputException;

/**
 * Verifies a data set: opens it, decodes every picture and every mask, and counts what is there.
 */
public final class DataCheck {
  /**
   * Statistics of one split.
   *
   * @param single expressions that name one object
   * @param multi expressions that name several
   * @param none expressions that name nothing in the picture
   * @param emptyMasks expressions with a target whose mask covers no pixel
   * @param minWords words of the shortest phrase
   * @param maxWords words of the longest
   */
  public record Split(
      String name,
      int pictures,
      int expressions,
      int single,
      int multi,
      int none,
      int emptyMasks,
      int minWords,
      double meanWords,
      int maxWords) {}

  /**
   * @param problems one line with file, record and reason for each damage
   */
  public record Report(Path dir, List<Split> splits, List<String> problems) {
    public boolean ok() {
      return problems.isEmpty();
    }

    /** A table of the splits and the list of problems. */
    public String text() {
      StringBuilder out = new StringBuilder();
      out.append(
          "%-8s %9s %11s %8s %8s %10s %8s   %s%n"
              .formatted(
                  "split",
                  "pictures",
                  "expressions",
                  "single",
                  "multi",
                  "no-target",
                  "empty",
                  "words min/mean/max"));
      for (Split s : splits) {
        double n = Math.max(1, s.expressions);
        out.append(
            String.format(
                Locale.ROOT,
                "%-8s %9d %11d %7.1f%% %7.1f%% %9.1f%% %8d   %d / %.1f / %d%n",
                s.name,
                s.pictures,
                s.expressions,
                100 * s.single / n,
                100 * s.multi / n,
                100 * s.none / n,
                s.emptyMasks,
                s.minWords,
                s.meanWords,
                s.maxWords));
      }
      if (ok()) {
        out.append("no damage found").append(System.lineSeparator());
      } else {
        out.append("%d damaged records:%n".formatted(problems.size()));
        problems.forEach(p -> out.append("  ").append(p).append(System.lineSeparator()));
      }
      return out.toString();
    }
  }

  private static final class Counter {
    final Set<Picture> pictures = new LinkedHashSet<>();
    final int[] kinds = new int[Sample.Kind.values().length];
    int emptyMasks;
    int minWords = Integer.MAX_VALUE;
    int maxWords;
    long words;

    Split split(String name) {
      int n = kinds[0] + kinds[1] + kinds[2];
      return new Split(
          name,
          pictures.size(),
          n,
          kinds[Sample.Kind.SINGLE.ordinal()],
          kinds[Sample.Kind.MULTI.ordinal()],
          kinds[Sample.Kind.NONE.ordinal()],
          emptyMasks,
          minWords,
          (double) words / n,
          maxWords);
    }
  }

  private DataCheck() {}

  /**
   * Checks all splits of a data set. Damaged records are listed in the report and not counted in
   * the statistics.
   *
   * @throws InputException when there is no data set, a JSON file is cut off, or no record is
   *     usable
   */
  public static Report run(Path dir) {
    Dataset dataset = Dataset.open(dir, Dataset.ALL, true);
    List<String> problems = new ArrayList<>(dataset.skipped());
    tokenizer(dir, problems);
    // Pictures in parallel, their findings in order.
    List<String> damage = dataset.pictures().parallelStream().map(DataCheck::damageOf).toList();
    Map<Picture, String> bad = new IdentityHashMap<>();
    for (int i = 0; i < damage.size(); i++) {
      if (!damage.get(i).isEmpty()) {
        bad.put(dataset.pictures().get(i), damage.get(i));
      }
    }
    record Finding(String damage, boolean empty) {}
    List<Finding> findings =
        dataset.samples().parallelStream()
            .map(
                sample -> {
                  try {
                    return new Finding(null, !sample.noTarget() && sample.mask().area() == 0);
                  } catch (InputException e) {
                    return new Finding(e.getMessage(), false);
                  }
                })
            .toList();
    Map<String, Counter> counters = new LinkedHashMap<>();
    for (int i = 0; i < dataset.size(); i++) {
      Sample sample = dataset.samples().get(i);
      Finding finding = findings.get(i);
      String pictureDamage = bad.get(sample.picture());
      if (pictureDamage != null) {
        problems.add(sample.record() + ": " + pictureDamage);
      } else if (finding.damage != null) {
        problems.add(finding.damage);
      } else {
        Counter counter = counters.computeIfAbsent(sample.split(), s -> new Counter());
        counter.pictures.add(sample.picture());
        counter.kinds[sample.kind().ordinal()]++;
        counter.emptyMasks += finding.empty ? 1 : 0;
        int words = sample.phrase().strip().split("\\s+").length;
        counter.words += words;
        counter.minWords = Math.min(counter.minWords, words);
        counter.maxWords = Math.max(counter.maxWords, words);
      }
    }
    List<Split> splits = new ArrayList<>();
    counters.forEach((name, counter) -> splits.add(counter.split(name)));
    return new Report(dir, splits, List.copyOf(problems));
  }

  /** A data set need not bring a tokenizer; one that it brings must be usable. */
  private static void tokenizer(Path dir, List<String> problems) {
    if (!TextTokenizer.isIn(dir)) {
      return;
    }
    try {
      TextTokenizer.load(dir).close();
    } catch (InputException e) {
      problems.add(e.getMessage());
    }
  }

  /** What is wrong with a picture, or nothing. */
  private static String damageOf(Picture picture) {
    try {
      picture.read();
      return "";
    } catch (InputException e) {
      return e.getMessage();
    }
  }
}
