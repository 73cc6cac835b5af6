package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.MaskLoss;

/** Launches of {@code loss.cu}. */
final class CudaLoss {
  private static final String FILE = "loss";
  private static final int ROWS_AT_ONCE = 4;
  private static final int SUMS = 4;

  private final Kernels kernels;
  private final DeviceMemory memory;

  CudaLoss(Kernels kernels, DeviceMemory memory) {
    this.kernels = kernels;
    this.memory = memory;
  }

  private static Launch shape(Launch launch, MaskLoss s) {
    return launch
        .i(s.lowHeight())
        .i(s.lowWidth())
        .i(s.height())
        .i(s.width())
        .i(s.focal())
        .f(s.alpha())
        .f(s.gamma());
  }

  void maskLoss(MaskLoss s, Array logits, Array mask, Array loss, Array dLogits) {
    if (s.batch() == 0) {
      return;
    }
    long pixels = (long) s.height() * s.width();
    int chunks =
        (int)
            Math.max(
                1,
                Math.min(kernels.gridFor(pixels), kernels.gridFor(pixels * s.batch()) / s.batch()));
    int type = Kernels.type(mask.dtype());
    DeviceBuffer partial = memory.scratch((long) s.batch() * chunks * SUMS * Float.BYTES);
    DeviceBuffer factors = memory.scratch(2L * s.batch() * Float.BYTES);
    try {
      shape(kernels.of(FILE, "mask_sums", logits), s)
          .p(logits)
          .p(mask)
          .i(type)
          .p(partial)
          .grid(chunks, s.batch(), 1, Kernels.THREADS, 1, Kernels.SCRATCH);
      kernels
          .of(FILE, "mask_total", logits)
          .i(s.batch())
          .i(chunks)
          .l(pixels)
          .f(s.diceWeight())
          .p(partial)
          .p(loss)
          .p(factors)
          .over(s.batch());
      if (dLogits != null) {
        shape(kernels.of(FILE, "mask_gradient", logits).l(dLogits.size()), s)
            .f(s.diceWeight())
            .p(logits)
            .p(mask)
            .i(type)
            .p(factors)
            .p(dLogits)
            .over(dLogits.size());
      }
    } finally {
      partial.release();
      factors.release();
    }
  }

  void binaryLoss(
      boolean focal, float alpha, float gamma, Array x, Array target, Array loss, Array dx) {
    kernels
        .of(FILE, "binary_loss", x)
        .i(focal)
        .f(alpha)
        .f(gamma)
        .p(x)
        .p(target)
        .i(Kernels.type(target.dtype()))
        .p(loss)
        .p(dx)
        .l(x.size())
        .over(x.size());
  }

  void crossEntropy(
      int rows, int classes, Array x, Array target, Array weight, Array loss, Array dx) {
    int blocks = (rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    DeviceBuffer each = memory.scratch(2L * rows * Float.BYTES);
    DeviceBuffer totals = memory.scratch(2L * Float.BYTES);
    try {
      if (rows > 0) {
        kernels
            .of(FILE, "cross_entropy_rows", x)
            .l(rows)
            .i(classes)
            .p(x)
            .p(target)
            .p(weight)
            .p(each)
            .grid(blocks, 1, 1, 32, ROWS_AT_ONCE, 0);
      }
      kernels
          .of(FILE, "cross_entropy_total", x)
          .l(rows)
          .p(each)
          .p(loss)
          .p(totals)
          .grid(1, 1, 1, Kernels.THREADS, 1, Kernels.SCRATCH);
      if (dx != null && rows > 0) {
        kernels
            .of(FILE, "cross_entropy_gradient", x)
            .l(rows)
            .i(classes)
            .p(x)
            .p(target)
            .p(weight)
            .p(totals)
            .p(dx)
            .grid(blocks, 1, 1, 32, ROWS_AT_ONCE, 0);
      }
    } finally {
      each.release();
      totals.release();
    }
  }
}
