package org.deixis.backend.reference;

import org.deixis.backend.Array;
import org.deixis.backend.WindowAttention;

/** Windowed attention, one window and head at a time. */
final class ReferenceWindowAttention {
  private static final int Q = 0;
  private static final int K = 1;
  private static final int V = 2;

  private final WindowAttention s;
  private final int tokens;
  private final int d;
  private final double scale;
  private final double[] qkv;
  private final double[] bias;
  private final double[] table;

  private ReferenceWindowAttention(WindowAttention spec, Array qkv, Array bias, Array table) {
    this.s = spec;
    this.tokens = spec.windowH() * spec.windowW();
    this.d = spec.headDim();
    this.scale = 1 / Math.sqrt(d);
    this.qkv = Values.read(qkv);
    this.bias = Values.read(bias);
    this.table = Values.read(table);
  }

  /** One head of one window: where its tokens come from, and what they hold. */
  private final class Window {
    final int head;
    final int[] position = new int[tokens]; // row of (B·H·W), or -1 for padding
    final int[] side = new int[tokens];
    final double[][] q;
    final double[][] k;
    final double[][] v;

    Window(int b, int window, int head) {
      this.head = head;
      int across = s.frameWidth() / s.windowW();
      for (int t = 0; t < tokens; t++) {
        int i = window / across * s.windowH() + t / s.windowW();
        int j = window % across * s.windowW() + t % s.windowW();
        int source = s.source(i, j);
        position[t] = source < 0 ? -1 : b * s.height() * s.width() + source;
        side[t] = s.side(i, j);
      }
      q = rows(Q);
      k = rows(K);
      v = rows(V);
    }

    private double[][] rows(int part) {
      double[][] rows = new double[tokens][d];
      for (int t = 0; t < tokens; t++) {
        for (int e = 0; e < d; e++) {
          rows[t][e] =
              position[t] >= 0
                  ? qkv[index(position[t], part, head) + e]
                  : bias == null ? 0 : bias[index(0, part, head) + e];
        }
      }
      return rows;
    }

    double[] scores(int query) {
      double[] scores = new double[tokens];
      for (int key = 0; key < tokens; key++) {
        double dot = 0;
        for (int e = 0; e < d; e++) {
          dot += q[query][e] * k[key][e];
        }
        scores[key] = scale * dot + table[tableRow(query, key) * s.heads() + head];
        if (side[query] != side[key]) {
          scores[key] += WindowAttention.MASKED;
        }
      }
      return scores;
    }
  }

  /** First element of one head's q, k or v in a row of (…, 3C). */
  private int index(int row, int part, int head) {
    return (row * 3 + part) * s.channels() + head * d;
  }

  private int tableRow(int query, int key) {
    int dy = query / s.windowW() - key / s.windowW() + s.windowH() - 1;
    int dx = query % s.windowW() - key % s.windowW() + s.windowW() - 1;
    return dy * (2 * s.windowW() - 1) + dx;
  }

  static void forward(
      WindowAttention spec, Array qkv, Array bias, Array table, Array y, Array lse) {
    new ReferenceWindowAttention(spec, qkv, bias, table).forward(y, lse);
  }

  private void forward(Array y, Array lse) {
    double[] out = new double[(int) y.size()];
    double[] logSums = new double[s.batch() * s.windows() * s.heads() * tokens];
    for (int b = 0; b < s.batch(); b++) {
      for (int window = 0; window < s.windows(); window++) {
        for (int head = 0; head < s.heads(); head++) {
          Window w = new Window(b, window, head);
          for (int query = 0; query < tokens; query++) {
            double[] p = w.scores(query);
            logSums[((b * s.windows() + window) * s.heads() + head) * tokens + query] =
                ReferenceNorm.softmax(p);
            if (w.position[query] < 0) {
              continue;
            }
            int start = w.position[query] * s.channels() + head * d;
            for (int key = 0; key < tokens; key++) {
              for (int e = 0; e < d; e++) {
                out[start + e] += p[key] * w.v[key][e];
              }
            }
          }
        }
      }
    }
    Values.write(out, y);
    Values.write(logSums, lse);
  }

  static void backward(
      WindowAttention spec,
      Array qkv,
      Array bias,
      Array table,
      Array dy,
      Array dqkv,
      Array dBias,
      Array dTable) {
    new ReferenceWindowAttention(spec, qkv, bias, table).backward(dy, dqkv, dBias, dTable);
  }

  private void backward(Array dy, Array dqkv, Array dBias, Array dTable) {
    double[] up = Values.read(dy);
    double[] gradient = new double[qkv.length];
    double[] biasGradient = new double[3 * s.channels()];
    double[] tableGradient = new double[table.length];
    for (int b = 0; b < s.batch(); b++) {
      for (int window = 0; window < s.windows(); window++) {
        for (int head = 0; head < s.heads(); head++) {
          Window w = new Window(b, window, head);
          double[][][] parts = windowBackward(w, up, tableGradient);
          for (int part = Q; part <= V; part++) {
            for (int t = 0; t < tokens; t++) {
              double[] target = w.position[t] >= 0 ? gradient : biasGradient;
              int start = index(Math.max(w.position[t], 0), part, head);
              for (int e = 0; e < d; e++) {
                target[start + e] += parts[part][t][e];
              }
            }
          }
        }
      }
    }
    Values.write(gradient, dqkv);
    Values.write(biasGradient, dBias);
    Values.write(tableGradient, dTable);
  }

  /** Gradients [q, k, v][token][element] of one window; a padded query's output reaches nobody. */
  private double[][][] windowBackward(Window w, double[] up, double[] tableGradient) {
    double[][][] parts = new double[3][tokens][d];
    for (int query = 0; query < tokens; query++) {
      if (w.position[query] < 0) {
        continue;
      }
      int start = w.position[query] * s.channels() + w.head * d;
      double[] p = w.scores(query);
      ReferenceNorm.softmax(p);
      double[] dp = new double[tokens];
      for (int key = 0; key < tokens; key++) {
        for (int e = 0; e < d; e++) {
          dp[key] += up[start + e] * w.v[key][e];
          parts[V][key][e] += p[key] * up[start + e];
        }
      }
      double[] ds = ReferenceNorm.softmaxBackward(p, dp);
      for (int key = 0; key < tokens; key++) {
        tableGradient[tableRow(query, key) * s.heads() + w.head] += ds[key];
        for (int e = 0; e < d; e++) {
          parts[Q][query][e] += scale * ds[key] * w.k[key][e];
          parts[K][key][e] += scale * ds[key] * w.q[query][e];
        }
      }
    }
    return parts;
  }
}
