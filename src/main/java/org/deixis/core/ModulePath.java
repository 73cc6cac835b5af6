package org.deixis.core;

import java.util.ArrayDeque;
import java.util.Deque;

/** Where in the model this thread is, for messages: {@code model.vision.layers.2.blocks.5.attn}. */
public final class ModulePath {
  private static final ThreadLocal<Deque<String>> PATH = ThreadLocal.withInitial(ArrayDeque::new);

  private ModulePath() {}

  public static void enter(String name) {
    PATH.get().addLast(name);
  }

  public static void leave() {
    PATH.get().removeLast();
  }

  /** The path, or the empty string outside of any module. */
  public static String current() {
    return String.join(".", PATH.get());
  }
}
