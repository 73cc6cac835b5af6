package org.deixis.data;

/**
 * A drawn object: what it is and where its centre lies, in pixels from the upper left corner.
 *
 * @param shape one of {@link #SHAPES}
 * @param colour one of {@link #COLOURS}
 * @param big whether it is "big"; else it is "small", and no object is in between
 * @param radius half of its width and height, in pixels
 */
public record SceneObject(
    String shape, String colour, boolean big, double x, double y, double radius) {
  /** The first three are those of simple scenes. */
  static final String[] SHAPES = {"circle", "square", "triangle", "diamond", "star", "cross"};

  /** The first four are those of simple scenes. */
  static final String[] COLOURS = {
    "red", "green", "blue", "yellow", "purple", "orange", "black", "cyan"
  };

  private static final int[] RGB = {
    0xdc2828, 0x28aa3c, 0x3250dc, 0xf0d228, 0x8c32aa, 0xf07d14, 0x191919, 0x3cc8d2
  };

  private static final double STAR_INNER = 0.43;
  private static final double CROSS_ARM = 0.36;

  /** No point of any shape is farther from the centre than this, in radii, along an axis. */
  static final double EXTENT = 1;

  int rgb() {
    for (int i = 0; i < COLOURS.length; i++) {
      if (COLOURS[i].equals(colour)) {
        return RGB[i];
      }
    }
    throw new IllegalStateException(colour);
  }

  boolean convex() {
    return !shape.equals("star") && !shape.equals("cross");
  }

  /** Whether the point is inside the shape. */
  boolean covers(double px, double py) {
    double dx = (px - x) / radius;
    double dy = (py - y) / radius;
    double ax = Math.abs(dx);
    double ay = Math.abs(dy);
    return switch (shape) {
      case "circle" -> dx * dx + dy * dy <= 1;
      case "square" -> ax <= 1 && ay <= 1;
      case "diamond" -> ax + ay <= 1;
      case "cross" -> Math.min(ax, ay) <= CROSS_ARM && Math.max(ax, ay) <= 1;
      // Pointing up, as high as wide: below both slanted sides and above the base.
      case "triangle" -> dy <= 1 && 2 * ax - dy <= 1;
      case "star" -> star(dx, dy);
      default -> throw new IllegalStateException(shape);
    };
  }

  /** Five points, one up: within a tenth of the turn, left of the edge from tip to notch. */
  private static boolean star(double dx, double dy) {
    double angle = Math.abs(Math.atan2(dx, -dy));
    double fold = 2 * Math.PI / 5;
    angle = Math.abs(angle - fold * Math.round(angle / fold));
    double distance = Math.hypot(dx, dy);
    double px = distance * Math.cos(angle);
    double py = distance * Math.sin(angle);
    double nx = STAR_INNER * Math.cos(fold / 2);
    double ny = STAR_INNER * Math.sin(fold / 2);
    return (nx - 1) * py - ny * (px - 1) >= 0;
  }
}
