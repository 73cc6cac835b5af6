package org.deixis.data;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import org.deixis.core.InputException;

/**
 * Reads the guide's layout: {@code annotations.json}, a list of
 *
 * <pre>
 * {"image": "a.jpg", "expression": "the two cats", "mask": "a_0.npy", "is_negative": false}
 * </pre>
 *
 * with pictures in {@code images/} and masks in {@code masks/} (names relative to those folders or
 * to the data folder). {@code mask} may be a list of files, one per object; it may be absent or
 * null where {@code is_negative} is true, and must be all zeros there otherwise. Optional: {@code
 * split} ({@code train} where absent), {@code ref_id} (the record's position where absent).
 */
final class GuideDataset {
  static final String ANNOTATIONS = "annotations.json";
  private static final String DEFAULT_SPLIT = "train";

  private final Path dir;
  private final Path file;
  private final String split;
  private final Damage damage;
  private final Map<String, Integer> splits;
  private final Map<Path, Picture> pictures = new HashMap<>();
  private final List<Sample> samples = new ArrayList<>();

  /**
   * @param splits filled with the number of records of each split in the file
   */
  GuideDataset(Path dir, String split, Damage damage, Map<String, Integer> splits) {
    this.dir = dir;
    this.file = dir.resolve(ANNOTATIONS);
    this.split = split;
    this.damage = damage;
    this.splits = splits;
  }

  List<Sample> read() {
    JsonFile.array(
        file,
        (i, node) -> {
          String where = file + ": record " + i;
          String name = node.path("split").asText(DEFAULT_SPLIT);
          splits.merge(name, 1, Integer::sum);
          if (split.equals(Dataset.ALL) || split.equals(name)) {
            try {
              samples.add(sample(i, node, name, where));
            } catch (InputException e) {
              damage.report(where, e.getMessage());
            }
          }
        });
    return samples;
  }

  private Sample sample(int index, JsonNode node, String name, String where) {
    String phrase = node.path("expression").asText("");
    if (phrase.isBlank()) {
      throw new InputException("empty phrase; give it words or remove the record");
    }
    JsonNode negative = node.path("is_negative");
    if (!negative.isBoolean() && !(negative.isInt() && (negative.asInt() & ~1) == 0)) {
      throw new InputException("is_negative is not true or false");
    }
    boolean none = negative.asBoolean();
    Picture picture = picture(node.path("image").asText(""));
    List<Path> masks = new ArrayList<>();
    JsonNode mask = node.path("mask");
    if (mask.isTextual()) {
      masks.add(find("masks", mask.asText()));
    } else if (mask.isArray()) {
      mask.forEach(m -> masks.add(find("masks", m.asText(""))));
    } else if (!mask.isMissingNode() && !mask.isNull()) {
      throw new InputException("mask is not a file name");
    }
    if (masks.isEmpty() && !none) {
      throw new InputException("has a target but no mask");
    }
    List<Supplier<BitMask>> instances = new ArrayList<>();
    for (Path path : masks) {
      int[] size = NpyMask.size(path);
      if (size[0] != picture.height() || size[1] != picture.width()) {
        throw new InputException(
            "%s: mask is %dx%d, its picture %dx%d"
                .formatted(path, size[1], size[0], picture.width(), picture.height()));
      }
      if (none) {
        if (NpyMask.read(path).area() > 0) {
          throw new InputException("no target, yet it has a mask: " + path);
        }
      } else {
        if (damage.skipBad()) {
          NpyMask.read(path); // a file cut off is found now rather than in the middle of a run
        }
        instances.add(() -> NpyMask.read(path));
      }
    }
    long refId = node.path("ref_id").asLong(index);
    return new Sample(picture, phrase, refId, name, where, instances);
  }

  private Picture picture(String name) {
    Path path = find("images", name);
    Picture picture = pictures.get(path);
    if (picture == null) {
      ImageHeader header = damage.skipBad() ? Images.verify(path) : ImageHeader.read(path);
      picture = Picture.ofFile(path, pictures.size(), header.height(), header.width());
      pictures.put(path, picture);
    }
    return picture;
  }

  private Path find(String folder, String name) {
    Path inFolder = Dataset.inside(dir.resolve(folder), name);
    if (Files.isRegularFile(inFolder)) {
      return inFolder;
    }
    Path inDir = Dataset.inside(dir, name);
    if (Files.isRegularFile(inDir)) {
      return inDir;
    }
    throw new InputException(
        "%s is neither in %s nor in %s".formatted(name, dir.resolve(folder), dir));
  }
}
