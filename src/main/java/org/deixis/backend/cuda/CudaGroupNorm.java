package org.deixis.backend.cuda;

import org.deixis.backend.Array;

/** Launches of {@code group_norm.cu}. */
final class CudaGroupNorm {
  private static final String FILE = "group_norm";

  /** Packs of a block's run of groups, where one group has no more: 1 KiB of a pixel. */
  private static final int RUN_PACKS = 64;

  /** Floats of shared memory a thread that merging moments takes. */
  private static final int MOMENTS = 3;

  private final Kernels kernels;
  private final DeviceMemory memory;
  private final CudaNorm norm;

  /**
   * @param norm that adds parts of columns
   */
  CudaGroupNorm(Kernels kernels, DeviceMemory memory, CudaNorm norm) {
    this.kernels = kernels;
    this.memory = memory;
    this.norm = norm;
  }

  /** Of gamma, beta and their gradients; any where there are none. */
  private static int type(Array gamma) {
    return gamma == null ? 0 : Kernels.type(gamma.dtype());
  }

  /**
   * How a map is cut into blocks.
   *
   * @param most groups in a run
   * @param chunks of pixels, one a block
   */
  private record Cut(
      int batch, int pixels, int channels, int groups, int most, int runs, Chunks chunks) {
    Launch of(Kernels kernels, String name, Array typed) {
      return kernels.of(FILE, name, typed).l(pixels).i(channels).i(groups).i(most).l(chunks.each());
    }

    void launch(Launch launch, int shared) {
      launch.grid(runs, chunks.count(), batch, Kernels.THREADS, 1, shared);
    }

    /** Bytes of shared memory for the sums of two values a channel and thread. */
    int columnSums(Array typed) {
      return 2 * Kernels.pack(typed.dtype()) * Kernels.THREADS * Float.BYTES;
    }
  }

  /** Null where groups are no whole packs, wider than a block, empty, or not aligned. */
  private Cut cut(int batch, int pixels, int channels, int groups, Array x, Array... others) {
    int width = channels / groups;
    int pack = Kernels.pack(x.dtype());
    if (width == 0 || width % pack != 0 || width / pack > Kernels.THREADS || pixels == 0) {
      return null;
    }
    if ((DeviceBuffer.address(x) | DeviceBuffer.addresses(others)) % (pack * x.dtype().bytes())
        != 0) {
      return null;
    }
    int atMost = Math.max(1, RUN_PACKS / (width / pack));
    int runs = (groups + atMost - 1) / atMost;
    Chunks chunks = Chunks.of(pixels, kernels.chunks(pixels, (long) runs * batch));
    return new Cut(batch, pixels, channels, groups, (groups + runs - 1) / runs, runs, chunks);
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
    if (batch == 0) {
      return;
    }
    Cut cut = cut(batch, pixels, channels, groups, x, gamma, beta, y);
    if (cut == null) {
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
      return;
    }
    long rows = (long) batch * groups;
    DeviceBuffer partial = memory.scratch(2 * rows * cut.chunks.count() * Float.BYTES);
    try {
      cut.launch(
          cut.of(kernels, "group_norm_moments", x).p(x).p(partial),
          MOMENTS * Kernels.THREADS * Float.BYTES);
      kernels
          .of(FILE, "group_norm_fold", x)
          .l(rows)
          .l(pixels)
          .i(channels / groups)
          .l(cut.chunks.each())
          .i(cut.chunks.count())
          .f(eps)
          .p(partial)
          .p(stats)
          .rows(rows, 1);
    } finally {
      partial.release();
    }
    cut.launch(
        cut.of(kernels, "group_norm_apply", x).p(x).p(gamma).p(beta).i(type(gamma)).p(stats).p(y),
        0);
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
    Cut cut = batch == 0 ? null : cut(batch, pixels, channels, groups, x, gamma, dy, dx);
    if (cut == null) {
      plainBackward(batch, pixels, channels, groups, x, gamma, stats, dy, dx, dGamma, dBeta);
      return;
    }
    long parts = 2L * batch * cut.chunks.count() * channels;
    long pictures = 2L * batch * channels;
    DeviceBuffer partial = memory.scratch(parts * Float.BYTES);
    DeviceBuffer sums = memory.scratch(pictures * Float.BYTES);
    DeviceBuffer means = memory.scratch(2L * batch * groups * Float.BYTES);
    try {
      cut.launch(
          cut.of(kernels, "group_norm_gradient_sums", x).p(x).p(stats).p(dy).p(partial),
          cut.columnSums(x));
      cut.of(kernels, "group_norm_gradient_fold", x)
          .i(cut.chunks.count())
          .p(partial)
          .p(gamma)
          .i(type(gamma))
          .p(sums)
          .p(means)
          .grid(cut.runs, 1, batch, Kernels.THREADS, 1, cut.columnSums(x));
      if (dGamma != null) {
        norm.addChunks(channels, batch, sums, dGamma, dBeta);
      }
      cut.launch(
          cut.of(kernels, "group_norm_gradient", x)
              .p(x)
              .p(gamma)
              .i(type(gamma))
              .p(stats)
              .p(means)
              .p(dy)
              .p(dx),
          0);
    } finally {
      means.release();
      sums.release();
      partial.release();
    }
  }

  private void plainBackward(
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
        norm.addChunks(channels, chunks * batch, partial, dGamma, dBeta);
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
