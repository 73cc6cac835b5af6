package org.deixis.data;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Supplier;
import org.deixis.core.InputException;

/**
 * Reads gRefCOCO as published (Liu et al., "GRES: Generalized Referring Expression Segmentation",
 * CVPR 2023): {@code grefs(unc).json} or {@code grefs.json}, a list of {@code {ref_id, image_id,
 * split, ann_id: [...], no_target, sentences: [{sent, raw}]}} where {@code ann_id: [-1]} means that
 * nothing is meant; {@code instances.json} in COCO's layout, with polygons and compressed or
 * uncompressed run-length codes; and the COCO pictures in {@code images/}, {@code train2014/},
 * {@code images/train2014/} or beside the files. Each sentence is a sample.
 */
final class GrefCocoDataset {
  private static final String[] REFS = {"grefs(unc).json", "grefs.json"};
  private static final String[] FOLDERS = {
    "images", "train2014", "images/train2014", "images/mscoco/images/train2014", "."
  };

  private record Ref(
      String where, long refId, long imageId, String split, long[] annIds, List<String> phrases) {}

  private record Image(String fileName, int height, int width) {}

  private record Annotation(long imageId, JsonNode segmentation) {}

  private final Path dir;
  private final Path refsFile;
  private final Path instancesFile;
  private final String split;
  private final Damage damage;
  private final Map<String, Integer> splits;
  private final Map<Long, Image> images = new HashMap<>();
  private final Map<Long, Annotation> annotations = new HashMap<>();
  private final Map<Long, Picture> pictures = new HashMap<>();
  private final Map<Long, String> badPictures = new HashMap<>();
  private final Map<Long, Supplier<BitMask>> masks = new HashMap<>();
  private List<Path> folders;

  /**
   * @param splits filled with the number of references of each split in the file
   */
  GrefCocoDataset(Path dir, String split, Damage damage, Map<String, Integer> splits) {
    this.dir = dir;
    this.refsFile = refsFile(dir);
    this.instancesFile = dir.resolve("instances.json");
    this.split = split;
    this.damage = damage;
    this.splits = splits;
  }

  /** The file of references in a folder, or null. */
  static Path refsFile(Path dir) {
    for (String name : REFS) {
      if (Files.isRegularFile(dir.resolve(name))) {
        return dir.resolve(name);
      }
    }
    return null;
  }

  List<Sample> read() {
    folders = new ArrayList<>();
    for (String folder : FOLDERS) {
      if (Files.isDirectory(dir.resolve(folder))) {
        folders.add(dir.resolve(folder));
      }
    }
    List<Ref> refs = new ArrayList<>();
    JsonFile.array(refsFile, (i, node) -> ref(i, node, refs));
    readInstances(refs);
    List<Sample> samples = new ArrayList<>();
    for (Ref ref : refs) {
      try {
        samples.addAll(resolve(ref));
      } catch (InputException e) {
        damage.report(ref.where, e.getMessage());
      }
    }
    return samples;
  }

  private void ref(int index, JsonNode node, List<Ref> refs) {
    String where = refsFile + ": record " + index;
    String name = node.path("split").asText("");
    List<Integer> empty = new ArrayList<>();
    try {
      if (name.isEmpty()) {
        throw new InputException("has no split");
      }
      splits.merge(name, 1, Integer::sum);
      if (!split.equals(Dataset.ALL) && !split.equals(name)) {
        return;
      }
      long refId = whole(node, "ref_id");
      where += " (ref_id " + refId + ")";
      refs.add(
          new Ref(where, refId, whole(node, "image_id"), name, annIds(node), phrases(node, empty)));
    } catch (InputException e) {
      damage.report(where, e.getMessage());
    }
    // The record's other sentences are as good as ever.
    for (int sentence : empty) {
      damage.report(where + ": sentence " + sentence, "empty phrase; give it words or remove it");
    }
  }

  /** The annotation ids; none where the record says that nothing is meant. */
  private static long[] annIds(JsonNode node) {
    JsonNode list = node.path("ann_id");
    if (!list.isArray() || list.isEmpty()) {
      throw new InputException("ann_id is not a list of ids; [-1] stands for no target");
    }
    long[] ids = new long[list.size()];
    boolean none = false;
    Set<Long> seen = new HashSet<>();
    for (int i = 0; i < ids.length; i++) {
      if (!list.get(i).isIntegralNumber()) {
        throw new InputException("ann_id holds " + list.get(i) + ", which is not an id");
      }
      ids[i] = list.get(i).asLong();
      none |= ids[i] == -1;
      if (!seen.add(ids[i])) {
        throw new InputException("ann_id names " + ids[i] + " twice");
      }
    }
    JsonNode flag = node.path("no_target");
    boolean saysNone = flag.isMissingNode() || flag.isNull() ? none : flag.asBoolean();
    if (saysNone && !(none && ids.length == 1) || none && ids.length > 1) {
      throw new InputException("no target, yet it has a mask: ann_id " + list);
    }
    if (none && !saysNone) {
      throw new InputException("ann_id is [-1], yet no_target is false");
    }
    return none ? new long[0] : ids;
  }

  /**
   * @param empty takes the positions of sentences without a word
   */
  private static List<String> phrases(JsonNode node, List<Integer> empty) {
    JsonNode sentences = node.path("sentences");
    if (!sentences.isArray() || sentences.isEmpty()) {
      throw new InputException("has no sentences");
    }
    List<String> phrases = new ArrayList<>();
    for (int i = 0; i < sentences.size(); i++) {
      JsonNode sentence = sentences.get(i);
      String phrase = sentence.path("sent").asText("");
      if (phrase.isBlank()) {
        phrase = sentence.path("raw").asText("");
      }
      if (phrase.isBlank()) {
        empty.add(i);
      } else {
        phrases.add(phrase);
      }
    }
    return phrases;
  }

  /** Keeps what the references need of a file that holds far more. */
  private void readInstances(List<Ref> refs) {
    Set<Long> wantedImages = new HashSet<>();
    Set<Long> wantedAnnotations = new HashSet<>();
    for (Ref ref : refs) {
      wantedImages.add(ref.imageId);
      for (long id : ref.annIds) {
        wantedAnnotations.add(id);
      }
    }
    JsonFile.object(
        instancesFile,
        Map.of(
            "images",
            (i, node) -> {
              long id = node.path("id").asLong(Long.MIN_VALUE);
              if (wantedImages.contains(id)) {
                image(i, id, node);
              }
            },
            "annotations",
            (i, node) -> {
              long id = node.path("id").asLong(Long.MIN_VALUE);
              if (wantedAnnotations.contains(id)) {
                annotation(i, id, node);
              }
            }));
  }

  private void image(int index, long id, JsonNode node) {
    long height = node.path("height").asLong();
    long width = node.path("width").asLong();
    String where = "%s: image %d (id %d)".formatted(instancesFile, index, id);
    if (height < 1 || width < 1 || height > 1 << 20 || width > 1 << 20) {
      damage.report(where, "has the size %dx%d".formatted(width, height));
    } else if (images.put(
            id, new Image(node.path("file_name").asText(""), (int) height, (int) width))
        != null) {
      damage.report(where, "the id occurs twice");
    }
  }

  private void annotation(int index, long id, JsonNode node) {
    long imageId = node.path("image_id").asLong(Long.MIN_VALUE);
    if (annotations.put(id, new Annotation(imageId, node.path("segmentation"))) != null) {
      damage.report(
          "%s: annotation %d (id %d)".formatted(instancesFile, index, id), "the id occurs twice");
    }
  }

  private List<Sample> resolve(Ref ref) {
    Picture picture = picture(ref.imageId);
    List<Supplier<BitMask>> instances = new ArrayList<>();
    for (long id : ref.annIds) {
      Annotation annotation = annotations.get(id);
      if (annotation == null) {
        throw new InputException(
            "annotation id %d does not exist in %s".formatted(id, instancesFile.getFileName()));
      }
      if (annotation.imageId != ref.imageId) {
        throw new InputException(
            "annotation id %d belongs to image %d, not %d"
                .formatted(id, annotation.imageId, ref.imageId));
      }
      Supplier<BitMask> mask = masks.get(id);
      if (mask == null) {
        try {
          mask = mask(annotation.segmentation, picture.height(), picture.width());
        } catch (InputException e) {
          throw new InputException("annotation id " + id + ": " + e.getMessage(), e);
        }
        masks.put(id, mask);
      }
      instances.add(mask);
    }
    List<Sample> samples = new ArrayList<>();
    for (String phrase : ref.phrases) {
      samples.add(new Sample(picture, phrase, ref.refId, ref.split, ref.where, instances));
    }
    return samples;
  }

  private Picture picture(long id) {
    Picture picture = pictures.get(id);
    if (picture != null) {
      return picture;
    }
    String bad = badPictures.get(id);
    if (bad == null) {
      try {
        picture = findPicture(id);
        pictures.put(id, picture);
        return picture;
      } catch (InputException e) {
        bad = e.getMessage();
        badPictures.put(id, bad);
      }
    }
    throw new InputException(bad);
  }

  private Picture findPicture(long id) {
    Image image = images.get(id);
    if (image == null) {
      throw new InputException(
          "image id %d does not exist in %s".formatted(id, instancesFile.getFileName()));
    }
    for (Path folder : folders) {
      Path file = Dataset.inside(folder, image.fileName);
      if (Files.isRegularFile(file)) {
        ImageHeader header = damage.skipBad() ? Images.verify(file) : ImageHeader.read(file);
        if (header.height() != image.height || header.width() != image.width) {
          throw new InputException(
              "%s: picture is %dx%d, %s says %dx%d"
                  .formatted(
                      file,
                      header.width(),
                      header.height(),
                      instancesFile.getFileName(),
                      image.width,
                      image.height));
        }
        return Picture.ofFile(file, id, image.height, image.width);
      }
    }
    throw new InputException(
        "picture %s is not in any of %s of %s"
            .formatted(image.fileName, String.join(", ", FOLDERS), dir));
  }

  /** A source of the mask, checked as far as that needs no decoding. */
  private static Supplier<BitMask> mask(JsonNode segmentation, int height, int width) {
    if (segmentation.isArray() && !segmentation.isEmpty()) {
      List<double[]> polygons = new ArrayList<>();
      for (JsonNode list : segmentation) {
        double[] polygon = new double[list.size()];
        for (int i = 0; i < polygon.length; i++) {
          polygon[i] = list.get(i).isNumber() ? list.get(i).asDouble() : Double.NaN;
        }
        Polygons.check(polygon);
        polygons.add(polygon);
      }
      return () -> Polygons.rasterise(height, width, polygons);
    }
    JsonNode size = segmentation.path("size");
    JsonNode counts = segmentation.path("counts");
    if (!size.isArray() || size.size() != 2 || !(counts.isTextual() || counts.isArray())) {
      throw new InputException("segmentation is neither polygons nor a run-length code");
    }
    if (size.get(0).asLong() != height || size.get(1).asLong() != width) {
      throw new InputException(
          "mask is %dx%d, its picture %dx%d"
              .formatted(size.get(1).asLong(), size.get(0).asLong(), width, height));
    }
    Rle rle;
    if (counts.isTextual()) {
      rle = Rle.parse(height, width, counts.asText());
    } else {
      int[] runs = new int[counts.size()];
      for (int i = 0; i < runs.length; i++) {
        runs[i] = counts.get(i).canConvertToInt() ? counts.get(i).asInt() : -1;
      }
      rle = Rle.of(height, width, runs);
    }
    return rle::decode;
  }

  private static long whole(JsonNode node, String field) {
    JsonNode value = node.path(field);
    if (!value.isIntegralNumber()) {
      throw new InputException("has no whole number as " + field);
    }
    return value.asLong();
  }
}
