package org.deixis.backend;

import java.util.ArrayList;
import java.util.List;

/**
 * Owns what is made while it is the innermost open scope of its thread, and frees it on {@link
 * #close}. What must outlive it is handed to the scope around it by {@link #keep}, or to nobody by
 * {@link #detach}.
 *
 * <pre>{@code
 * try (Scope scope = Scope.open()) {
 *   Array y = ...;
 *   return scope.keep(y);
 * }
 * }</pre>
 */
public final class Scope implements AutoCloseable {
  private static final ThreadLocal<Scope> CURRENT = new ThreadLocal<>();

  private final Scope parent;
  private final Thread owner = Thread.currentThread();
  private final List<Buffer> owned = new ArrayList<>();
  private boolean closed;

  private Scope(Scope parent) {
    this.parent = parent;
  }

  public static Scope open() {
    Scope scope = new Scope(CURRENT.get());
    CURRENT.set(scope);
    return scope;
  }

  /** The innermost open scope of this thread, or null. */
  public static Scope current() {
    return CURRENT.get();
  }

  /**
   * Gives the birth reference of {@code buffer} to the innermost scope; with none open it stays
   * with the caller.
   */
  public static void adopt(Buffer buffer) {
    Scope scope = CURRENT.get();
    if (scope != null) {
      scope.owned.add(buffer);
    }
  }

  /**
   * Lets the scope around this one own {@code array} too; with none around, the caller must release
   * it.
   */
  public Array keep(Array array) {
    array.retain();
    if (parent != null) {
      parent.owned.add(array.buffer());
    }
    return array;
  }

  /** Takes a reference that no scope owns: the caller must release it. */
  public static Array detach(Array array) {
    array.retain();
    return array;
  }

  @Override
  public void close() {
    if (closed) {
      return;
    }
    if (CURRENT.get() != this || owner != Thread.currentThread()) {
      throw new IllegalStateException(
          "scopes close innermost first, on the thread that opened them");
    }
    closed = true;
    if (parent == null) {
      CURRENT.remove();
    } else {
      CURRENT.set(parent);
    }
    for (int i = owned.size() - 1; i >= 0; i--) {
      owned.get(i).release();
    }
    owned.clear();
  }
}
