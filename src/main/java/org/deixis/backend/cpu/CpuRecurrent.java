package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.core.Rng;

/** The gated recurrent unit's step, and dropout. */
final class CpuRecurrent {
  private final WorkerPool pool;

  CpuRecurrent(WorkerPool pool) {
    this.pool = pool;
  }

  private static double sigmoid(double x) {
    return 1 / (1 + Math.exp(-x));
  }

  /** A (batch, width) array's rows [from, to) on the heap. */
  private static float[] rows(Array a, int width, int from, int to) {
    float[] v = new float[(to - from) * width];
    HostBuffer.of(a).floats().get(Math.toIntExact(a.offset()) + from * width, v);
    return v;
  }

  private static void put(float[] v, Array a, int width, int from) {
    HostBuffer.of(a).floats().put(Math.toIntExact(a.offset()) + from * width, v);
  }

  void gruCell(int batch, int hidden, Array gi, Array gh, Array h, Array y) {
    pool.parallelRanges(
        batch,
        Math.max(1, 512 / Math.max(1, hidden)),
        (a, b) -> {
          int from = (int) a;
          int to = (int) b;
          float[] i = rows(gi, 3 * hidden, from, to);
          float[] s = rows(gh, 3 * hidden, from, to);
          float[] old = rows(h, hidden, from, to);
          for (int k = 0; k < old.length; k++) {
            int at = k / hidden * 3 * hidden + k % hidden;
            double r = sigmoid(i[at] + s[at]);
            double z = sigmoid(i[at + hidden] + s[at + hidden]);
            double n = Math.tanh(i[at + 2 * hidden] + r * s[at + 2 * hidden]);
            old[k] = (float) ((1 - z) * n + z * old[k]);
          }
          put(old, y, hidden, from);
        });
  }

  void gruCellBackward(
      int batch,
      int hidden,
      Array gi,
      Array gh,
      Array h,
      Array dy,
      Array dgi,
      Array dgh,
      Array dh) {
    pool.parallelRanges(
        batch,
        Math.max(1, 512 / Math.max(1, hidden)),
        (a, b) -> {
          int from = (int) a;
          int to = (int) b;
          float[] i = rows(gi, 3 * hidden, from, to);
          float[] s = rows(gh, 3 * hidden, from, to);
          float[] old = rows(h, hidden, from, to);
          float[] up = rows(dy, hidden, from, to);
          for (int k = 0; k < old.length; k++) {
            int at = k / hidden * 3 * hidden + k % hidden;
            double r = sigmoid(i[at] + s[at]);
            double z = sigmoid(i[at + hidden] + s[at + hidden]);
            double m = s[at + 2 * hidden];
            double n = Math.tanh(i[at + 2 * hidden] + r * m);
            double dn = up[k] * (1 - z) * (1 - n * n);
            double dz = up[k] * (old[k] - n) * z * (1 - z);
            double dr = dn * m * r * (1 - r);
            i[at] = (float) dr;
            s[at] = (float) dr;
            i[at + hidden] = (float) dz;
            s[at + hidden] = (float) dz;
            i[at + 2 * hidden] = (float) dn;
            s[at + 2 * hidden] = (float) (dn * r);
            old[k] = (float) (up[k] * z);
          }
          put(i, dgi, 3 * hidden, from);
          put(s, dgh, 3 * hidden, from);
          put(old, dh, hidden, from);
        });
  }

  void dropout(double p, long block, long offset, Array rng, Array x, Array y) {
    LongBuffer state = HostBuffer.of(rng).longs();
    long seed = state.get(Math.toIntExact(rng.offset()));
    long stream = state.get(Math.toIntExact(rng.offset()) + 1);
    float scale = (float) (1 / (1 - p));
    FloatBuffer from = HostBuffer.of(x).floats();
    FloatBuffer to = HostBuffer.of(y).floats();
    int xStart = Math.toIntExact(x.offset());
    int yStart = Math.toIntExact(y.offset());
    pool.parallelRanges(
        x.size(),
        4096,
        (a, b) -> {
          float[] tile = Tile.here().a;
          int[] words = new int[4];
          long drawn = -1;
          for (long i = a; i < b; i += tile.length) {
            int n = (int) Math.min(tile.length, b - i);
            from.get(xStart + (int) i, tile, 0, n);
            for (int k = 0; k < n; k++) {
              long draw = offset + (i + k) / block;
              if (draw >>> 2 != drawn) {
                drawn = draw >>> 2;
                Rng.philox(seed, stream, drawn, words);
              }
              float uniform = (words[(int) (draw & 3)] >>> 8) * 0x1p-24f;
              tile[k] = uniform >= p ? tile[k] * scale : 0;
            }
            to.put(yStart + (int) i, tile, 0, n);
          }
        });
  }
}
