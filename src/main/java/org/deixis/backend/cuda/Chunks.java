package org.deixis.backend.cuda;

/**
 * How what blocks share is cut: into {@code count} chunks of {@code each}, the last of what
 * remains.
 */
record Chunks(int each, int count) {
  /**
   * Even chunks of {@code n}: as many as are wanted, at least one, or fewer where the last are
   * empty.
   */
  static Chunks of(int n, long wanted) {
    long most = Math.max(1, wanted);
    int each = (int) Math.max(1, (n + most - 1) / most);
    return new Chunks(each, (n + each - 1) / each);
  }
}
