package org.deixis.backend.reference;

import org.deixis.backend.Array;
import org.deixis.backend.Attention;

/** Multi-head attention over short sequences, and region-image attention. */
final class ReferenceAttention {
  private ReferenceAttention() {}

  private static double dot(double[] a, int aStart, double[] b, int bStart, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
      sum += a[aStart + i] * b[bStart + i];
    }
    return sum;
  }

  /** target += factor · source, over n elements. */
  private static void add(
      double[] target, int targetStart, double factor, double[] source, int start, int n) {
    for (int i = 0; i < n; i++) {
      target[targetStart + i] += factor * source[start + i];
    }
  }

  private static int qStart(Attention s, int b, int head, int t) {
    return (b * s.queries() + t) * s.qStride() + s.qOffset() + head * s.headDim();
  }

  private static int kStart(Attention s, int b, int head, int t) {
    return (b * s.keys() + t) * s.kStride() + s.kOffset() + head * s.headDim();
  }

  private static int vStart(Attention s, int b, int head, int t) {
    return (b * s.keys() + t) * s.vStride() + s.vOffset() + head * s.headDim();
  }

  private static double[] scores(
      Attention s, double[] q, double[] k, double[] mask, int b, int head, int query) {
    double[] scores = new double[s.keys()];
    for (int j = 0; j < s.keys(); j++) {
      scores[j] =
          mask != null && mask[b * s.keys() + j] == 0
              ? Double.NEGATIVE_INFINITY
              : s.scale()
                  * dot(q, qStart(s, b, head, query), k, kStart(s, b, head, j), s.headDim());
    }
    return scores;
  }

  static void attention(
      Attention s, Array qArray, Array kArray, Array vArray, Array mask, Array y, Array lse) {
    double[] q = Values.read(qArray);
    double[] k = Values.read(kArray);
    double[] v = Values.read(vArray);
    double[] kept = Values.read(mask);
    double[] out = new double[(int) y.size()];
    double[] logSums = new double[s.batch() * s.heads() * s.queries()];
    int c = s.heads() * s.headDim();
    for (int b = 0; b < s.batch(); b++) {
      for (int head = 0; head < s.heads(); head++) {
        for (int i = 0; i < s.queries(); i++) {
          double[] p = scores(s, q, k, kept, b, head, i);
          logSums[(b * s.heads() + head) * s.queries() + i] = ReferenceNorm.softmax(p);
          int yStart = (b * s.queries() + i) * c + head * s.headDim();
          for (int j = 0; j < s.keys(); j++) {
            add(out, yStart, p[j], v, vStart(s, b, head, j), s.headDim());
          }
        }
      }
    }
    Values.write(out, y);
    Values.write(logSums, lse);
  }

  static void attentionBackward(
      Attention s,
      Array qArray,
      Array kArray,
      Array vArray,
      Array mask,
      Array dy,
      Array dqArray,
      Array dkArray,
      Array dvArray) {
    double[] q = Values.read(qArray);
    double[] k = Values.read(kArray);
    double[] v = Values.read(vArray);
    double[] kept = Values.read(mask);
    double[] up = Values.read(dy);
    double[] dq = new double[q.length];
    double[] dk = new double[k.length];
    double[] dv = new double[v.length];
    int c = s.heads() * s.headDim();
    int d = s.headDim();
    for (int b = 0; b < s.batch(); b++) {
      for (int head = 0; head < s.heads(); head++) {
        for (int i = 0; i < s.queries(); i++) {
          int yStart = (b * s.queries() + i) * c + head * d;
          double[] p = scores(s, q, k, kept, b, head, i);
          ReferenceNorm.softmax(p);
          double[] dp = new double[s.keys()];
          for (int j = 0; j < s.keys(); j++) {
            dp[j] = dot(up, yStart, v, vStart(s, b, head, j), d);
            add(dv, vStart(s, b, head, j), p[j], up, yStart, d);
          }
          double[] ds = ReferenceNorm.softmaxBackward(p, dp);
          for (int j = 0; j < s.keys(); j++) {
            double g = s.scale() * ds[j];
            add(dq, qStart(s, b, head, i), g, k, kStart(s, b, head, j), d);
            add(dk, kStart(s, b, head, j), g, q, qStart(s, b, head, i), d);
          }
        }
      }
    }
    storeColumns(dq, dqArray, s.batch() * s.queries(), s.qOffset(), s.qStride(), c);
    storeColumns(dk, dkArray, s.batch() * s.keys(), s.kOffset(), s.kStride(), c);
    storeColumns(dv, dvArray, s.batch() * s.keys(), s.vOffset(), s.vStride(), c);
  }

  /** Writes the columns that belong to one operand and leaves its neighbours' alone. */
  private static void storeColumns(
      double[] from, Array array, int rows, int offset, int stride, int columns) {
    Values to = Values.of(array);
    for (int row = 0; row < rows; row++) {
      for (int i = 0; i < columns; i++) {
        to.set(row * stride + offset + i, from[row * stride + offset + i]);
      }
    }
  }

  static void regionAttention(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array qArray,
      Array kArray,
      Array vArray,
      Array y,
      Array map) {
    double[] q = Values.read(qArray);
    double[] k = Values.read(kArray);
    double[] v = Values.read(vArray);
    double[] out = new double[(int) y.size()];
    double[] shares = new double[(int) map.size()];
    for (int b = 0; b < batch; b++) {
      for (int r = 0; r < regions; r++) {
        int region = b * regions + r;
        double[] p = new double[pixels];
        for (int j = 0; j < pixels; j++) {
          p[j] = scale * dot(q, region * dim, k, (b * pixels + j) * dim, dim);
        }
        ReferenceNorm.softmax(p);
        for (int j = 0; j < pixels; j++) {
          shares[region * pixels + j] = p[j];
          add(out, region * dim, p[j], v, (b * pixels + j) * dim, dim);
        }
      }
    }
    Values.write(out, y);
    Values.write(shares, map);
  }

  static void regionAttentionBackward(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array qArray,
      Array kArray,
      Array vArray,
      Array map,
      Array dy,
      Array dMap,
      Array dqArray,
      Array dkArray,
      Array dvArray) {
    double[] q = Values.read(qArray);
    double[] k = Values.read(kArray);
    double[] v = Values.read(vArray);
    double[] shares = Values.read(map);
    double[] up = Values.read(dy);
    double[] upMap = Values.read(dMap);
    double[] dq = new double[q.length];
    double[] dk = new double[k.length];
    double[] dv = new double[v.length];
    for (int b = 0; b < batch; b++) {
      for (int r = 0; r < regions; r++) {
        int region = b * regions + r;
        double[] p = new double[pixels];
        double[] dp = new double[pixels];
        for (int j = 0; j < pixels; j++) {
          int pixel = b * pixels + j;
          p[j] = shares[region * pixels + j];
          dp[j] = dot(up, region * dim, v, pixel * dim, dim);
          if (upMap != null) {
            dp[j] += upMap[region * pixels + j];
          }
          add(dv, pixel * dim, p[j], up, region * dim, dim);
        }
        double[] ds = ReferenceNorm.softmaxBackward(p, dp);
        for (int j = 0; j < pixels; j++) {
          int pixel = b * pixels + j;
          add(dq, region * dim, scale * ds[j], k, pixel * dim, dim);
          add(dk, pixel * dim, scale * ds[j], q, region * dim, dim);
        }
      }
    }
    Values.write(dq, dqArray);
    Values.write(dk, dkArray);
    Values.write(dv, dvArray);
  }
}
