package org.deixis.data;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/**
 * The samples of one split of a data set, in the order of its files. Two layouts are read, told
 * apart by the annotation file in the folder: {@link GrefCocoDataset} and {@link GuideDataset}.
 */
public final class Dataset {
  /** The split name that stands for all splits together. */
  public static final String ALL = "all";

  private final String name;
  private final List<Sample> samples;
  private final List<Picture> pictures;
  private final List<String> skipped;

  /**
   * A data set of given samples, such as drawn scenes in memory.
   *
   * @param skipped one line per record that was left out
   */
  public Dataset(String name, List<Sample> samples, List<String> skipped) {
    this.name = name;
    this.samples = List.copyOf(samples);
    Set<Picture> seen = new LinkedHashSet<>();
    for (Sample sample : samples) {
      seen.add(sample.picture());
    }
    this.pictures = List.copyOf(seen);
    this.skipped = List.copyOf(skipped);
  }

  /**
   * Opens a folder. Pictures' headers and all records are checked at once; pictures and masks are
   * decoded later, by those who use them. With {@code skipBad} every picture file is also read to
   * its end, so that a damaged one is left out here rather than found in the middle of a run.
   *
   * @param split {@code train}, {@code val}, {@code testA}, {@code testB}, {@code test}, whatever
   *     else the files name, or {@link #ALL}
   * @param skipBad leave damaged records out and list them in {@link #skipped}, instead of failing
   * @throws InputException naming file and record, when the folder, the split or (without {@code
   *     skipBad}) a record is missing or damaged; a JSON file that is cut off always fails, because
   *     nobody can say what it has lost
   */
  public static Dataset open(Path dir, String split, boolean skipBad) {
    Damage damage = new Damage(skipBad);
    Map<String, Integer> splits = new LinkedHashMap<>();
    List<Sample> samples =
        isGrefCoco(dir)
            ? new GrefCocoDataset(dir, split, damage, splits).read()
            : new GuideDataset(dir, split, damage, splits).read();
    if (samples.isEmpty()) {
      int known = split.equals(ALL) ? splits.size() : splits.getOrDefault(split, 0);
      if (known == 0) {
        throw new InputException(
            "%s: no record of split '%s'; the data set holds: %s"
                .formatted(dir, split, describe(splits)));
      }
      throw new InputException(
          "%s: no usable record in split '%s': %d left out, the first: %s"
              .formatted(dir, split, damage.skipped().size(), damage.skipped().get(0)));
    }
    return new Dataset(dir + " [" + split + "]", samples, damage.skipped());
  }

  private static String describe(Map<String, Integer> splits) {
    return splits.isEmpty()
        ? "nothing"
        : splits.entrySet().stream()
            .map(e -> e.getKey() + " (" + e.getValue() + ")")
            .collect(Collectors.joining(", "));
  }

  private static boolean isGrefCoco(Path dir) {
    if (!Files.isDirectory(dir)) {
      throw new InputException(
          dir + ": no such data folder; give one, or make one with 'deixis scenes'");
    }
    if (GrefCocoDataset.refsFile(dir) != null) {
      return true;
    }
    if (Files.isRegularFile(dir.resolve(GuideDataset.ANNOTATIONS))) {
      return false;
    }
    boolean empty;
    try (Stream<Path> entries = Files.list(dir)) {
      empty = entries.findAny().isEmpty();
    } catch (IOException e) {
      throw new InputException(dir + ": cannot be listed: " + Reason.of(e), e);
    }
    throw new InputException(
        dir
            + (empty ? ": data folder is empty" : ": no data set in this folder")
            + "; it needs grefs(unc).json with instances.json, or annotations.json");
  }

  /** Resolves a file name of an annotation, which must stay inside {@code dir}. */
  static Path inside(Path dir, String name) {
    Path path;
    try {
      path = dir.resolve(name).normalize();
    } catch (java.nio.file.InvalidPathException e) {
      throw new InputException("file name '" + name + "' is not a path", e);
    }
    if (name.isBlank() || !path.startsWith(dir.normalize()) || path.equals(dir.normalize())) {
      throw new InputException("file name '" + name + "' leads out of the data folder");
    }
    return path;
  }

  /** Folder and split, for messages and reports. */
  public String name() {
    return name;
  }

  public List<Sample> samples() {
    return samples;
  }

  /** The pictures, in the order of their first sample. */
  public List<Picture> pictures() {
    return pictures;
  }

  public int size() {
    return samples.size();
  }

  /** One line, with file, record and reason, for each record that was left out. */
  public List<String> skipped() {
    return skipped;
  }
}
