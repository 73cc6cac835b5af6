package org.deixis.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.deixis.core.InputException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class SceneMakerTest {
  @TempDir Path dir;

  /** Understands the phrases by their words alone, knowing nothing of how they were made. */
  private static final class Evaluator {
    static final Set<String> COLOURS =
        Set.of("red", "green", "blue", "yellow", "purple", "orange", "black", "cyan");
    static final Pattern RELATION = Pattern.compile("(.*) (left of|right of|above|below) (.*)");
    static final Pattern SUPERLATIVE =
        Pattern.compile("the (leftmost|rightmost|highest|lowest|biggest|smallest) (.*)");
    static final Map<String, Integer> NUMBERS = Map.of("two", 2, "three", 3, "four", 4);

    final List<SceneObject> objects;

    Evaluator(List<SceneObject> objects) {
      this.objects = objects;
    }

    List<SceneObject> evaluate(String phrase) {
      if (phrase.startsWith("everything except ")) {
        List<SceneObject> rest = new ArrayList<>(objects);
        rest.removeAll(noun(phrase.substring(18)));
        return rest;
      }
      Set<SceneObject> named = new HashSet<>();
      for (String part : phrase.split(", | and ")) {
        named.addAll(part(part));
      }
      return objects.stream().filter(named::contains).toList();
    }

    private List<SceneObject> part(String text) {
      if (text.contains(" that are not ")) {
        String[] sides = text.split(" that are not ");
        List<SceneObject> rest = new ArrayList<>(noun(sides[0]));
        rest.removeAll(noun("all " + sides[1]));
        return rest;
      }
      Matcher relation = RELATION.matcher(text);
      if (relation.matches()) {
        List<SceneObject> anchors = noun(relation.group(3));
        assertEquals(1, anchors.size(), text);
        SceneObject a = anchors.get(0);
        return noun(relation.group(1)).stream()
            .filter(o -> o != a)
            .filter(
                o ->
                    switch (relation.group(2)) {
                      case "left of" -> o.x() < a.x();
                      case "right of" -> o.x() > a.x();
                      case "above" -> o.y() < a.y();
                      default -> o.y() > a.y();
                    })
            .toList();
      }
      Matcher superlative = SUPERLATIVE.matcher(text);
      if (superlative.matches()) {
        Comparator<SceneObject> order =
            switch (superlative.group(1)) {
              case "leftmost" -> Comparator.comparing(o -> -o.x());
              case "rightmost" -> Comparator.comparing(SceneObject::x);
              case "highest" -> Comparator.comparing(o -> -o.y());
              case "lowest" -> Comparator.comparing(SceneObject::y);
              case "biggest" -> Comparator.comparing(SceneObject::radius);
              default -> Comparator.comparing(o -> -o.radius());
            };
        return noun("the " + superlative.group(2)).stream().max(order).stream().toList();
      }
      return noun(text);
    }

    private List<SceneObject> noun(String text) {
      List<SceneObject> left = new ArrayList<>(objects);
      int number = 0;
      for (String word : text.split(" ")) {
        if (COLOURS.contains(word)) {
          left.removeIf(o -> !o.colour().equals(word));
        } else if (word.equals("big") || word.equals("small")) {
          left.removeIf(o -> o.big() != word.equals("big"));
        } else if (NUMBERS.containsKey(word)) {
          number = NUMBERS.get(word);
        } else if (!Set.of("the", "all", "shape", "shapes").contains(word)) {
          String shape =
              word.endsWith("sses")
                  ? "cross"
                  : word.equals("cross") ? word : word.replaceAll("s$", "");
          assertTrue(List.of(SceneObject.SHAPES).contains(shape), text);
          left.removeIf(o -> !o.shape().equals(shape));
        }
      }
      assertTrue(number == 0 || left.isEmpty() || left.size() == number, text);
      return left;
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"simple", "full"})
  void phrasesMeanWhatTheySay(String difficulty) {
    SceneMaker.Spec spec = new SceneMaker.Spec(difficulty, 96, 400, 0, 12, 3);
    int none = 0;
    int all = 0;
    int multi = 0;
    Map<String, Integer> forms = new TreeMap<>();
    Set<String> texts = new HashSet<>();
    for (int i = 0; i < spec.trainImages(); i++) {
      Scene scene = SceneMaker.scene(spec, "train", i);
      Evaluator evaluator = new Evaluator(scene.objects());
      for (Scene.Phrase phrase : scene.phrases()) {
        List<SceneObject> named = phrase.targets().stream().map(scene.objects()::get).toList();
        assertEquals(named, evaluator.evaluate(phrase.text()), phrase + " in " + scene.objects());
        none += named.isEmpty() ? 1 : 0;
        multi += named.size() > 1 ? 1 : 0;
        all++;
        texts.add(phrase.text());
        for (String word :
            List.of(
                "all", "two", "three", "except", "and", "left", "above", "biggest", "not", ",")) {
          if (phrase.text().contains(word)) {
            forms.merge(word, 1, Integer::sum);
          }
        }
      }
    }
    assertEquals(0.25, (double) none / all, 0.025);
    assertTrue(multi > all / 5, multi + " of " + all);
    assertTrue(texts.size() > 100);
    assertEquals(difficulty.equals("full") ? 10 : 4, forms.size(), forms.toString());
  }

  @ParameterizedTest
  @ValueSource(strings = {"simple", "full"})
  void masksAreThePixelsOfTheirObjects(String difficulty) {
    Map<String, int[]> nominal = new HashMap<>();
    nominal.put("red", new int[] {220, 40, 40});
    nominal.put("green", new int[] {40, 170, 60});
    nominal.put("blue", new int[] {50, 80, 220});
    nominal.put("yellow", new int[] {240, 210, 40});
    nominal.put("purple", new int[] {140, 50, 170});
    nominal.put("orange", new int[] {240, 125, 20});
    nominal.put("black", new int[] {25, 25, 25});
    nominal.put("cyan", new int[] {60, 200, 210});
    SceneMaker.Spec spec = new SceneMaker.Spec(difficulty, 96, 100, 0, 1, 4);
    boolean simple = difficulty.equals("simple");
    for (int i = 0; i < 100; i++) {
      Scene scene = SceneMaker.scene(spec, "train", i);
      int n = scene.objects().size();
      assertTrue(simple ? n >= 2 && n <= 5 : n >= 2 && n <= 8, "objects " + n);
      int[] covered = new int[96 * 96];
      for (int k = 0; k < n; k++) {
        SceneObject o = scene.objects().get(k);
        BitMask mask = scene.masks().get(k);
        double share = o.radius() / 96;
        if (simple) {
          assertTrue(share >= 0.11 && share <= 0.21, "radius " + share);
          assertTrue(o.big() ? share >= 0.175 : share <= 0.145);
        }
        double[] mean = new double[3];
        for (int p = 0; p < covered.length; p++) {
          covered[p] += mask.data()[p];
          for (int c = 0; c < 3; c++) {
            mean[c] += mask.data()[p] * (scene.image().data()[3 * p + c] & 0xff);
          }
        }
        for (int c = 0; c < 3; c++) {
          assertEquals(nominal.get(o.colour())[c], mean[c] / mask.area(), 35, o.toString());
        }
        // Areas for a half width of 1, by geometry; up to a quarter may be covered, and pixels are
        // whole.
        double unit =
            switch (o.shape()) {
              case "circle" -> Math.PI;
              case "square" -> 4;
              case "triangle", "diamond" -> 2;
              case "cross" -> 8 * 0.36 - 4 * 0.36 * 0.36;
              case "star" -> 5 * 0.43 * Math.sin(Math.PI / 5);
              default -> throw new AssertionError(o.shape());
            };
        double whole = unit * o.radius() * o.radius();
        assertTrue(mask.area() > 0.65 * whole && mask.area() < 1.25 * whole, o + " " + mask);
        Box box = mask.boundingBox();
        assertTrue(box.x() + box.width() / 2.0 - o.x() < o.radius(), o.toString());
      }
      assertTrue(Arrays.stream(covered).allMatch(c -> c <= 1), "masks overlap");
    }
  }

  private static Map<String, byte[]> files(Path dir) throws Exception {
    Map<String, byte[]> files = new TreeMap<>();
    try (Stream<Path> tree = Files.walk(dir)) {
      for (Path file : (Iterable<Path>) tree.filter(Files::isRegularFile)::iterator) {
        files.put(dir.relativize(file).toString(), Files.readAllBytes(file));
      }
    }
    return files;
  }

  @Test
  void theSameSeedGivesTheSameBytes() throws Exception {
    SceneMaker.Spec spec = new SceneMaker.Spec("simple", 64, 5, 3, 4, 77);
    SceneMaker.write(dir.resolve("a"), spec);
    Files.createDirectory(dir.resolve("b"));
    SceneMaker.write(dir.resolve("b"), spec);
    SceneMaker.write(dir.resolve("c"), new SceneMaker.Spec("simple", 64, 5, 3, 4, 78));
    Map<String, byte[]> a = files(dir.resolve("a"));
    Map<String, byte[]> b = files(dir.resolve("b"));
    Map<String, byte[]> c = files(dir.resolve("c"));
    assertEquals(8 + 3, a.size());
    assertEquals(a.keySet(), b.keySet());
    for (String name : a.keySet()) {
      assertArrayEquals(a.get(name), b.get(name), name);
      boolean fixed = name.equals("tokenizer.json");
      assertEquals(fixed, Arrays.equals(a.get(name), c.get(name)), name);
    }
    try (Stream<Path> left = Files.list(dir)) {
      assertEquals(3, left.count(), "something temporary was left");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"simple", "full"})
  void onDiskAndInMemoryTheyAreTheSame(String difficulty) {
    SceneMaker.Spec spec = new SceneMaker.Spec(difficulty, 64, 6, 4, 10, 5);
    Path folder = dir.resolve(difficulty);
    SceneMaker.write(folder, spec);
    assertTrue(DataCheck.run(folder).ok(), DataCheck.run(folder).text());
    assertEquals(2, DataCheck.run(folder).splits().size());
    try (TextTokenizer tokenizer = TextTokenizer.load(folder)) {
      for (String split : List.of("train", "val")) {
        Dataset disk = Dataset.open(folder, split, false);
        Dataset memory = SceneMaker.dataset(spec, split);
        assertEquals(spec.images(split) * 10, disk.size());
        assertEquals(disk.size(), memory.size());
        for (int i = 0; i < disk.size(); i++) {
          Sample d = disk.samples().get(i);
          Sample m = memory.samples().get(i);
          assertEquals(d.phrase(), m.phrase());
          assertEquals(d.refId(), m.refId());
          assertEquals(d.imageId(), m.imageId());
          assertEquals(d.kind(), m.kind());
          assertEquals(d.mask(), m.mask());
          assertEquals(d.picture().read(), m.picture().read());
          int[] ids = tokenizer.encode(d.phrase(), 64);
          assertFalse(Arrays.stream(ids).anyMatch(id -> id == 1), "unknown word in " + d.phrase());
        }
        Scene scene = SceneMaker.scene(spec, split, 1);
        assertEquals(scene.image(), disk.pictures().get(1).read());
        assertEquals(scene.mask(scene.phrases().get(0)), disk.samples().get(10).mask());
      }
    }
    assertNotEquals(
        SceneMaker.scene(spec, "train", 0).image(), SceneMaker.scene(spec, "val", 0).image());
  }

  @Test
  void nothingIsOverwritten() throws Exception {
    SceneMaker.Spec spec = new SceneMaker.Spec("simple", 64, 1, 1, 1, 1);
    Path mine = Files.writeString(dir.resolve("mine"), "x");
    assertThrows(InputException.class, () -> SceneMaker.write(dir, spec));
    assertThrows(InputException.class, () -> SceneMaker.write(mine, spec));
    assertEquals("x", Files.readString(mine));
    assertThrows(InputException.class, () -> new SceneMaker.Spec("hard", 64, 1, 1, 1, 1));
    assertThrows(InputException.class, () -> new SceneMaker.Spec("full", 8, 1, 1, 1, 1));
    assertThrows(InputException.class, () -> SceneMaker.scene(spec, "test", 0));
  }
}
