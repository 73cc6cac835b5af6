package org.deixis.backend.cuda;

import org.deixis.backend.Array;
import org.deixis.backend.MaskLoss;

/** Launches of {@code loss.cu} and {@code mask_loss.cu}. */
final class CudaLoss {
  private static final String FILE = "loss";
  private static final int ROWS_AT_ONCE = 4;

  private static final String MASK_FILE = "mask_loss";
  private static final int MASK_THREADS = 128;
  private static final int SUMS = 4;

  /** Quantities sent back to the logits where the loss has a Dice term; else one. */
  private static final int PARTS = 3;

  /** Full-resolution columns of a block, about: four a thread. */
  private static final int SPAN = 4 * MASK_THREADS - 4;

  /** Rows of logits that a block takes. */
  private static final int ROWS_OF_RUN = 8;

  private final Kernels kernels;
  private final DeviceMemory memory;

  CudaLoss(Kernels kernels, DeviceMemory memory) {
    this.kernels = kernels;
    this.memory = memory;
  }

  void maskLoss(MaskLoss s, Array logits, Array mask, Array loss, Array dLogits) {
    if (s.batch() == 0) {
      return;
    }
    long pixels = (long) s.height() * s.width();
    int parts = s.diceWeight() == 0 ? 1 : PARTS;
    int columns =
        (int)
            Math.max(
                1, Math.min(s.lowWidth(), (long) SPAN * s.lowWidth() / Math.max(1, s.width()) - 1));
    int tiles = (s.lowWidth() + columns - 1) / columns;
    int runs = (s.lowHeight() + ROWS_OF_RUN - 1) / ROWS_OF_RUN;
    // Columns that read so many logits, and what rounding to fours adds at either end.
    int span = Math.toIntExact((columns + 1L) * s.width() / s.lowWidth() + 16);
    boolean backward = dLogits != null;
    long logitsOfBatch = (long) s.batch() * s.lowHeight() * s.lowWidth();
    DeviceBuffer partial = memory.scratch((long) s.batch() * runs * tiles * SUMS * Float.BYTES);
    DeviceBuffer factors = memory.scratch(2L * s.batch() * Float.BYTES);
    DeviceBuffer sent = backward ? memory.scratch(logitsOfBatch * parts * Float.BYTES) : null;
    DeviceBuffer edges =
        backward
            ? memory.scratch((long) s.batch() * runs * parts * s.lowWidth() * Float.BYTES)
            : null;
    try {
      kernels
          .of(MASK_FILE, (s.focal() ? "mask_bands_focal_" : "mask_bands_") + parts, logits)
          .i(s.lowHeight())
          .i(s.lowWidth())
          .i(s.height())
          .i(s.width())
          .f(s.alpha())
          .f(s.gamma())
          .i(ROWS_OF_RUN)
          .i(columns)
          .i(span)
          .p(logits)
          .p(mask)
          .i(Kernels.type(mask.dtype()))
          .p(partial)
          .p(sent)
          .p(edges)
          .grid(
              tiles,
              runs,
              s.batch(),
              MASK_THREADS,
              1,
              Kernels.SCRATCH + (backward ? 2 * parts * span * Float.BYTES : 0));
      kernels
          .of(MASK_FILE, "mask_total", logits)
          .i(s.batch())
          .i(runs * tiles)
          .l(pixels)
          .f(s.diceWeight())
          .p(partial)
          .p(loss)
          .p(factors)
          .over(s.batch());
      if (backward) {
        kernels
            .of(MASK_FILE, "mask_send", logits)
            .l(dLogits.size())
            .i(s.lowHeight())
            .i(s.lowWidth())
            .l(pixels)
            .i(ROWS_OF_RUN)
            .i(parts)
            .f(s.diceWeight())
            .p(factors)
            .p(sent)
            .p(edges)
            .p(dLogits)
            .over(dLogits.size());
      }
    } finally {
      partial.release();
      factors.release();
      if (backward) {
        sent.release();
        edges.release();
      }
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
