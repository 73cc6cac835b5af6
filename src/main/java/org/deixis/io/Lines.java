package org.deixis.io;

/** Text from files in messages: one line, of bounded length, whatever the file holds. */
final class Lines {
  private static final int LONGEST = 100;

  private Lines() {}

  static String of(String text) {
    StringBuilder line = new StringBuilder();
    for (int i = 0; i < text.length(); i++) {
      if (i == LONGEST) {
        return line.append('…').toString();
      }
      char c = text.charAt(i);
      // Line and paragraph separators, and whatever steers a terminal, are not printed.
      boolean plain = !Character.isISOControl(c) && c != '\u2028' && c != '\u2029';
      line.append(plain && !Character.isSurrogate(c) ? c : '?');
    }
    return line.toString();
  }

  /** "tensor 'name'". */
  static String tensor(String name) {
    return "tensor '" + of(name) + "'";
  }
}
