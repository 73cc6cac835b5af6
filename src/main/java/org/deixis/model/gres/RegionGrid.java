package org.deixis.model.gres;

import org.deixis.core.InputException;

/** How a picture is cut into P regions: cells of a grid, row-major. */
public record RegionGrid(int rows, int columns) {
  public int regions() {
    return rows * columns;
  }

  /** 4 = 2×2, 8 = 2×4, 16 = 4×4, 100 = 10×10. */
  public static RegionGrid of(int regions) {
    return switch (regions) {
      case 4 -> new RegionGrid(2, 2);
      case 8 -> new RegionGrid(2, 4);
      case 16 -> new RegionGrid(4, 4);
      case 100 -> new RegionGrid(10, 10);
      default ->
          throw new InputException("regions: " + regions + " has no grid; choose 4, 8, 16 or 100");
    };
  }

  /**
   * Regions for a picture's complexity in [0, 1]: below 0.3 four, below 0.6 eight, else sixteen.
   */
  public static RegionGrid forComplexity(double complexity) {
    return of(complexity < 0.3 ? 4 : complexity < 0.6 ? 8 : 16);
  }
}
