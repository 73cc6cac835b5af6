package org.deixis.backend.reference;

import org.deixis.backend.Array;

/** One step of a gated recurrent unit. */
final class ReferenceGru {
  private ReferenceGru() {}

  static void forward(int batch, int hidden, Array giArray, Array ghArray, Array hArray, Array y) {
    double[] gi = Values.read(giArray);
    double[] gh = Values.read(ghArray);
    double[] h = Values.read(hArray);
    double[] out = new double[batch * hidden];
    for (int b = 0; b < batch; b++) {
      for (int i = 0; i < hidden; i++) {
        int at = b * 3 * hidden + i;
        double r = ReferenceElementwise.sigmoid(gi[at] + gh[at]);
        double z = ReferenceElementwise.sigmoid(gi[at + hidden] + gh[at + hidden]);
        double n = Math.tanh(gi[at + 2 * hidden] + r * gh[at + 2 * hidden]);
        out[b * hidden + i] = (1 - z) * n + z * h[b * hidden + i];
      }
    }
    Values.write(out, y);
  }

  static void backward(
      int batch,
      int hidden,
      Array giArray,
      Array ghArray,
      Array hArray,
      Array dy,
      Array dgiArray,
      Array dghArray,
      Array dhArray) {
    double[] gi = Values.read(giArray);
    double[] gh = Values.read(ghArray);
    double[] h = Values.read(hArray);
    double[] up = Values.read(dy);
    double[] dgi = new double[gi.length];
    double[] dgh = new double[gh.length];
    double[] dh = new double[h.length];
    for (int b = 0; b < batch; b++) {
      for (int i = 0; i < hidden; i++) {
        int at = b * 3 * hidden + i;
        int state = b * hidden + i;
        double r = ReferenceElementwise.sigmoid(gi[at] + gh[at]);
        double z = ReferenceElementwise.sigmoid(gi[at + hidden] + gh[at + hidden]);
        double n = Math.tanh(gi[at + 2 * hidden] + r * gh[at + 2 * hidden]);
        double dn = up[state] * (1 - z) * (1 - n * n);
        double dz = up[state] * (h[state] - n) * z * (1 - z);
        double dr = dn * gh[at + 2 * hidden] * r * (1 - r);
        dgi[at] = dr;
        dgh[at] = dr;
        dgi[at + hidden] = dz;
        dgh[at + hidden] = dz;
        dgi[at + 2 * hidden] = dn;
        dgh[at + 2 * hidden] = dn * r;
        dh[state] = up[state] * z;
      }
    }
    Values.write(dgi, dgiArray);
    Values.write(dgh, dghArray);
    Values.write(dh, dhArray);
  }
}
