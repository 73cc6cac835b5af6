package org.deixis.model.gres;

import java.util.List;
import org.deixis.core.InputException;

/** Regions are cells of a grid over the picture, row-major; their number fixes the grid. */
public record RegionGrid(int rows, int columns) {
  private static final List<RegionGrid> KNOWN =
      List.of(
          new RegionGrid(2, 2), new RegionGrid(2, 4), new RegionGrid(4, 4), new RegionGrid(10, 10));

  /**
   * The grid of 4, 8, 16 or 100 regions.
   *
   * @throws InputException for another number
   */
  public static RegionGrid of(int regions) {
    for (RegionGrid grid : KNOWN) {
      if (grid.cells() == regions) {
        return grid;
      }
    }
    throw new InputException("regions " + regions + ": give 4, 8, 16 or 100");
  }

  /**
   * The number of regions that a batch of adaptive regions takes: 4 below a complexity of 0.3, 8
   * below 0.6, else 16.
   *
   * @param complexity of its pictures, in [0, 1]; of several their mean
   */
  public static int regionsFor(double complexity) {
    return complexity < 0.3 ? 4 : complexity < 0.6 ? 8 : 16;
  }

  public int cells() {
    return rows * columns;
  }
}
