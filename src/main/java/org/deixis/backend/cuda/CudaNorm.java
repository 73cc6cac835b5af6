package org.deixis.backend.cuda;

import org.deixis.backend.Array;

/** Launches of {@code norm.cu}. */
final class CudaNorm {
  private static final String FILE = "norm";
  private static final int MOST_CHUNKS = 65_535;

  private final Kernels kernels;
  private final DeviceMemory memory;

  CudaNorm(Kernels kernels, DeviceMemory memory) {
    this.kernels = kernels;
    this.memory = memory;
  }

  /** Of gamma, beta and their gradients; any where there are none. */
  private static int type(Array gamma) {
    return gamma == null ? 0 : Kernels.type(gamma.dtype());
  }

  void softmax(int rows, int columns, Array x, Array y) {
    if (columns > 0) {
      kernels.of(FILE, "softmax", x).l(rows).i(columns).p(x).p(y).rows(rows, columns);
    }
  }

  void softmaxBackward(int rows, int columns, Array y, Array dy, Array dx) {
    if (columns > 0) {
      kernels
          .of(FILE, "softmax_backward", y)
          .l(rows)
          .i(columns)
          .p(y)
          .p(dy)
          .p(dx)
          .f(1)
          .rows(rows, columns);
    }
  }

  void layerNorm(
      int rows,
      int columns,
      double eps,
      Array x,
      Array residual,
      Array gamma,
      Array beta,
      Array sum,
      Array y,
      Array stats) {
    kernels
        .of(FILE, "layer_norm", x)
        .l(rows)
        .i(columns)
        .f(eps)
        .p(x)
        .p(residual)
        .p(gamma)
        .p(beta)
        .i(type(gamma))
        .p(sum)
        .p(y)
        .p(stats)
        .rows(rows, columns);
  }

  void layerNormBackward(
      int rows,
      int columns,
      Array x,
      Array gamma,
      Array stats,
      Array dy,
      Array extra,
      Array dx,
      Array dGamma,
      Array dBeta) {
    if (dGamma != null && columns > 0) {
      // Before dx, which may lie over dy.
      int wide = (columns + Kernels.THREADS - 1) / Kernels.THREADS;
      int chunks = rows == 0 ? 0 : Math.min(MOST_CHUNKS, kernels.chunks(rows, wide));
      DeviceBuffer partial = memory.scratch(2L * Math.max(1, chunks) * columns * Float.BYTES);
      try {
        if (chunks > 0) {
          kernels
              .of(FILE, "layer_norm_columns", x)
              .l(rows)
              .i(columns)
              .l((rows + chunks - 1) / chunks)
              .p(x)
              .p(stats)
              .p(dy)
              .p(partial)
              .grid(wide, chunks, 1, Kernels.THREADS, 1, 0);
        }
        addChunks(columns, chunks, partial, dGamma, dBeta);
      } finally {
        partial.release();
      }
    }
    kernels
        .of(FILE, "layer_norm_backward", x)
        .l(rows)
        .i(columns)
        .p(x)
        .p(gamma)
        .i(type(gamma))
        .p(stats)
        .p(dy)
        .p(extra)
        .p(dx)
        .rows(rows, columns);
  }

  private void addChunks(int columns, int chunks, DeviceBuffer partial, Array dGamma, Array dBeta) {
    kernels
        .of(FILE, "add_chunks", 0)
        .i(columns)
        .i(chunks)
        .p(partial)
        .p(dGamma)
        .p(dBeta)
        .i(type(dGamma))
        .over(columns);
  }

  void groupNorm(
      int batch,
      int pixels,
      int channels,
      int groups,
      double eps,
      Array x,
      Array gamma,
      Array beta,
      Array y,
      Array stats) {
    if (batch > 0) {
      kernels
          .of(FILE, "group_norm", x)
          .l(pixels)
          .i(channels)
          .i(groups)
          .f(eps)
          .p(x)
          .p(gamma)
          .p(beta)
          .i(type(gamma))
          .p(y)
          .p(stats)
          .grid(groups, batch, 1, Kernels.THREADS, 1, Kernels.SCRATCH);
    }
  }

  void groupNormBackward(
      int batch,
      int pixels,
      int channels,
      int groups,
      Array x,
      Array gamma,
      Array stats,
      Array dy,
      Array dx,
      Array dGamma,
      Array dBeta) {
    if (dGamma != null) {
      int wide = (channels + Kernels.THREADS - 1) / Kernels.THREADS;
      int chunks = batch == 0 || pixels == 0 ? 0 : kernels.chunks(pixels, (long) wide * batch);
      DeviceBuffer partial =
          memory.scratch(2L * Math.max(1, chunks * batch) * channels * Float.BYTES);
      try {
        if (chunks > 0) {
          kernels
              .of(FILE, "group_norm_columns", x)
              .l(pixels)
              .i(channels)
              .i(groups)
              .l((pixels + chunks - 1) / chunks)
              .p(x)
              .p(stats)
              .p(dy)
              .p(partial)
              .grid(wide, chunks, batch, Kernels.THREADS, 1, 0);
        }
        addChunks(channels, chunks * batch, partial, dGamma, dBeta);
      } finally {
        partial.release();
      }
    }
    if (batch > 0) {
      kernels
          .of(FILE, "group_norm_backward", x)
          .l(pixels)
          .i(channels)
          .i(groups)
          .p(x)
          .p(gamma)
          .i(type(gamma))
          .p(stats)
          .p(dy)
          .p(dx)
          .grid(groups, batch, 1, Kernels.THREADS, 1, Kernels.SCRATCH);
    }
  }
}
