package org.deixis.data;

import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.function.ToDoubleFunction;
import org.deixis.core.Rng;

/**
 * Makes true phrases about a scene. A noun phrase of size, colour and shape denotes every object
 * that fits it, whether it is said with "the" or "all"; phrases without a target denote none by the
 * same rule. Comparisons are said only where they are clear: sides and places differ by a margin,
 * sizes by a ratio.
 */
final class SceneGrammar {
  private static final double NO_TARGET = 0.25;
  private static final int ATTEMPTS = 300;
  private static final double SIDE_MARGIN = 0.06;
  private static final double SIZE_RATIO = 1.1;
  private static final String[] NUMBERS = {"", "", "two", "three", "four"};

  private static final String[] SIMPLE_WORDS = {
    "the",
    "all",
    "two",
    "everything",
    "except",
    "and",
    "big",
    "small",
    "red",
    "green",
    "blue",
    "yellow",
    "circle",
    "circles",
    "square",
    "squares",
    "triangle",
    "triangles",
    "shape",
    "shapes"
  };
  private static final String[] FULL_WORDS = {
    "three", "four", "purple", "orange", "black", "cyan", "diamond", "diamonds", "star", "stars",
    "cross", "crosses", "left", "right", "of", "above", "below", "leftmost", "rightmost", "highest",
    "lowest", "biggest", "smallest", "that", "are", "not", ","
  };

  /** A description by attributes; null leaves an attribute open. */
  private record Noun(Boolean big, String colour, String shape) {
    boolean fits(SceneObject o) {
      return (big == null || big == o.big())
          && (colour == null || colour.equals(o.colour()))
          && (shape == null || shape.equals(o.shape()));
    }

    String text(boolean plural) {
      String noun = shape == null ? "shape" : shape;
      return (big == null ? "" : big ? "big " : "small ")
          + (colour == null ? "" : colour + " ")
          + (plural ? noun + (noun.endsWith("s") ? "es" : "s") : noun);
    }
  }

  private final boolean simple;
  private final List<SceneObject> objects;
  private final double size;
  private final Rng rng;

  private SceneGrammar(boolean simple, List<SceneObject> objects, int size, Rng rng) {
    this.simple = simple;
    this.objects = objects;
    this.size = size;
    this.rng = rng;
  }

  /** Every word of the phrases of a difficulty. */
  static List<String> words(boolean simple) {
    List<String> words = new ArrayList<>(List.of(SIMPLE_WORDS));
    if (!simple) {
      words.addAll(List.of(FULL_WORDS));
    }
    return words;
  }

  /** {@code n} phrases, about a quarter without a target, no text twice while others are found. */
  static List<Scene.Phrase> phrases(
      boolean simple, List<SceneObject> objects, int size, int n, Rng rng) {
    SceneGrammar grammar = new SceneGrammar(simple, objects, size, rng);
    List<Scene.Phrase> phrases = new ArrayList<>();
    Set<String> texts = new HashSet<>();
    while (phrases.size() < n) {
      boolean none = rng.nextBoolean(NO_TARGET);
      for (int attempt = 0; ; attempt++) {
        Scene.Phrase phrase = grammar.attempt();
        if (phrase != null
            && phrase.targets().isEmpty() == none
            && (texts.add(phrase.text()) || attempt > ATTEMPTS)) {
          phrases.add(phrase);
          break;
        }
      }
    }
    return phrases;
  }

  /** A phrase of a random form, with or without a target, or null where it would not be apt. */
  private Scene.Phrase attempt() {
    int form = rng.nextInt(100);
    if (simple || form < 40) {
      int kind = rng.nextInt(100);
      if (kind < 50) {
        return plain();
      }
      if (kind < 65) {
        return all();
      }
      if (kind < 75) {
        return counted();
      }
      return kind < 88 ? pair() : except();
    }
    if (form < 58) {
      return relation();
    }
    if (form < 72) {
      return superlative();
    }
    if (form < 80) {
      return counted();
    }
    return form < 90 ? negated() : compound();
  }

  /** A noun drawn without regard to what is there: often enough it fits nothing. */
  private Noun noun() {
    boolean there = rng.nextBoolean(0.6);
    SceneObject model = objects.get(rng.nextInt(objects.size()));
    int shapes = simple ? 3 : SceneObject.SHAPES.length;
    int colours = simple ? 4 : SceneObject.COLOURS.length;
    String colour = there ? model.colour() : SceneObject.COLOURS[rng.nextInt(colours)];
    String shape = there ? model.shape() : SceneObject.SHAPES[rng.nextInt(shapes)];
    boolean big = there ? model.big() : rng.nextBoolean(0.5);
    // Four in ten name both. One attribute alone is what teaches its word: beside a colour, a shape
    // seldom matters.
    int use = rng.nextInt(10);
    return new Noun(
        rng.nextBoolean(0.2) ? big : null,
        use < 7 ? colour : null,
        use < 4 || use > 6 ? shape : null);
  }

  private BitSet fitting(Noun noun) {
    BitSet set = new BitSet();
    for (int i = 0; i < objects.size(); i++) {
      set.set(i, noun.fits(objects.get(i)));
    }
    return set;
  }

  private static Scene.Phrase phrase(String text, BitSet targets) {
    return new Scene.Phrase(text, targets.stream().boxed().toList());
  }

  /** "the red circle": one, or none. */
  private Scene.Phrase plain() {
    Noun noun = noun();
    BitSet set = fitting(noun);
    return set.cardinality() > 1 ? null : phrase("the " + noun.text(false), set);
  }

  /** "all red circles": several, or none. */
  private Scene.Phrase all() {
    Noun noun = noun();
    BitSet set = fitting(noun);
    return set.cardinality() == 1 ? null : phrase("all " + noun.text(true), set);
  }

  /** "the two circles": exactly so many, or none at all; never a wrong number of them. */
  private Scene.Phrase counted() {
    Noun noun = noun();
    BitSet set = fitting(noun);
    int most = simple ? 2 : 4;
    int n = set.isEmpty() ? 2 + rng.nextInt(most - 1) : set.cardinality();
    return n < 2 || n > most ? null : phrase("the " + NUMBERS[n] + " " + noun.text(true), set);
  }

  /** "the red circle and the blue square": both there, or neither. */
  private Scene.Phrase pair() {
    return join(plain(), plain());
  }

  private Scene.Phrase join(Scene.Phrase a, Scene.Phrase b) {
    if (a == null || b == null || a.targets().isEmpty() != b.targets().isEmpty()) {
      return null;
    }
    BitSet set = set(a);
    if (a.text().equals(b.text()) || set.intersects(set(b))) {
      return null;
    }
    set.or(set(b));
    return phrase(a.text() + " and " + b.text(), set);
  }

  private static BitSet set(Scene.Phrase phrase) {
    BitSet set = new BitSet();
    phrase.targets().forEach(set::set);
    return set;
  }

  /** "everything except the red circle": something is excepted and something is left. */
  private Scene.Phrase except() {
    Noun noun = noun();
    BitSet set = fitting(noun);
    int n = set.cardinality();
    if (n == 0 || n == objects.size()) {
      return null;
    }
    set.flip(0, objects.size());
    return phrase("everything except the " + noun.text(n > 1), set);
  }

  /** "the red circle left of the blue square": of a single other object, clearly or clearly not. */
  private Scene.Phrase relation() {
    Noun noun = noun();
    Noun anchorNoun = noun();
    BitSet anchors = fitting(anchorNoun);
    if (anchors.cardinality() != 1) {
      return null;
    }
    SceneObject anchor = objects.get(anchors.nextSetBit(0));
    BitSet set = fitting(noun);
    set.andNot(anchors);
    String[] words = {"left of", "right of", "above", "below"};
    int relation = rng.nextInt(4);
    BitSet targets = new BitSet();
    for (int i = set.nextSetBit(0); i >= 0; i = set.nextSetBit(i + 1)) {
      SceneObject o = objects.get(i);
      double by =
          switch (relation) {
            case 0 -> anchor.x() - o.x();
            case 1 -> o.x() - anchor.x();
            case 2 -> anchor.y() - o.y();
            default -> o.y() - anchor.y();
          };
      if (Math.abs(by) < SIDE_MARGIN * size) {
        return null;
      }
      targets.set(i, by > 0);
    }
    return phrase(
        "the %s %s the %s"
            .formatted(
                noun.text(targets.cardinality() > 1), words[relation], anchorNoun.text(false)),
        targets);
  }

  /** "the leftmost red shape": of several, by a clear margin; or of none. */
  private Scene.Phrase superlative() {
    Noun drawn = noun();
    String[] words = {"leftmost", "rightmost", "highest", "lowest", "biggest", "smallest"};
    int which = rng.nextInt(words.length);
    Noun noun = which < 4 ? drawn : new Noun(null, drawn.colour, drawn.shape);
    ToDoubleFunction<SceneObject> key =
        switch (which) {
          case 0 -> o -> -o.x() / size;
          case 1 -> o -> o.x() / size;
          case 2 -> o -> -o.y() / size;
          case 3 -> o -> o.y() / size;
          case 4 -> o -> Math.log(o.radius());
          default -> o -> -Math.log(o.radius());
        };
    double margin = which < 4 ? SIDE_MARGIN : Math.log(SIZE_RATIO);
    BitSet set = fitting(noun);
    BitSet target = new BitSet();
    if (set.cardinality() == 1) {
      return null;
    }
    if (!set.isEmpty()) {
      int best = set.nextSetBit(0);
      for (int i = best; i >= 0; i = set.nextSetBit(i + 1)) {
        best = key.applyAsDouble(objects.get(i)) > key.applyAsDouble(objects.get(best)) ? i : best;
      }
      for (int i = set.nextSetBit(0); i >= 0; i = set.nextSetBit(i + 1)) {
        double lead = key.applyAsDouble(objects.get(best)) - key.applyAsDouble(objects.get(i));
        if (i != best && lead < margin) {
          return null;
        }
      }
      target.set(best);
    }
    return phrase("the " + words[which] + " " + noun.text(false), target);
  }

  /** "all circles that are not red", "all red shapes that are not circles". */
  private Scene.Phrase negated() {
    SceneObject model = objects.get(rng.nextInt(objects.size()));
    boolean byColour = rng.nextBoolean(0.5);
    Noun noun =
        byColour
            ? new Noun(null, null, rng.nextBoolean(0.7) ? model.shape() : null)
            : new Noun(null, rng.nextBoolean(0.7) ? model.colour() : null, null);
    SceneObject other = objects.get(rng.nextInt(objects.size()));
    Noun not =
        byColour ? new Noun(null, other.colour(), null) : new Noun(null, null, other.shape());
    BitSet set = fitting(noun);
    BitSet without = fitting(not);
    if (!set.intersects(without)) {
      return null; // nothing is taken away, so that "not" would say nothing
    }
    set.andNot(without);
    String complement = byColour ? other.colour() : not.text(true);
    return phrase("all %s that are not %s".formatted(noun.text(true), complement), set);
  }

  /** "the red circle and all blue squares", "the red circle, the star and the small cross". */
  private Scene.Phrase compound() {
    if (rng.nextBoolean(0.5)) {
      return join(plain(), all());
    }
    Scene.Phrase a = plain();
    Scene.Phrase rest = pair();
    Scene.Phrase joined = join(a, rest);
    return joined == null || (" " + rest.text() + " ").contains(" " + a.text() + " ")
        ? null
        : new Scene.Phrase(a.text() + ", " + rest.text(), joined.targets());
  }
}
