package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.Binary;
import org.deixis.backend.Unary;

/** Launches of {@code elementwise.cu}; the kinds are the enums' ordinals. */
final class CudaElementwise {
  private static final String FILE = "elementwise";

  /** Packs a thread, as in the kernels: of one array read, and of each of several. */
  private static final int ONE = 4;

  private static final int TWO = 2;

  private final Kernels kernels;

  CudaElementwise(Kernels kernels) {
    this.kernels = kernels;
  }

  void unary(Unary kind, Array x, Array y) {
    kernels.of(FILE, "unary", x).i(kind.ordinal()).p(x).p(y).l(x.size()).packs(x, ONE);
  }

  void unaryBackward(Unary kind, Array x, Array y, Array dy, Array dx) {
    kernels
        .of(FILE, "unary_backward", x)
        .i(kind.ordinal())
        .p(x)
        .p(y)
        .p(dy)
        .p(dx)
        .l(x.size())
        .packs(x, TWO);
  }

  void binary(
      Binary kind,
      int outer,
      int middle,
      int inner,
      boolean bOuter,
      boolean bMiddle,
      boolean bInner,
      Array a,
      Array b,
      Array y) {
    long innerExtent = bInner ? inner : 1;
    long middleExtent = bMiddle ? middle : 1;
    boolean same = b.size() == a.size();
    kernels
        .of(FILE, "binary", a)
        .i(kind.ordinal())
        .i(same)
        .p(a)
        .p(b)
        .p(y)
        .l(a.size())
        .l(middle)
        .l(inner)
        .l(bOuter && outer > 1 ? middleExtent * innerExtent : 0)
        .l(bMiddle && middle > 1 ? innerExtent : 0)
        .l(bInner && inner > 1 ? 1 : 0)
        .packs(a, TWO);
  }

  void axpby(double alpha, Array x, double beta, Array y) {
    kernels.of(FILE, "axpby", x).f(alpha).p(x).f(beta).p(y).l(x.size()).packs(x, TWO);
  }

  void dropout(double p, long block, long offset, Array rng, Array x, Array y) {
    // A draw of 24 bits is at least p when as a whole number it is at least p·2²⁴.
    kernels
        .of(FILE, "dropout", x)
        .i((int) Math.ceil(p * 0x1p24))
        .f(1 / (1 - p))
        .l(block)
        .l(offset)
        .p(rng)
        .p(x)
        .p(y)
        .l(x.size())
        .packs(x, TWO);
  }

  void gru(int batch, int hidden, Array gi, Array gh, Array h, Array y) {
    long n = (long) batch * hidden;
    kernels.of(FILE, "gru", h).l(n).i(hidden).p(gi).p(gh).p(h).p(y).packs(h, 1);
  }

  void gruBackward(
      int batch,
      int hidden,
      Array gi,
      Array gh,
      Array h,
      Array dy,
      Array dgi,
      Array dgh,
      Array dh) {
    long n = (long) batch * hidden;
    kernels
        .of(FILE, "gru_backward", h)
        .l(n)
        .i(hidden)
        .p(gi)
        .p(gh)
        .p(h)
        .p(dy)
        .p(dgi)
        .p(dgh)
        .p(dh)
        .packs(h, 1);
  }
}
