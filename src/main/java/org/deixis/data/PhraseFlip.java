package org.deixis.data;

import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What a horizontal flip of the picture does to its phrase: "left" and "right" change places, alone
 * and inside "leftmost", "right-hand", "leftward" and the like. "right" is left alone where it only
 * stresses what follows ("right behind the car", unlike "on the right behind the car"), and so is
 * "left" in "left over" and "leftover".
 */
public final class PhraseFlip {
  private static final Pattern SIDE =
      Pattern.compile(
          "(?<![\\p{L}\\p{N}])(left|right)"
              + "(?=(?:most|wards?|hand(?:ed)?|side|er)?(?![\\p{L}\\p{N}]))",
          Pattern.CASE_INSENSITIVE);

  private static final Pattern STRESS =
      Pattern.compile(
          "right\\s+(?:next|behind|beside|besides|above|below|under|underneath|over|near|before|after"
              + "|between|across|against|beyond|inside|outside|here|there|now|up|in\\s+front"
              + "|in\\s+between|in\\s+the\\s+middle|on\\s+top|by|at|where)(?![\\p{L}\\p{N}]).*",
          Pattern.CASE_INSENSITIVE | Pattern.DOTALL);

  /** Words before "right" that make it a side even where a word of place follows. */
  private static final Pattern DIRECTION =
      Pattern.compile(
          ".*(?<![\\p{L}\\p{N}])(?:the|your|my|our|his|her|its|their|on|to|far|at|upper|lower|top"
              + "|bottom|front|back|middle|most|rear|s)[\\s-]+",
          Pattern.CASE_INSENSITIVE | Pattern.DOTALL);

  private static final Pattern OVER =
      Pattern.compile(
          "left[\\s-]+overs?(?![\\p{L}\\p{N}]).*", Pattern.CASE_INSENSITIVE | Pattern.DOTALL);

  private PhraseFlip() {}

  /** The phrase for the mirrored picture; capitals are kept. */
  public static String flip(String phrase) {
    Matcher m = SIDE.matcher(phrase);
    StringBuilder out = new StringBuilder(phrase.length() + 4);
    int copied = 0;
    while (m.find()) {
      String rest = phrase.substring(m.start());
      boolean stress =
          STRESS.matcher(rest).matches()
              && !DIRECTION.matcher(phrase.substring(0, m.start())).matches();
      if (stress || OVER.matcher(rest).matches()) {
        continue;
      }
      out.append(phrase, copied, m.start()).append(other(m.group(1)));
      copied = m.end(1);
    }
    return out.append(phrase, copied, phrase.length()).toString();
  }

  private static String other(String side) {
    String swapped = side.equalsIgnoreCase("left") ? "right" : "left";
    if (side.equals(side.toUpperCase(Locale.ROOT))) {
      return swapped.toUpperCase(Locale.ROOT);
    }
    return Character.isUpperCase(side.charAt(0))
        ? Character.toUpperCase(swapped.charAt(0)) + swapped.substring(1)
        : swapped;
  }
}
