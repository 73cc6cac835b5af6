package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.util.Arrays;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;

/**
 * Bilinear resizing of channels-last maps, one axis after the other: rows are mixed whole, then
 * pixels within the mixed row. Backward gathers, so each sum has one order: an input row collects
 * the output rows that read it, and in their mixture each pixel the pixels that read it.
 *
 * <p>A pixel's channels are handled by whole vectors that may reach into the next pixel, which is
 * written afterwards.
 */
final class CpuResize {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final int L = VectorMath.LANES;

  /** Elements below which output rows share a task. */
  private static final int GRAIN = 16 * 1024;

  private final WorkerPool pool;

  CpuResize(WorkerPool pool) {
    this.pool = pool;
  }

  private void rows(int count, long elements, java.util.function.IntConsumer body) {
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

  /** See {@link org.deixis.backend.Backend#resize}. */
  void forward(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      boolean accumulate,
      Array x,
      Array y) {
    if (y.size() == 0) {
      return;
    }
    Taps vertical = Taps.of(height, outHeight);
    Taps horizontal = Taps.of(width, outWidth);
    FloatBuffer from = HostBuffer.of(x).floats();
    FloatBuffer to = HostBuffer.of(y).floats();
    int row = width * channels;
    int outRow = outWidth * channels;
    rows(
        batch * outHeight,
        row + outRow,
        task -> {
          Scratch scratch = Scratch.here();
          float[] top = scratch.floats(0, row + L);
          float[] bottom = scratch.floats(1, row + L);
          float[] out = scratch.floats(2, outRow + L);
          int b = task / outHeight;
          int i = task % outHeight;
          int base = Math.toIntExact(x.offset()) + b * height * row;
          from.get(base + vertical.low[i] * row, top, 0, row);
          if (vertical.share[i] != 0 && vertical.high[i] != vertical.low[i]) {
            from.get(base + vertical.high[i] * row, bottom, 0, row);
            mix(row, vertical.share[i], top, bottom);
          }
          spread(horizontal, channels, top, out);
          int at = Math.toIntExact(y.offset()) + task * outRow;
          if (accumulate) {
            float[] sum = scratch.floats(3, outRow);
            to.get(at, sum, 0, outRow);
            AttentionTile.add(outRow, sum, 0, out, 0);
          }
          to.put(at, out, 0, outRow);
        });
  }

  /** top += share · (bottom − top). */
  private static void mix(int n, float share, float[] top, float[] bottom) {
    for (int i = 0; i < n; i += L) {
      FloatVector a = FloatVector.fromArray(S, top, i);
      FloatVector.fromArray(S, bottom, i)
          .sub(a)
          .fma(FloatVector.broadcast(S, share), a)
          .intoArray(top, i);
    }
  }

  private static void spread(Taps taps, int channels, float[] row, float[] out) {
    if (channels == 1) {
      for (int j = 0; j < taps.out; j++) {
        float left = row[taps.low[j]];
        out[j] = left + taps.share[j] * (row[taps.high[j]] - left);
      }
      return;
    }
    for (int j = 0; j < taps.out; j++) {
      int left = taps.low[j] * channels;
      int right = taps.high[j] * channels;
      FloatVector share = FloatVector.broadcast(S, taps.share[j]);
      int to = j * channels;
      for (int c = 0; c < channels; c += L) {
        FloatVector a = FloatVector.fromArray(S, row, left + c);
        FloatVector.fromArray(S, row, right + c).sub(a).fma(share, a).intoArray(out, to + c);
      }
    }
  }

  /** See {@link org.deixis.backend.Backend#resizeBackward}. */
  void backward(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      Array dy,
      Array dx) {
    if (dx.size() == 0) {
      return;
    }
    Taps vertical = Taps.of(height, outHeight);
    Taps horizontal = Taps.of(width, outWidth);
    FloatBuffer from = HostBuffer.of(dy).floats();
    FloatBuffer to = HostBuffer.of(dx).floats();
    int row = width * channels;
    int outRow = outWidth * channels;
    rows(
        batch * height,
        row + 2L * outRow * Math.max(1, outHeight / height),
        task -> {
          Scratch scratch = Scratch.here();
          float[] line = scratch.floats(0, outRow + L);
          float[] sum = scratch.floats(1, outRow + L);
          float[] out = scratch.floats(2, row + L);
          Arrays.fill(sum, 0, outRow + L, 0);
          int b = task / height;
          int r = task % height;
          for (int i = vertical.first[Math.max(0, r - 1)]; i < vertical.first[r + 1]; i++) {
            float weight = weight(vertical, i, r);
            if (weight != 0) {
              int at = Math.toIntExact(dy.offset()) + (b * outHeight + i) * outRow;
              from.get(at, line, 0, outRow);
              addScaled(outRow, weight, line, sum);
            }
          }
          collect(horizontal, channels, sum, out);
          to.put(Math.toIntExact(dx.offset()) + task * row, out, 0, row);
        });
  }

  /** What output i takes of input r. */
  private static float weight(Taps taps, int i, int r) {
    float weight = taps.low[i] == r ? 1 - taps.share[i] : 0;
    return taps.high[i] == r ? weight + taps.share[i] : weight;
  }

  private static void addScaled(int n, float weight, float[] from, float[] to) {
    for (int i = 0; i < n; i += L) {
      FloatVector.fromArray(S, from, i)
          .fma(FloatVector.broadcast(S, weight), FloatVector.fromArray(S, to, i))
          .intoArray(to, i);
    }
  }

  /** The adjoint of {@link #spread}. */
  private static void collect(Taps taps, int channels, float[] row, float[] out) {
    for (int r = 0; r < taps.in; r++) {
      int first = taps.first[Math.max(0, r - 1)];
      int end = taps.first[r + 1];
      if (channels == 1) {
        float sum = 0;
        for (int j = first; j < end; j++) {
          sum += weight(taps, j, r) * row[j];
        }
        out[r] = sum;
        continue;
      }
      for (int c = 0; c < channels; c += L) {
        FloatVector sum = FloatVector.zero(S);
        for (int j = first; j < end; j++) {
          sum =
              FloatVector.fromArray(S, row, j * channels + c)
                  .fma(FloatVector.broadcast(S, weight(taps, j, r)), sum);
        }
        sum.intoArray(out, r * channels + c);
      }
    }
  }
}
