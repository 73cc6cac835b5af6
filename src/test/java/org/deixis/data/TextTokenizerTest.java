package org.deixis.data;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.deixis.core.InputException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TextTokenizerTest {
  private static final String VOCAB =
      "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\nthe\nred\ncircle\n,\n-\n";

  @TempDir Path dir;

  @Test
  void bertVocabulary() throws Exception {
    Files.writeString(dir.resolve("vocab.txt"), VOCAB);
    try (TextTokenizer tokenizer = TextTokenizer.load(dir)) {
      assertEquals(0, tokenizer.padId());
      assertEquals(13, tokenizer.vocabSize());
      // Lower-cased, accents stripped, punctuation split, longest pieces first, unknown words kept
      // apart.
      assertArrayEquals(
          new int[] {2, 5, 6, 7, 8, 9, 12, 10, 11, 1, 3},
          tokenizer.encode("UNaffable the r\u00e9d-circle, zebra", 30));
      assertArrayEquals(new int[] {2, 8, 9, 3}, tokenizer.encode("the red circle", 4));
      tokenizer.save(dir.resolve("saved.json"));
    }
    try (TextTokenizer again = TextTokenizer.load(dir.resolve("saved.json"))) {
      assertArrayEquals(new int[] {2, 8, 9, 10, 3}, again.encode("the red circle", 30));
      assertEquals(13, again.vocabSize());
    }
  }

  @Test
  void aVocabularyWithCapitalsIsCased() throws Exception {
    Files.writeString(dir.resolve("vocab.txt"), VOCAB + "The\n");
    try (TextTokenizer tokenizer = TextTokenizer.load(dir.resolve("vocab.txt"))) {
      assertArrayEquals(new int[] {2, 13, 9, 3}, tokenizer.encode("The red", 30));
      assertArrayEquals(new int[] {2, 8, 1, 3}, tokenizer.encode("the Red", 30));
    }
  }

  @Test
  void tenThousandWordsAreCutAtTheLimit() {
    try (TextTokenizer tokenizer = SceneMaker.tokenizer(SceneMaker.SIMPLE)) {
      int[] ids = tokenizer.encode("red circle ".repeat(5000), 20);
      assertEquals(20, ids.length);
      int[] short_ = tokenizer.encode("red circle", 20);
      assertEquals(4, short_.length);
      assertEquals(short_[0], ids[0]);
      assertEquals(short_[3], ids[19]);
      assertEquals(short_[1], ids[17]);
      assertEquals(short_[2], ids[18]);
    }
  }

  @Test
  void emptyPhrasesAndTinyLimitsAreRefused() {
    try (TextTokenizer tokenizer = SceneMaker.tokenizer(SceneMaker.FULL)) {
      for (String phrase : new String[] {"", "  \t\n", "\u0000\u0001"}) {
        assertThrows(InputException.class, () -> tokenizer.encode(phrase, 20), phrase);
      }
      assertThrows(InputException.class, () -> tokenizer.encode("x".repeat(1_000_001), 20));
      assertThrows(InputException.class, () -> tokenizer.encode("red", 2));
      assertEquals(3, tokenizer.encode("red circle", 3).length);
    }
  }

  @Test
  void damagedTokenizersAreRefused() throws Exception {
    assertThrows(InputException.class, () -> TextTokenizer.load(dir));
    byte[] good = SceneMaker.tokenizerJson(SceneMaker.SIMPLE);
    Path file = dir.resolve("tokenizer.json");
    Files.write(file, java.util.Arrays.copyOf(good, good.length / 2));
    assertThrows(InputException.class, () -> TextTokenizer.load(dir));
    Files.writeString(file, "{\"model\": {\"vocab\": {\"a\": 0}}}");
    assertThrows(InputException.class, () -> TextTokenizer.load(dir));
    String wrong = new String(good, StandardCharsets.UTF_8).replace("WordLevel", "Nonsense");
    Files.writeString(file, wrong);
    assertThrows(InputException.class, () -> TextTokenizer.load(dir));
    Files.delete(file);
    Files.writeString(dir.resolve("vocab.txt"), "a\nb\n");
    assertThrows(InputException.class, () -> TextTokenizer.load(dir));
    Files.writeString(dir.resolve("vocab.txt"), VOCAB + "red\n");
    assertThrows(InputException.class, () -> TextTokenizer.load(dir));
  }
}
