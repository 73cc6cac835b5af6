package org.deixis.backend.reference;

import org.deixis.backend.Array;
import org.deixis.backend.PatchGather;
import org.deixis.core.DType;

/** Lookup, patches, resizing and pooling. */
final class ReferenceGeometry {
  private static final int COLOURS = 3;

  private ReferenceGeometry() {}

  static void embedding(Array ids, Array table, Array y) {
    Values index = Values.of(ids);
    Values from = Values.of(table);
    Values to = Values.of(y);
    int width = table.dim(1);
    for (int i = 0, n = (int) ids.size(); i < n; i++) {
      for (int e = 0; e < width; e++) {
        to.move(i * width + e, from, (int) index.get(i) * width + e);
      }
    }
  }

  static void embeddingBackward(Array ids, Array dy, Array dTable) {
    Values index = Values.of(ids);
    Values up = Values.of(dy);
    double[] sums = new double[(int) dTable.size()];
    int width = dTable.dim(1);
    for (int i = 0, n = (int) ids.size(); i < n; i++) {
      for (int e = 0; e < width; e++) {
        sums[(int) index.get(i) * width + e] += up.get(i * width + e);
      }
    }
    Values.write(sums, dTable);
  }

  /** Pairs a picture's element with the patch element that holds it. */
  private interface PatchPair {
    void at(int picture, int patches, int channel);
  }

  /** Visits every element of y; the picture's index is -1 beyond the edge. */
  private static void walk(PatchGather s, boolean channelsLast, PatchPair pair) {
    int y = 0;
    for (int b = 0; b < s.batch(); b++) {
      for (int row = 0; row < s.rows(); row++) {
        for (int column = 0; column < s.columns(); column++) {
          for (int c = 0; c < COLOURS; c++) {
            for (int i = row * s.patch(); i < (row + 1) * s.patch(); i++) {
              for (int j = column * s.patch(); j < (column + 1) * s.patch(); j++) {
                int x =
                    i >= s.height() || j >= s.width()
                        ? -1
                        : channelsLast
                            ? ((b * s.height() + i) * s.width() + j) * COLOURS + c
                            : ((b * COLOURS + c) * s.height() + i) * s.width() + j;
                pair.at(x, y++, c);
              }
            }
          }
        }
      }
    }
  }

  static void patchGather(PatchGather s, Array x, Array y) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    boolean bytes = x.dtype() == DType.U8;
    walk(
        s,
        bytes,
        (xi, yi, c) -> {
          double value = xi < 0 ? 0 : from.get(xi);
          if (bytes && xi >= 0) {
            value = (value / 255 - s.mean()[c]) / s.std()[c];
          }
          to.set(yi, value);
        });
  }

  static void patchScatter(PatchGather s, Array dy, Array dx) {
    Values up = Values.of(dy);
    Values to = Values.of(dx);
    walk(
        s,
        false,
        (xi, yi, c) -> {
          if (xi >= 0) {
            to.set(xi, up.get(yi));
          }
        });
  }

  /** Visits every element of the merged map; the source's index is -1 beyond the edge. */
  private static void walkMerge(int batch, int height, int width, int channels, PatchPair pair) {
    int y = 0;
    for (int b = 0; b < batch; b++) {
      for (int i = 0; i < height; i += 2) {
        for (int j = 0; j < width; j += 2) {
          for (int part = 0; part < 4; part++) {
            int row = i + part % 2;
            int column = j + part / 2;
            for (int c = 0; c < channels; c++) {
              int x =
                  row < height && column < width
                      ? ((b * height + row) * width + column) * channels + c
                      : -1;
              pair.at(x, y++, c);
            }
          }
        }
      }
    }
  }

  static void mergeGather(int batch, int height, int width, int channels, Array x, Array y) {
    Values from = Values.of(x);
    Values to = Values.of(y);
    walkMerge(batch, height, width, channels, (xi, yi, c) -> to.set(yi, xi < 0 ? 0 : from.get(xi)));
  }

  static void mergeScatter(int batch, int height, int width, int channels, Array dy, Array dx) {
    Values up = Values.of(dy);
    Values to = Values.of(dx);
    walkMerge(
        batch,
        height,
        width,
        channels,
        (xi, yi, c) -> {
          if (xi >= 0) {
            to.set(xi, up.get(yi));
          }
        });
  }

  /** The two inputs that an output reads along one axis, and the second one's share. */
  record Tap(int low, int high, double share) {}

  /**
   * Taps of linear interpolation, align_corners = false: output i lies at (i + ½)·in/out − ½, which
   * is cut at 0, and beyond the last input the last one is read (PyTorch, UpSample.h,
   * area_pixel_compute_source_index).
   */
  static Tap[] taps(int in, int out) {
    Tap[] taps = new Tap[out];
    for (int i = 0; i < out; i++) {
      double at = Math.max(0, (i + 0.5) * in / out - 0.5);
      int low = Math.min((int) at, in - 1);
      int high = Math.min(low + 1, in - 1);
      taps[i] = new Tap(low, high, at - low);
    }
    return taps;
  }

  /** One of the (at most four) inputs of an output pixel, with its weight. */
  private interface Sample {
    void at(int in, int out, double weight);
  }

  private static void walkResize(
      int batch, int height, int width, int channels, int outHeight, int outWidth, Sample sample) {
    Tap[] rows = taps(height, outHeight);
    Tap[] columns = taps(width, outWidth);
    for (int b = 0; b < batch; b++) {
      for (int i = 0; i < outHeight; i++) {
        for (int j = 0; j < outWidth; j++) {
          for (int corner = 0; corner < 4; corner++) {
            Tap row = rows[i];
            Tap column = columns[j];
            int y = corner < 2 ? row.low : row.high;
            int x = corner % 2 == 0 ? column.low : column.high;
            double weight =
                (corner < 2 ? 1 - row.share : row.share)
                    * (corner % 2 == 0 ? 1 - column.share : column.share);
            for (int c = 0; c < channels; c++) {
              sample.at(
                  ((b * height + y) * width + x) * channels + c,
                  ((b * outHeight + i) * outWidth + j) * channels + c,
                  weight);
            }
          }
        }
      }
    }
  }

  static void resize(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      boolean accumulate,
      Array x,
      Array y) {
    double[] in = Values.read(x);
    double[] out = accumulate ? Values.read(y) : new double[(int) y.size()];
    walkResize(
        batch,
        height,
        width,
        channels,
        outHeight,
        outWidth,
        (xi, yi, weight) -> out[yi] += weight * in[xi]);
    Values.write(out, y);
  }

  static void resizeBackward(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      Array dy,
      Array dx) {
    double[] up = Values.read(dy);
    double[] sums = new double[(int) dx.size()];
    walkResize(
        batch,
        height,
        width,
        channels,
        outHeight,
        outWidth,
        (xi, yi, weight) -> sums[xi] += weight * up[yi]);
    Values.write(sums, dx);
  }

  /** Visits every (pixel, cell) pair of adaptive pooling with 1 / the cell's size. */
  private static void walkCells(
      int batch, int height, int width, int rows, int columns, Sample sample) {
    for (int b = 0; b < batch; b++) {
      for (int row = 0; row < rows; row++) {
        int top = row * height / rows;
        int bottom = ((row + 1) * height + rows - 1) / rows;
        for (int column = 0; column < columns; column++) {
          int left = column * width / columns;
          int right = ((column + 1) * width + columns - 1) / columns;
          double share = 1.0 / ((bottom - top) * (right - left));
          for (int i = top; i < bottom; i++) {
            for (int j = left; j < right; j++) {
              sample.at((b * height + i) * width + j, (b * rows + row) * columns + column, share);
            }
          }
        }
      }
    }
  }

  static void regionPool(
      int batch, int height, int width, int rows, int columns, Array x, Array y) {
    Values in = Values.of(x);
    double[] means = new double[(int) y.size()];
    walkCells(
        batch,
        height,
        width,
        rows,
        columns,
        (pixel, cell, share) -> means[cell] += share * in.get(pixel));
    Values.write(means, y);
  }

  static void regionPoolBackward(
      int batch, int height, int width, int rows, int columns, Array dy, Array dx) {
    double[] up = Values.read(dy);
    double[] sums = new double[(int) dx.size()];
    walkCells(
        batch,
        height,
        width,
        rows,
        columns,
        (pixel, cell, share) -> sums[pixel] += share * up[cell]);
    Values.write(sums, dx);
  }
}
