package org.deixis.data;

/** A rectangle of whole pixels: left column, top row, columns and rows. */
public record Box(int x, int y, int width, int height) {
  public static Box whole(int height, int width) {
    return new Box(0, 0, width, height);
  }

  /** The smallest box around both; null stands for nothing. */
  public static Box union(Box a, Box b) {
    if (a == null || b == null) {
      return a == null ? b : a;
    }
    int x0 = Math.min(a.x, b.x);
    int y0 = Math.min(a.y, b.y);
    int x1 = Math.max(a.x + a.width, b.x + b.width);
    int y1 = Math.max(a.y + a.height, b.y + b.height);
    return new Box(x0, y0, x1 - x0, y1 - y0);
  }

  public boolean contains(Box inner) {
    return inner.x >= x
        && inner.y >= y
        && inner.x + inner.width <= x + width
        && inner.y + inner.height <= y + height;
  }

  void requireWithin(int rows, int columns) {
    if (width < 1 || height < 1 || !whole(rows, columns).contains(this)) {
      throw new IllegalArgumentException(this + " is not within " + rows + "x" + columns);
    }
  }
}
