package org.deixis.data;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;
import org.deixis.core.InputException;
import org.deixis.core.Rng;

/**
 * Draws scenes of coloured shapes with phrases about them: data sets with no download. A scene is a
 * pure function of the specification, the split and its index.
 */
public final class SceneMaker {
  public static final String SIMPLE = "simple";
  public static final String FULL = "full";
  public static final String TRAIN = "train";
  public static final String VAL = "val";

  private static final int MIN_SIDE = 32;
  private static final int MAX_SIDE = 2048;
  private static final int MAX_IMAGES = 10_000_000;
  private static final int MAX_EXPRESSIONS = 64;

  /** Streams of one seed: layout, paint and phrases of each picture, apart for each split. */
  private static final int STREAMS = 4;

  /**
   * A set of scenes.
   *
   * @param difficulty {@code simple}: 2 to 5 circles, squares and triangles in four colours,
   *     phrases of attributes, pairs, "all", "the two" and "everything except"; {@code full}: 3 to
   *     8 of six shapes in eight colours, also counting, relational, superlative, negated and
   *     compound phrases. In both about a quarter of the phrases have no target.
   * @param imageSize side of the square pictures in pixels
   * @param expressionsPerImage phrases about each picture
   */
  public record Spec(
      String difficulty,
      int imageSize,
      int trainImages,
      int valImages,
      int expressionsPerImage,
      long seed) {
    public Spec {
      if (!SIMPLE.equals(difficulty) && !FULL.equals(difficulty)) {
        throw new InputException(
            "scenes: difficulty '" + difficulty + "' is unknown; give 'simple' or 'full'");
      }
      require("image size", imageSize, MIN_SIDE, MAX_SIDE);
      require("train images", trainImages, 0, MAX_IMAGES);
      require("val images", valImages, 0, MAX_IMAGES);
      require("expressions per image", expressionsPerImage, 1, MAX_EXPRESSIONS);
    }

    private static void require(String name, int value, int low, int high) {
      if (value < low || value > high) {
        throw new InputException(
            "scenes: %s is %d; give a number from %d to %d".formatted(name, value, low, high));
      }
    }

    boolean simple() {
      return difficulty.equals(SIMPLE);
    }

    /** Number of pictures of {@code train} or {@code val}. */
    public int images(String split) {
      return splitIndex(split) == 0 ? trainImages : valImages;
    }
  }

  private SceneMaker() {}

  /** Draws one scene. */
  public static Scene scene(Spec spec, String split, int index) {
    SceneLayout layout = layout(spec, split, index);
    List<Scene.Phrase> phrases = phrases(spec, split, index, layout);
    return new Scene(paint(spec, split, index, layout), layout.objects, layout.masks(), phrases);
  }

  /**
   * The scenes of a split as a data set that never touches the disk. Pictures are drawn when they
   * are read; masks are kept as run-length codes.
   */
  public static Dataset dataset(Spec spec, String split) {
    List<Sample> samples = new ArrayList<>();
    String name = "%s scenes, seed %d [%s]".formatted(spec.difficulty, spec.seed, split);
    for (int i = 0; i < spec.images(split); i++) {
      int index = i;
      SceneLayout layout = layout(spec, split, index);
      Picture picture =
          new Picture(
              Path.of(fileName(split, index)),
              imageId(spec, split, index),
              spec.imageSize,
              spec.imageSize,
              () -> paint(spec, split, index, layout(spec, split, index)));
      List<Supplier<BitMask>> masks = new ArrayList<>();
      for (BitMask mask : layout.masks()) {
        Rle rle = Rle.encode(mask);
        masks.add(rle::decode);
      }
      List<Scene.Phrase> phrases = phrases(spec, split, index, layout);
      for (int p = 0; p < phrases.size(); p++) {
        long refId = picture.id() * spec.expressionsPerImage + p;
        samples.add(
            new Sample(
                picture,
                phrases.get(p).text(),
                refId,
                split,
                name + ": picture " + index,
                phrases.get(p).targets().stream().map(masks::get).toList()));
      }
    }
    return new Dataset(name, samples, List.of());
  }

  /** The tokenizer of a difficulty's phrases: one token a word. */
  public static TextTokenizer tokenizer(String difficulty) {
    return TextTokenizer.ofJson(tokenizerJson(difficulty));
  }

  static byte[] tokenizerJson(String difficulty) {
    return TokenizerJson.ofWords(SceneGrammar.words(SIMPLE.equals(difficulty)));
  }

  /**
   * Writes both splits into {@code dir} in gRefCOCO's layout: {@code images/*.png}, {@code
   * grefs(unc).json}, {@code instances.json} with run-length codes of the visible pixels, and
   * {@code tokenizer.json}. The folder appears whole or not at all; the same specification gives
   * the same bytes.
   *
   * @throws InputException when {@code dir} exists and is not an empty folder, or cannot be written
   */
  public static void write(Path dir, Spec spec) {
    new SceneWriter(spec).write(dir);
  }

  static String fileName(String split, int index) {
    return "scene_%s_%06d.png".formatted(split, index);
  }

  static long imageId(Spec spec, String split, int index) {
    return splitIndex(split) == 0 ? index : (long) spec.trainImages + index;
  }

  private static int splitIndex(String split) {
    return switch (split) {
      case TRAIN -> 0;
      case VAL -> 1;
      default ->
          throw new InputException("scenes: no split '" + split + "'; there are train and val");
    };
  }

  private static Rng rng(Spec spec, String split, int index, int use) {
    long picture = (long) splitIndex(split) << 40 | index;
    return new Rng(spec.seed, picture * STREAMS + use);
  }

  private static SceneLayout layout(Spec spec, String split, int index) {
    return SceneLayout.draw(spec.simple(), spec.imageSize, rng(spec, split, index, 0));
  }

  private static RgbImage paint(Spec spec, String split, int index, SceneLayout layout) {
    return layout.paint(rng(spec, split, index, 1));
  }

  private static List<Scene.Phrase> phrases(
      Spec spec, String split, int index, SceneLayout layout) {
    return SceneGrammar.phrases(
        spec.simple(),
        layout.objects,
        spec.imageSize,
        spec.expressionsPerImage,
        rng(spec, split, index, 2));
  }
}
