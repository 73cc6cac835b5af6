package org.deixis.backend.cpu;

import java.nio.FloatBuffer;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorSpecies;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;

/** Gated recurrent unit, and dropout. */
final class CpuRecurrent {
  private static final VectorSpecies<Float> S = VectorMath.SPECIES;
  private static final int L = VectorMath.LANES;

  private final WorkerPool pool;
  private final CpuDropout dropout;

  CpuRecurrent(WorkerPool pool) {
    this.pool = pool;
    this.dropout = new CpuDropout(pool);
  }

  /** Where an array's rows lie. */
  private record Rows(FloatBuffer floats, int start) {
    static Rows of(Array array) {
      return new Rows(HostBuffer.of(array).floats(), Math.toIntExact(array.offset()));
    }

    /** Copies row b of {@code parts} parts of {@code hidden}, each to a whole number of vectors. */
    void read(int b, int parts, int hidden, float[] tile) {
      for (int part = 0; part < parts; part++) {
        floats.get(
            start + (b * parts + part) * hidden, tile, part * VectorMath.pad(hidden), hidden);
      }
    }

    void write(int b, int parts, int hidden, float[] tile) {
      for (int part = 0; part < parts; part++) {
        floats.put(
            start + (b * parts + part) * hidden, tile, part * VectorMath.pad(hidden), hidden);
      }
    }
  }

  /** See {@link org.deixis.backend.Backend#gruCell}. */
  void gruCell(int batch, int hidden, Array gi, Array gh, Array h, Array y) {
    Rows input = Rows.of(gi);
    Rows state = Rows.of(gh);
    Rows old = Rows.of(h);
    Rows out = Rows.of(y);
    int pitch = VectorMath.pad(hidden);
    pool.parallelRanges(
        batch,
        Math.max(1, 4096 / Math.max(1, hidden)),
        (from, end) -> {
          Scratch scratch = Scratch.here();
          float[] a = scratch.floats(0, 3L * pitch);
          float[] b = scratch.floats(1, 3L * pitch);
          float[] c = scratch.floats(2, pitch);
          float[] d = scratch.floats(3, pitch);
          for (int row = (int) from; row < end; row++) {
            input.read(row, 3, hidden, a);
            state.read(row, 3, hidden, b);
            old.read(row, 1, hidden, c);
            forward(pitch, a, b, c, d);
            out.write(row, 1, hidden, d);
          }
        });
  }

  private static void forward(int pitch, float[] gi, float[] gh, float[] h, float[] y) {
    for (int i = 0; i < pitch; i += L) {
      FloatVector r = gate(gi, gh, i);
      FloatVector z = gate(gi, gh, pitch + i);
      FloatVector n = candidate(gi, gh, 2 * pitch + i, r);
      FloatVector old = FloatVector.fromArray(S, h, i);
      z.fma(old.sub(n), n).intoArray(y, i);
    }
  }

  private static FloatVector gate(float[] gi, float[] gh, int i) {
    return VectorMath.sigmoid(FloatVector.fromArray(S, gi, i).add(FloatVector.fromArray(S, gh, i)));
  }

  private static FloatVector candidate(float[] gi, float[] gh, int i, FloatVector r) {
    return VectorMath.tanh(FloatVector.fromArray(S, gh, i).fma(r, FloatVector.fromArray(S, gi, i)));
  }

  /** See {@link org.deixis.backend.Backend#gruCellBackward}. */
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
    Rows input = Rows.of(gi);
    Rows state = Rows.of(gh);
    Rows old = Rows.of(h);
    Rows up = Rows.of(dy);
    Rows toInput = Rows.of(dgi);
    Rows toState = Rows.of(dgh);
    Rows toOld = Rows.of(dh);
    int pitch = VectorMath.pad(hidden);
    pool.parallelRanges(
        batch,
        Math.max(1, 2048 / Math.max(1, hidden)),
        (from, end) -> {
          Scratch scratch = Scratch.here();
          float[] a = scratch.floats(0, 3L * pitch);
          float[] b = scratch.floats(1, 3L * pitch);
          float[] c = scratch.floats(2, pitch);
          float[] d = scratch.floats(3, pitch);
          for (int row = (int) from; row < end; row++) {
            input.read(row, 3, hidden, a);
            state.read(row, 3, hidden, b);
            old.read(row, 1, hidden, c);
            up.read(row, 1, hidden, d);
            backward(pitch, a, b, c, d);
            toInput.write(row, 3, hidden, a);
            toState.write(row, 3, hidden, b);
            toOld.write(row, 1, hidden, d);
          }
        });
  }

  /** Gradients replace gi, gh and dy. */
  private static void backward(int pitch, float[] gi, float[] gh, float[] h, float[] dy) {
    FloatVector one = FloatVector.broadcast(S, 1f);
    for (int i = 0; i < pitch; i += L) {
      FloatVector r = gate(gi, gh, i);
      FloatVector z = gate(gi, gh, pitch + i);
      FloatVector n = candidate(gi, gh, 2 * pitch + i, r);
      FloatVector up = FloatVector.fromArray(S, dy, i);
      FloatVector stay = one.sub(z);
      FloatVector dn = up.mul(stay).mul(one.sub(n.mul(n)));
      FloatVector dz = up.mul(FloatVector.fromArray(S, h, i).sub(n)).mul(z).mul(stay);
      FloatVector dr = dn.mul(FloatVector.fromArray(S, gh, 2 * pitch + i)).mul(r).mul(one.sub(r));
      dr.intoArray(gi, i);
      dr.intoArray(gh, i);
      dz.intoArray(gi, pitch + i);
      dz.intoArray(gh, pitch + i);
      dn.intoArray(gi, 2 * pitch + i);
      dn.mul(r).intoArray(gh, 2 * pitch + i);
      up.mul(z).intoArray(dy, i);
    }
  }

  /** See {@link org.deixis.backend.Backend#dropout}. */
  void dropout(double p, long block, long offset, Array rng, Array x, Array y) {
    dropout.dropout(p, block, offset, rng, x, y);
  }
}
