package org.deixis.backend.cpu;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.util.Arrays;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.PatchGather;
import org.deixis.core.DType;

/** Lookup, patches and pooling; resizing is in {@link CpuResize}. */
final class CpuGeometry {
  private static final int COLOURS = 3;

  /** Elements that a task copies at least. */
  private static final int GRAIN = 16 * 1024;

  /** Most parts of a table that gather their gradients separately. */
  private static final int TABLE_PARTS = 64;

  private final WorkerPool pool;
  private final CpuResize resize;

  CpuGeometry(WorkerPool pool) {
    this.pool = pool;
    this.resize = new CpuResize(pool);
  }

  private static FloatBuffer floats(Array array) {
    return HostBuffer.of(array).floats();
  }

  private static int start(Array array) {
    return Math.toIntExact(array.offset());
  }

  /** Calls body with each of [0, count), some tasks of about {@link #GRAIN} elements. */
  private void each(int count, long elements, java.util.function.IntConsumer body) {
    int step = (int) Math.max(1, Math.min(count, GRAIN / Math.max(1, elements)));
    pool.parallelFor(
        (count + step - 1) / step,
        task -> {
          int end = Math.min(count, (task + 1) * step);
          for (int i = task * step; i < end; i++) {
            body.accept(i);
          }
        });
  }

  /** See {@link org.deixis.backend.Backend#embedding}. */
  void embedding(Array ids, Array table, Array y) {
    int width = table.dim(1);
    IntBuffer index = HostBuffer.of(ids).ints();
    FloatBuffer from = floats(table);
    FloatBuffer to = floats(y);
    each(
        (int) ids.size(),
        width,
        i ->
            to.put(
                start(y) + i * width,
                from,
                start(table) + index.get(start(ids) + i) * width,
                width));
  }

  /** See {@link org.deixis.backend.Backend#embeddingBackward}. */
  void embeddingBackward(Array ids, Array dy, Array dTable) {
    int n = (int) ids.size();
    int rows = dTable.dim(0);
    int width = dTable.dim(1);
    IntBuffer index = HostBuffer.of(ids).ints();
    long[] order = Scratch.here().longs(n);
    for (int i = 0; i < n; i++) {
      order[i] = (long) index.get(start(ids) + i) << 32 | i;
    }
    Arrays.sort(order, 0, n); // by row, then by place: the order of each sum
    FloatBuffer from = floats(dy);
    FloatBuffer to = floats(dTable);
    int parts = Math.max(1, Math.min(rows, TABLE_PARTS));
    pool.parallelFor(
        parts,
        part -> {
          int first = (int) ((long) rows * part / parts);
          int end = (int) ((long) rows * (part + 1) / parts);
          Scratch scratch = Scratch.here();
          float[] sum = scratch.floats(0, width);
          float[] row = scratch.floats(1, width);
          float[] zeros = scratch.zeros(2, GRAIN);
          int at = Arrays.binarySearch(order, 0, n, (long) first << 32);
          at = at < 0 ? -at - 1 : at;
          int written = first;
          while (at < n && (int) (order[at] >> 32) < end) {
            int id = (int) (order[at] >> 32);
            zero(to, start(dTable), written, id, width, zeros);
            from.get(start(dy) + (int) order[at] * width, sum, 0, width);
            for (at++; at < n && (int) (order[at] >> 32) == id; at++) {
              from.get(start(dy) + (int) order[at] * width, row, 0, width);
              AttentionTile.add(width, row, 0, sum, 0);
            }
            to.put(start(dTable) + id * width, sum, 0, width);
            written = id + 1;
          }
          zero(to, start(dTable), written, end, width, zeros);
        });
  }

  /** Clears rows [from, end). */
  private static void zero(FloatBuffer to, int start, int from, int end, int width, float[] zeros) {
    int last = start + end * width;
    for (int at = start + from * width; at < last; at += GRAIN) {
      to.put(at, zeros, 0, Math.min(GRAIN, last - at));
    }
  }

  /** See {@link org.deixis.backend.Backend#patchGather}. */
  void patchGather(PatchGather spec, Array x, Array y) {
    int size = COLOURS * spec.patch() * spec.patch();
    FloatBuffer to = floats(y);
    boolean bytes = x.dtype() == DType.U8;
    float[] levels = bytes ? levels(spec) : null;
    ByteBuffer raw = bytes ? HostBuffer.of(x).bytesView() : null;
    FloatBuffer values = bytes ? null : floats(x);
    each(
        spec.batch() * spec.rows(),
        (long) spec.columns() * size,
        task -> {
          Scratch scratch = Scratch.here();
          int n = spec.columns() * size;
          float[] out = scratch.zeros(0, n);
          int b = task / spec.rows();
          int top = task % spec.rows() * spec.patch();
          int lines = Math.min(spec.patch(), spec.height() - top);
          for (int i = 0; i < lines; i++) {
            if (bytes) {
              byte[] line = scratch.bytes(spec.width() * COLOURS);
              int at = (b * spec.height() + top + i) * spec.width() * COLOURS;
              raw.get(start(x) + at, line, 0, spec.width() * COLOURS);
              spreadBytes(spec, i, line, levels, out);
            } else {
              for (int c = 0; c < COLOURS; c++) {
                float[] line = scratch.floats(1, spec.width());
                int at = ((b * COLOURS + c) * spec.height() + top + i) * spec.width();
                values.get(start(x) + at, line, 0, spec.width());
                move(spec, c, i, line, out, true);
              }
            }
          }
          to.put(start(y) + task * n, out, 0, n);
        });
  }

  /** What each byte of each channel becomes: (value/255 − mean)/std. */
  private static float[] levels(PatchGather spec) {
    float[] levels = Scratch.here().floats(Scratch.CALL, COLOURS * 256);
    for (int c = 0; c < COLOURS; c++) {
      for (int value = 0; value < 256; value++) {
        levels[c * 256 + value] = (float) ((value / 255.0 - spec.mean()[c]) / spec.std()[c]);
      }
    }
    return levels;
  }

  private static void spreadBytes(
      PatchGather spec, int i, byte[] line, float[] levels, float[] out) {
    int patch = spec.patch();
    int area = patch * patch;
    for (int column = 0, from = 0; column < spec.columns(); column++) {
      int to = column * COLOURS * area + i * patch;
      int end = Math.min(patch, spec.width() - column * patch);
      for (int j = 0; j < end; j++, from += COLOURS) {
        out[to + j] = levels[line[from] & 0xff];
        out[to + j + area] = levels[256 + (line[from + 1] & 0xff)];
        out[to + j + 2 * area] = levels[512 + (line[from + 2] & 0xff)];
      }
    }
  }

  /** Moves one line of a channel into patches, or back. */
  private static void move(
      PatchGather spec, int channel, int i, float[] line, float[] patches, boolean into) {
    int patch = spec.patch();
    for (int column = 0; column < spec.columns(); column++) {
      int at = ((column * COLOURS + channel) * patch + i) * patch;
      int from = column * patch;
      int n = Math.min(patch, spec.width() - from);
      for (int j = 0; j < n; j++) {
        if (into) {
          patches[at + j] = line[from + j];
        } else {
          line[from + j] = patches[at + j];
        }
      }
    }
  }

  /** See {@link org.deixis.backend.Backend#patchScatter}. */
  void patchScatter(PatchGather spec, Array dy, Array dx) {
    int n = spec.columns() * COLOURS * spec.patch() * spec.patch();
    FloatBuffer from = floats(dy);
    FloatBuffer to = floats(dx);
    each(
        spec.batch() * spec.rows(),
        n,
        task -> {
          Scratch scratch = Scratch.here();
          float[] patches = scratch.floats(0, n);
          float[] line = scratch.floats(1, spec.width());
          from.get(start(dy) + task * n, patches, 0, n);
          int b = task / spec.rows();
          int top = task % spec.rows() * spec.patch();
          int lines = Math.min(spec.patch(), spec.height() - top);
          for (int i = 0; i < lines; i++) {
            for (int c = 0; c < COLOURS; c++) {
              move(spec, c, i, line, patches, false);
              int at = ((b * COLOURS + c) * spec.height() + top + i) * spec.width();
              to.put(start(dx) + at, line, 0, spec.width());
            }
          }
        });
  }

  /** See {@link org.deixis.backend.Backend#mergeGather}. */
  void mergeGather(int batch, int height, int width, int channels, Array x, Array y) {
    merge(batch, height, width, channels, x, y, true);
  }

  /** See {@link org.deixis.backend.Backend#mergeScatter}. */
  void mergeScatter(int batch, int height, int width, int channels, Array dy, Array dx) {
    merge(batch, height, width, channels, dx, dy, false);
  }

  /** Copies between a map and its merged form, one way or the other. */
  private void merge(
      int batch, int height, int width, int channels, Array map, Array merged, boolean gather) {
    int rows = (height + 1) / 2;
    int columns = (width + 1) / 2;
    FloatBuffer fine = floats(map);
    FloatBuffer coarse = floats(merged);
    each(
        batch * rows,
        4L * columns * channels,
        task -> {
          int b = task / rows;
          int top = task % rows * 2;
          float[] zeros = Scratch.here().zeros(0, channels);
          for (int j = 0; j < columns; j++) {
            for (int part = 0; part < 4; part++) {
              int row = top + part % 2;
              int column = 2 * j + part / 2;
              int at = start(merged) + ((task * columns + j) * 4 + part) * channels;
              int from = start(map) + ((b * height + row) * width + column) * channels;
              boolean inside = row < height && column < width;
              if (!gather && inside) {
                fine.put(from, coarse, at, channels);
              } else if (gather && inside) {
                coarse.put(at, fine, from, channels);
              } else if (gather) {
                coarse.put(at, zeros, 0, channels);
              }
            }
          }
        });
  }

  /** See {@link org.deixis.backend.Backend#resize}. */
  void resize(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      boolean accumulate,
      Array x,
      Array y) {
    resize.forward(batch, height, width, channels, outHeight, outWidth, accumulate, x, y);
  }

  /** See {@link org.deixis.backend.Backend#resizeBackward}. */
  void resizeBackward(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      Array dy,
      Array dx) {
    resize.backward(batch, height, width, channels, outHeight, outWidth, dy, dx);
  }

  /** See {@link org.deixis.backend.Backend#regionPool}. */
  void regionPool(int batch, int height, int width, int rows, int columns, Array x, Array y) {
    ByteTile from = ByteTile.of(x);
    FloatBuffer to = floats(y);
    each(
        batch * rows,
        (long) (height + rows - 1) / rows * width,
        task -> {
          Scratch scratch = Scratch.here();
          int b = task / rows;
          int top = task % rows * height / rows;
          int bottom = ((task % rows + 1) * height + rows - 1) / rows;
          float[] sums = scratch.zeros(0, width);
          float[] line = scratch.floats(1, width + VectorMath.LANES);
          for (int i = top; i < bottom; i++) {
            from.read(scratch, (b * height + i) * width, width, line, 0);
            AttentionTile.add(width, line, 0, sums, 0);
          }
          for (int column = 0; column < columns; column++) {
            int left = column * width / columns;
            int right = ((column + 1) * width + columns - 1) / columns;
            double sum = 0;
            for (int j = left; j < right; j++) {
              sum += sums[j];
            }
            int cell = (bottom - top) * (right - left);
            to.put(start(y) + task * columns + column, cell == 0 ? 0 : (float) (sum / cell));
          }
        });
  }

  /** See {@link org.deixis.backend.Backend#regionPoolBackward}. */
  void regionPoolBackward(
      int batch, int height, int width, int rows, int columns, Array dy, Array dx) {
    FloatBuffer from = floats(dy);
    FloatBuffer to = floats(dx);
    each(
        batch * height,
        width,
        task -> {
          int b = task / height;
          int i = task % height;
          float[] line = Scratch.here().zeros(0, width);
          for (int row = 0; row < rows; row++) {
            int top = row * height / rows;
            int bottom = ((row + 1) * height + rows - 1) / rows;
            if (i < top || i >= bottom) {
              continue;
            }
            for (int column = 0; column < columns; column++) {
              int left = column * width / columns;
              int right = ((column + 1) * width + columns - 1) / columns;
              float share =
                  from.get(start(dy) + (b * rows + row) * columns + column)
                      / ((bottom - top) * (right - left));
              for (int j = left; j < right; j++) {
                line[j] += share;
              }
            }
          }
          to.put(start(dx) + task * width, line, 0, width);
        });
  }
}
