package org.deixis.data;

import com.fasterxml.jackson.core.JsonEncoding;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;
import org.deixis.core.AtomicWrite;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/** Writes drawn scenes in gRefCOCO's layout. */
final class SceneWriter {
  private final SceneMaker.Spec spec;
  private long nextAnnotation = 1;
  private long nextRef;

  SceneWriter(SceneMaker.Spec spec) {
    this.spec = spec;
  }

  void write(Path dir) {
    Path target = dir.toAbsolutePath().normalize();
    Path temporary = null;
    try {
      if (Files.exists(target)) {
        requireEmpty(target);
      }
      Files.createDirectories(target.getParent());
      temporary = AtomicWrite.temporaryFor(target);
      Files.createDirectory(temporary);
      writeFiles(temporary);
      Files.deleteIfExists(target);
      Files.move(temporary, target);
    } catch (IOException e) {
      throw new InputException(dir + ": scenes cannot be written: " + Reason.of(e), e);
    } finally {
      deleteTree(temporary);
    }
  }

  private static void requireEmpty(Path dir) throws IOException {
    if (Files.isDirectory(dir)) {
      try (Stream<Path> entries = Files.list(dir)) {
        if (entries.findAny().isEmpty()) {
          return;
        }
      }
    }
    throw new InputException(
        dir + ": is there already and not an empty folder; name another or remove it");
  }

  private static void deleteTree(Path dir) {
    if (dir == null || !Files.exists(dir)) {
      return;
    }
    try (Stream<Path> tree = Files.walk(dir)) {
      for (Path path : (Iterable<Path>) tree.sorted(Comparator.reverseOrder())::iterator) {
        Files.delete(path);
      }
    } catch (IOException e) {
      throw new InputException(dir + ": unfinished scenes cannot be removed; remove them", e);
    }
  }

  private void writeFiles(Path dir) throws IOException {
    Files.createDirectories(dir.resolve("images"));
    JsonFactory factory = new JsonFactory();
    // Images come before annotations in instances.json, so these go to their own file first.
    Path annotations = dir.resolve("annotations.part");
    try (JsonGenerator refs = generator(factory, dir.resolve("grefs(unc).json"));
        JsonGenerator instances = generator(factory, annotations)) {
      refs.writeStartArray();
      instances.writeStartArray();
      for (String split : List.of(SceneMaker.TRAIN, SceneMaker.VAL)) {
        for (int i = 0; i < spec.images(split); i++) {
          scene(dir, split, i, refs, instances);
        }
      }
      instances.writeEndArray();
      refs.writeEndArray();
    }
    try (JsonGenerator json = generator(factory, dir.resolve("instances.json"))) {
      json.writeStartObject();
      info(json);
      images(json);
      json.writeArrayFieldStart("categories");
      for (int c = 0; c < SceneObject.SHAPES.length; c++) {
        json.writeStartObject();
        json.writeNumberField("id", c + 1);
        json.writeStringField("name", SceneObject.SHAPES[c]);
        json.writeEndObject();
      }
      json.writeEndArray();
      json.writeFieldName("annotations");
      try (var parser = factory.createParser(annotations.toFile())) {
        parser.nextToken();
        json.copyCurrentStructure(parser);
      }
      json.writeEndObject();
    }
    Files.delete(annotations);
    Files.write(dir.resolve("tokenizer.json"), SceneMaker.tokenizerJson(spec.difficulty()));
  }

  private static JsonGenerator generator(JsonFactory factory, Path file) throws IOException {
    return factory.createGenerator(file.toFile(), JsonEncoding.UTF8);
  }

  private void info(JsonGenerator json) throws IOException {
    json.writeObjectFieldStart("info");
    json.writeStringField("description", "drawn scenes");
    json.writeStringField("difficulty", spec.difficulty());
    json.writeNumberField("image_size", spec.imageSize());
    json.writeNumberField("train_images", spec.trainImages());
    json.writeNumberField("val_images", spec.valImages());
    json.writeNumberField("expressions_per_image", spec.expressionsPerImage());
    json.writeNumberField("seed", spec.seed());
    json.writeEndObject();
  }

  private void images(JsonGenerator json) throws IOException {
    json.writeArrayFieldStart("images");
    for (String split : List.of(SceneMaker.TRAIN, SceneMaker.VAL)) {
      for (int i = 0; i < spec.images(split); i++) {
        json.writeStartObject();
        json.writeNumberField("id", SceneMaker.imageId(spec, split, i));
        json.writeStringField("file_name", SceneMaker.fileName(split, i));
        json.writeNumberField("height", spec.imageSize());
        json.writeNumberField("width", spec.imageSize());
        json.writeEndObject();
      }
    }
    json.writeEndArray();
  }

  private void scene(
      Path dir, String split, int index, JsonGenerator refs, JsonGenerator annotations)
      throws IOException {
    Scene scene = SceneMaker.scene(spec, split, index);
    String fileName = SceneMaker.fileName(split, index);
    long imageId = SceneMaker.imageId(spec, split, index);
    Files.write(dir.resolve("images").resolve(fileName), Images.encodePng(scene.image()));
    long first = nextAnnotation;
    for (int i = 0; i < scene.objects().size(); i++) {
      annotation(imageId, scene.objects().get(i), scene.masks().get(i), annotations);
    }
    for (Scene.Phrase phrase : scene.phrases()) {
      ref(split, fileName, imageId, first, scene, phrase, refs);
    }
  }

  private void annotation(long imageId, SceneObject object, BitMask mask, JsonGenerator json)
      throws IOException {
    Box box = mask.boundingBox();
    json.writeStartObject();
    json.writeNumberField("id", nextAnnotation++);
    json.writeNumberField("image_id", imageId);
    json.writeNumberField("category_id", category(object));
    json.writeNumberField("iscrowd", 0);
    json.writeNumberField("area", mask.area());
    json.writeFieldName("bbox");
    json.writeArray(new int[] {box.x(), box.y(), box.width(), box.height()}, 0, 4);
    json.writeObjectFieldStart("segmentation");
    json.writeFieldName("size");
    json.writeArray(new int[] {mask.height(), mask.width()}, 0, 2);
    json.writeStringField("counts", Rle.encode(mask).compressed());
    json.writeEndObject();
    json.writeEndObject();
  }

  private void ref(
      String split,
      String fileName,
      long imageId,
      long firstAnnotation,
      Scene scene,
      Scene.Phrase phrase,
      JsonGenerator json)
      throws IOException {
    long id = nextRef++;
    boolean none = phrase.targets().isEmpty();
    json.writeStartObject();
    json.writeNumberField("ref_id", id);
    json.writeNumberField("image_id", imageId);
    json.writeStringField("file_name", fileName);
    json.writeStringField("split", split);
    json.writeBooleanField("no_target", none);
    long[] annotations = none ? new long[] {-1} : targets(phrase, i -> firstAnnotation + i);
    long[] categories =
        none ? new long[] {-1} : targets(phrase, i -> category(scene.objects().get(i)));
    json.writeFieldName("ann_id");
    json.writeArray(annotations, 0, annotations.length);
    json.writeFieldName("category_id");
    json.writeArray(categories, 0, categories.length);
    json.writeFieldName("sent_ids");
    json.writeArray(new long[] {id}, 0, 1);
    json.writeArrayFieldStart("sentences");
    json.writeStartObject();
    json.writeNumberField("sent_id", id);
    json.writeStringField("raw", phrase.text());
    json.writeStringField("sent", phrase.text());
    String[] tokens = phrase.text().replace(",", " ,").split(" ");
    json.writeFieldName("tokens");
    json.writeArray(tokens, 0, tokens.length);
    json.writeEndObject();
    json.writeEndArray();
    json.writeEndObject();
  }

  private static long[] targets(Scene.Phrase phrase, java.util.function.IntToLongFunction f) {
    return phrase.targets().stream().mapToInt(i -> i).mapToLong(f).toArray();
  }

  private static int category(SceneObject object) {
    return List.of(SceneObject.SHAPES).indexOf(object.shape()) + 1;
  }
}
