package org.deixis.backend.cpu;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.util.Arrays;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.PatchGather;
import org.deixis.core.DType;

/**
 * Lookup, patches, resizing and pooling: kernels that move more than they compute. Whole rows go
 * through heap arrays.
 */
final class CpuGeometry {
  private final WorkerPool pool;

  CpuGeometry(WorkerPool pool) {
    this.pool = pool;
  }

  private static FloatBuffer floats(Array a) {
    return HostBuffer.of(a).floats();
  }

  private static int start(Array a) {
    return Math.toIntExact(a.offset());
  }

  // ---- lookup

  void embedding(Array ids, Array table, Array y) {
    int columns = table.dim(1);
    IntBuffer id = HostBuffer.of(ids).ints();
    int idStart = start(ids);
    FloatBuffer from = floats(table);
    FloatBuffer to = floats(y);
    pool.parallelRanges(
        ids.size(),
        64,
        (a, b) -> {
          for (int i = (int) a; i < b; i++) {
            to.put(
                start(y) + i * columns,
                from,
                start(table) + id.get(idStart + i) * columns,
                columns);
          }
        });
  }

  void embeddingBackward(Array ids, Array dy, Array dTable) {
    int rows = dTable.dim(0);
    int columns = dTable.dim(1);
    int n = Math.toIntExact(ids.size());
    FloatBuffer to = floats(dTable);
    FloatBuffer from = floats(dy);
    zero(dTable);
    // Counting sort: the rows of one id are summed in the order they stand in, by one thread.
    int[] id = new int[n];
    HostBuffer.of(ids).ints().get(start(ids), id);
    int[] first = new int[rows + 1];
    for (int i : id) {
      first[i + 1]++;
    }
    int distinct = 0;
    for (int r = 0; r < rows; r++) {
      distinct += first[r + 1] > 0 ? 1 : 0;
      first[r + 1] += first[r];
    }
    int[] next = Arrays.copyOf(first, rows);
    int[] order = new int[n];
    for (int i = 0; i < n; i++) {
      order[next[id[i]]++] = i;
    }
    int[] used = new int[distinct];
    for (int r = 0, k = 0; r < rows; r++) {
      if (first[r + 1] > first[r]) {
        used[k++] = r;
      }
    }
    pool.parallelRanges(
        distinct,
        16,
        (a, b) -> {
          float[] sum = new float[columns];
          float[] row = new float[columns];
          for (int k = (int) a; k < b; k++) {
            int r = used[k];
            Arrays.fill(sum, 0);
            for (int j = first[r]; j < first[r + 1]; j++) {
              from.get(start(dy) + order[j] * columns, row);
              add(sum, 0, row, 0, columns, 1);
            }
            to.put(start(dTable) + r * columns, sum);
          }
        });
  }

  private void zero(Array a) {
    FloatBuffer to = floats(a);
    int at = start(a);
    pool.parallelRanges(
        a.size(),
        1 << 16,
        (from, end) -> {
          float[] zeros = Tile.here().a;
          Arrays.fill(zeros, 0);
          for (long i = from; i < end; i += zeros.length) {
            to.put(at + (int) i, zeros, 0, (int) Math.min(zeros.length, end - i));
          }
        });
  }

  /** target += factor · source: a plain loop, which the compiler turns into vector instructions. */
  private static void add(float[] target, int at, float[] source, int from, int n, float factor) {
    for (int i = 0; i < n; i++) {
      target[at + i] += factor * source[from + i];
    }
  }

  // ---- patches

  void patchGather(PatchGather spec, Array x, Array y) {
    int p = spec.patch();
    int width = spec.width();
    int row = 3 * p * p;
    FloatBuffer to = floats(y);
    boolean bytes = x.dtype() == DType.U8;
    ByteBuffer raw = bytes ? HostBuffer.of(x).bytesView() : null;
    FloatBuffer from = bytes ? null : floats(x);
    float[] scale = new float[3];
    float[] shift = new float[3];
    for (int c = 0; c < 3; c++) {
      scale[c] = 1 / (255 * spec.std()[c]);
      shift[c] = -spec.mean()[c] / spec.std()[c];
    }
    pool.parallelFor(
        spec.batch() * spec.rows(),
        task -> {
          int b = task / spec.rows();
          int i = task % spec.rows();
          float[] out = new float[spec.columns() * row];
          float[] line = new float[width];
          byte[] pixels = new byte[bytes ? width * 3 : 0];
          for (int dy = 0; dy < p && i * p + dy < spec.height(); dy++) {
            int iy = i * p + dy;
            if (bytes) {
              raw.get(start(x) + (b * spec.height() + iy) * width * 3, pixels);
            }
            for (int c = 0; c < 3; c++) {
              if (bytes) {
                for (int ix = 0; ix < width; ix++) {
                  line[ix] = (pixels[3 * ix + c] & 0xff) * scale[c] + shift[c];
                }
              } else {
                from.get(start(x) + ((b * 3 + c) * spec.height() + iy) * width, line);
              }
              for (int ix = 0; ix < width; ix++) {
                out[ix / p * row + (c * p + dy) * p + ix % p] = line[ix];
              }
            }
          }
          to.put(start(y) + task * out.length, out);
        });
  }

  void patchScatter(PatchGather spec, Array dy, Array dx) {
    int p = spec.patch();
    int width = spec.width();
    int row = 3 * p * p;
    FloatBuffer from = floats(dy);
    FloatBuffer to = floats(dx);
    pool.parallelFor(
        spec.batch() * spec.rows(),
        task -> {
          int b = task / spec.rows();
          int i = task % spec.rows();
          float[] in = new float[spec.columns() * row];
          from.get(start(dy) + task * in.length, in);
          float[] line = new float[width];
          for (int k = 0; k < p && i * p + k < spec.height(); k++) {
            for (int c = 0; c < 3; c++) {
              for (int ix = 0; ix < width; ix++) {
                line[ix] = in[ix / p * row + (c * p + k) * p + ix % p];
              }
              to.put(start(dx) + ((b * 3 + c) * spec.height() + i * p + k) * width, line);
            }
          }
        });
  }

  /** Which quarter of a merged row holds pixel (dy, dx) of its square: rows first, then columns. */
  private static int quarter(int dy, int dx) {
    return 2 * dx + dy;
  }

  void mergeGather(int batch, int height, int width, int channels, Array x, Array y) {
    int rows = (height + 1) / 2;
    int columns = (width + 1) / 2;
    FloatBuffer from = floats(x);
    FloatBuffer to = floats(y);
    pool.parallelFor(
        batch * rows,
        task -> {
          float[] out = new float[columns * 4 * channels];
          float[] line = new float[width * channels];
          for (int k = 0; k < 2; k++) {
            int iy = task % rows * 2 + k;
            if (iy >= height) {
              continue;
            }
            from.get(start(x) + (task / rows * height + iy) * line.length, line);
            for (int ix = 0; ix < width; ix++) {
              int at = (ix / 2 * 4 + quarter(k, ix % 2)) * channels;
              System.arraycopy(line, ix * channels, out, at, channels);
            }
          }
          to.put(start(y) + task * out.length, out);
        });
  }

  void mergeScatter(int batch, int height, int width, int channels, Array dy, Array dx) {
    int rows = (height + 1) / 2;
    int columns = (width + 1) / 2;
    FloatBuffer from = floats(dy);
    FloatBuffer to = floats(dx);
    pool.parallelFor(
        batch * rows,
        task -> {
          float[] in = new float[columns * 4 * channels];
          float[] line = new float[width * channels];
          from.get(start(dy) + task * in.length, in);
          for (int k = 0; k < 2; k++) {
            int iy = task % rows * 2 + k;
            if (iy >= height) {
              continue;
            }
            for (int ix = 0; ix < width; ix++) {
              int at = (ix / 2 * 4 + quarter(k, ix % 2)) * channels;
              System.arraycopy(in, at, line, ix * channels, channels);
            }
            to.put(start(dx) + (task / rows * height + iy) * line.length, line);
          }
        });
  }

  // ---- resizing

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
    Interpolation rows = new Interpolation(height, outHeight);
    Interpolation columns = new Interpolation(width, outWidth);
    FloatBuffer from = floats(x);
    FloatBuffer to = floats(y);
    int in = width * channels;
    int out = outWidth * channels;
    pool.parallelRanges(
        (long) batch * outHeight,
        8,
        (first, end) -> {
          float[] above = new float[in];
          float[] below = new float[in];
          float[] line = new float[in];
          float[] result = new float[out];
          for (int task = (int) first; task < end; task++) {
            int base = start(x) + task / outHeight * height * in;
            int oy = task % outHeight;
            from.get(base + rows.low[oy] * in, above);
            from.get(base + rows.high[oy] * in, below);
            blend(above, below, rows.weight[oy], line);
            if (accumulate) {
              to.get(start(y) + task * out, result);
            } else {
              Arrays.fill(result, 0);
            }
            for (int ox = 0; ox < outWidth; ox++) {
              mix(
                  result,
                  ox * channels,
                  line,
                  columns.low[ox] * channels,
                  columns.high[ox] * channels,
                  columns.weight[ox],
                  channels);
            }
            to.put(start(y) + task * out, result);
          }
        });
  }

  private static void blend(float[] a, float[] b, float weight, float[] y) {
    float rest = 1 - weight;
    for (int i = 0; i < y.length; i++) {
      y[i] = rest * a[i] + weight * b[i];
    }
  }

  private static void mix(float[] y, int at, float[] x, int low, int high, float weight, int n) {
    float rest = 1 - weight;
    for (int i = 0; i < n; i++) {
      y[at + i] += rest * x[low + i] + weight * x[high + i];
    }
  }

  void resizeBackward(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      Array dy,
      Array dx) {
    Interpolation rows = new Interpolation(height, outHeight);
    Interpolation columns = new Interpolation(width, outWidth);
    FloatBuffer from = floats(dy);
    FloatBuffer to = floats(dx);
    int in = width * channels;
    int out = outWidth * channels;
    pool.parallelRanges(
        (long) batch * height,
        4,
        (first, end) -> {
          float[] line = new float[out];
          float[] sum = new float[out];
          float[] result = new float[in];
          for (int task = (int) first; task < end; task++) {
            int base = start(dy) + task / height * outHeight * out;
            int iy = task % height;
            Arrays.fill(sum, 0);
            for (int k = rows.first[iy]; k < rows.first[iy + 1]; k++) {
              from.get(base + rows.reader[k] * out, line);
              add(sum, 0, line, 0, out, rows.share[k]);
            }
            Arrays.fill(result, 0);
            for (int ix = 0; ix < width; ix++) {
              for (int k = columns.first[ix]; k < columns.first[ix + 1]; k++) {
                add(
                    result,
                    ix * channels,
                    sum,
                    columns.reader[k] * channels,
                    channels,
                    columns.share[k]);
              }
            }
            to.put(start(dx) + task * in, result);
          }
        });
  }

  // ---- region pooling

  void regionPool(int batch, int height, int width, int rows, int columns, Array x, Array y) {
    boolean bytes = x.dtype() == DType.U8;
    ByteBuffer raw = bytes ? HostBuffer.of(x).bytesView() : null;
    FloatBuffer from = bytes ? null : floats(x);
    FloatBuffer to = floats(y);
    pool.parallelFor(
        batch,
        b -> {
          byte[] pixels = new byte[bytes ? width : 0];
          float[] line = new float[width];
          double[] sums = new double[rows * columns];
          for (int i = 0; i < height; i++) {
            if (bytes) {
              raw.get(start(x) + (b * height + i) * width, pixels);
              for (int j = 0; j < width; j++) {
                line[j] = pixels[j] & 0xff;
              }
            } else {
              from.get(start(x) + (b * height + i) * width, line);
            }
            for (int r = 0; r < rows; r++) {
              if (i < low(r, height, rows) || i >= high(r, height, rows)) {
                continue;
              }
              for (int c = 0; c < columns; c++) {
                double sum = 0;
                for (int j = low(c, width, columns); j < high(c, width, columns); j++) {
                  sum += line[j];
                }
                sums[r * columns + c] += sum;
              }
            }
          }
          for (int r = 0; r < rows; r++) {
            for (int c = 0; c < columns; c++) {
              int at = r * columns + c;
              to.put(
                  start(y) + b * rows * columns + at,
                  (float) (sums[at] / cell(r, c, height, width, rows, columns)));
            }
          }
        });
  }

  void regionPoolBackward(
      int batch, int height, int width, int rows, int columns, Array dy, Array dx) {
    FloatBuffer from = floats(dy);
    FloatBuffer to = floats(dx);
    pool.parallelFor(
        batch,
        b -> {
          float[] line = new float[width];
          for (int i = 0; i < height; i++) {
            Arrays.fill(line, 0);
            for (int r = 0; r < rows; r++) {
              if (i < low(r, height, rows) || i >= high(r, height, rows)) {
                continue;
              }
              for (int c = 0; c < columns; c++) {
                float g =
                    from.get(start(dy) + (b * rows + r) * columns + c)
                        / cell(r, c, height, width, rows, columns);
                for (int j = low(c, width, columns); j < high(c, width, columns); j++) {
                  line[j] += g;
                }
              }
            }
            to.put(start(dx) + (b * height + i) * width, line);
          }
        });
  }

  private static int low(int cell, int extent, int cells) {
    return cell * extent / cells;
  }

  private static int high(int cell, int extent, int cells) {
    return ((cell + 1) * extent + cells - 1) / cells;
  }

  private static int cell(int r, int c, int height, int width, int rows, int columns) {
    return (high(r, height, rows) - low(r, height, rows))
        * (high(c, width, columns) - low(c, width, columns));
  }
}
