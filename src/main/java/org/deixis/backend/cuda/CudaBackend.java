package org.deixis.backend.cuda;

import java.nio.ByteBuffer;
import java.util.List;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.backend.Backend;
import org.deixis.backend.Binary;
import org.deixis.backend.Conv2d;
import org.deixis.backend.Download;
import org.deixis.backend.Gemm;
import org.deixis.backend.Graphs;
import org.deixis.backend.KernelImages;
import org.deixis.backend.MaskLoss;
import org.deixis.backend.Memory;
import org.deixis.backend.PatchGather;
import org.deixis.backend.Reduction;
import org.deixis.backend.Unary;
import org.deixis.backend.WindowAttention;
import org.deixis.core.DType;
import org.deixis.core.Env;

/**
 * An NVIDIA GPU: kernels of our own ({@code cuda/*.cu}) through the driver API. Calls are
 * asynchronous, in one stream, and can be captured as graphs.
 */
public final class CudaBackend implements Backend, KernelImages {
  private final Driver driver;
  private final Staging staging;
  private final DeviceMemory memory;
  private final Kernels kernels;
  private final Products products;
  private final CudaMoves moves;
  private final CudaElementwise elementwise;
  private final Convolutions conv;
  private final CudaNorm norm;
  private final CudaGroupNorm groupNorm;
  private final CudaAttention attention;
  private final CudaRegionAttention regionAttention;
  private final CudaWindowAttention windowAttention;
  private final CudaGeometry geometry;
  private final CudaLoss loss;
  private final CudaOptimizer optimizer;
  private final CudaGraphs graphs;

  /**
   * @param compiler of the kernel files
   * @param caching whether freed memory is kept for the next buffer of its size; without, each
   *     buffer is a block of the driver's, which slows everything down and lets a guarding driver
   *     see what a kernel writes beside it
   * @param cublas whether products are cuBLASLt's; else our own kernel's
   * @param cudnn whether convolutions are cuDNN's; else products with patches
   */
  public CudaBackend(KernelCompiler compiler, boolean caching, boolean cublas, boolean cudnn) {
    driver = new Driver();
    staging = new Staging(driver);
    memory = new DeviceMemory(this, driver, caching);
    kernels = new Kernels(driver, compiler);
    moves = new CudaMoves(kernels, memory);
    elementwise = new CudaElementwise(kernels);
    PlainProducts plain = new PlainProducts(kernels);
    products =
        cublas
            ? new CublasLtProducts(
                driver,
                memory,
                plain,
                elementwise,
                DiskCache.folder(),
                Env.getInt("TUNE", 0, 0) > 0)
            : plain;
    Im2colConvolutions im2col = new Im2colConvolutions(kernels, memory, products, moves);
    conv = cudnn ? new CudnnConvolutions(driver, memory, moves, elementwise, im2col) : im2col;
    norm = new CudaNorm(kernels, memory);
    groupNorm = new CudaGroupNorm(kernels, memory, norm);
    attention = new CudaAttention(kernels, memory);
    regionAttention = new CudaRegionAttention(kernels, memory, moves);
    windowAttention = new CudaWindowAttention(kernels, memory, moves);
    geometry = new CudaGeometry(kernels, moves);
    loss = new CudaLoss(kernels, memory);
    graphs = new CudaGraphs(driver, memory, staging);
    optimizer = new CudaOptimizer(driver, staging, graphs, kernels, memory);
  }

  @Override
  public String name() {
    return "cuda";
  }

  CUstream_st stream() {
    return driver.stream();
  }

  /** The card's own name, and the newest CUDA that its driver knows. */
  @Override
  public String deviceName() {
    return driver.deviceName() + ", driver for CUDA " + driver.version();
  }

  @Override
  public int compileKernels(int threads) {
    return kernels.compileAll(threads);
  }

  Products products() {
    return products;
  }

  Convolutions convolutions() {
    return conv;
  }

  @Override
  public Memory memory() {
    return memory;
  }

  @Override
  public boolean supports(DType dtype) {
    return dtype == DType.F32 || dtype == DType.F16 || dtype == DType.BF16;
  }

  @Override
  public void upload(ByteBuffer source, Array target) {
    if (target.bytes() == 0) {
      return;
    }
    staging.upload(
        source.slice(source.position(), Math.toIntExact(target.bytes())),
        DeviceBuffer.address(target));
  }

  @Override
  public void download(Array source, ByteBuffer target) {
    if (source.bytes() == 0) {
      driver.synchronize();
      return;
    }
    staging.download(
        DeviceBuffer.address(source),
        target.slice(target.position(), Math.toIntExact(source.bytes())));
  }

  @Override
  public Download download(Array source) {
    return source.bytes() == 0
        ? () -> ByteBuffer.allocate(0)
        : staging.download(DeviceBuffer.address(source), source.bytes());
  }

  @Override
  public Graphs graphs() {
    return graphs;
  }

  @Override
  public void synchronize() {
    driver.synchronize();
  }

  @Override
  public void close() {
    optimizer.close();
    conv.close();
    products.close();
    memory.trim();
    staging.close();
    driver.close();
  }

  @Override
  public void fill(Array y, double value) {
    moves.fill(y, value);
  }

  @Override
  public void copy(Array x, Array y) {
    moves.copy(x, y);
  }

  @Override
  public void transpose(Array x, int[] permutation, Array y) {
    moves.transpose(x, permutation, y);
  }

  @Override
  public void copyColumns(
      int rows,
      int columns,
      Array x,
      int xOffset,
      int xStride,
      Array y,
      int yOffset,
      int yStride,
      boolean accumulate) {
    moves.copyColumns(rows, columns, x, xOffset, xStride, y, yOffset, yStride, accumulate);
  }

  @Override
  public void repeat(int outer, int times, int inner, Array x, Array y) {
    moves.repeat(outer, times, inner, x, y);
  }

  @Override
  public void reduce(Reduction kind, int outer, int axis, int inner, Array x, Array y) {
    moves.reduce(kind, outer, axis, inner, x, y);
  }

  @Override
  public void unary(Unary kind, Array x, Array y) {
    elementwise.unary(kind, x, y);
  }

  @Override
  public void unaryBackward(Unary kind, Array x, Array y, Array dy, Array dx) {
    elementwise.unaryBackward(kind, x, y, dy, dx);
  }

  @Override
  public void binary(
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
    elementwise.binary(kind, outer, middle, inner, bOuter, bMiddle, bInner, a, b, y);
  }

  @Override
  public void axpby(double alpha, Array x, double beta, Array y) {
    elementwise.axpby(alpha, x, beta, y);
  }

  @Override
  public void gemm(Gemm spec, Array a, Array b, Array bias, Array preActivation, Array c) {
    if (spec.batch() > 0 && spec.m() > 0 && spec.n() > 0) {
      products.gemm(spec, a, b, bias, preActivation, c);
    }
  }

  @Override
  public void gemmBackwardActivation(Gemm spec, Array a, Array b, Array preActivation, Array c) {
    if (c.size() > 0 && !products.gemmBackwardActivation(spec, a, b, preActivation, c)) {
      Backend.super.gemmBackwardActivation(spec, a, b, preActivation, c);
    }
  }

  @Override
  public void linearBackwardWeight(
      int rows, int in, int out, Array x, Array dy, Array dWeight, Array dBias) {
    Gemm spec = Gemm.of(out, in, rows, true, false);
    if (dBias == null
        || dWeight.size() == 0
        || !products.gemmWithSums(spec, dy, x, dWeight, dBias)) {
      Backend.super.linearBackwardWeight(rows, in, out, x, dy, dWeight, dBias);
    }
  }

  @Override
  public void conv2d(Conv2d spec, Array x, Array weight, Array bias, Array y) {
    conv.forward(spec, x, weight, bias, y);
  }

  @Override
  public void conv2dBackwardData(Conv2d spec, Array weight, Array dy, Array dx) {
    conv.backwardData(spec, weight, dy, dx);
  }

  @Override
  public void conv2dBackwardWeight(Conv2d spec, Array x, Array dy, Array dWeight) {
    conv.backwardWeight(spec, x, dy, dWeight);
  }

  @Override
  public void softmax(int rows, int columns, Array x, Array y) {
    norm.softmax(rows, columns, x, y);
  }

  @Override
  public void softmaxBackward(int rows, int columns, Array y, Array dy, Array dx) {
    norm.softmaxBackward(rows, columns, y, dy, dx);
  }

  @Override
  public void layerNorm(
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
    norm.layerNorm(rows, columns, eps, x, residual, gamma, beta, sum, y, stats);
  }

  @Override
  public void layerNormBackward(
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
    norm.layerNormBackward(rows, columns, x, gamma, stats, dy, extra, dx, dGamma, dBeta);
  }

  @Override
  public void groupNorm(
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
    groupNorm.groupNorm(batch, pixels, channels, groups, eps, x, gamma, beta, y, stats);
  }

  @Override
  public void groupNormBackward(
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
    groupNorm.groupNormBackward(
        batch, pixels, channels, groups, x, gamma, stats, dy, dx, dGamma, dBeta);
  }

  @Override
  public void windowAttention(
      WindowAttention spec, Array qkv, Array bias, Array table, Array y, Array lse) {
    windowAttention.forward(spec, qkv, bias, table, y, lse);
  }

  @Override
  public void windowAttentionBackward(
      WindowAttention spec,
      Array qkv,
      Array bias,
      Array table,
      Array y,
      Array lse,
      Array dy,
      Array dqkv,
      Array dBias,
      Array dTable) {
    windowAttention.backward(spec, qkv, bias, table, y, lse, dy, dqkv, dBias, dTable);
  }

  @Override
  public void attention(Attention spec, Array q, Array k, Array v, Array mask, Array y, Array lse) {
    attention.attention(spec, q, k, v, mask, y, lse);
  }

  @Override
  public void attentionBackward(
      Attention spec,
      Array q,
      Array k,
      Array v,
      Array mask,
      Array y,
      Array lse,
      Array dy,
      Array dq,
      Array dk,
      Array dv) {
    attention.attentionBackward(spec, q, k, v, mask, y, lse, dy, dq, dk, dv);
  }

  @Override
  public void regionAttention(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array q,
      Array k,
      Array v,
      Array y,
      Array map) {
    regionAttention.forward(batch, regions, pixels, dim, scale, q, k, v, y, map);
  }

  @Override
  public void regionAttentionBackward(
      int batch,
      int regions,
      int pixels,
      int dim,
      float scale,
      Array q,
      Array k,
      Array v,
      Array map,
      Array dy,
      Array dMap,
      Array dq,
      Array dk,
      Array dv) {
    regionAttention.backward(
        batch, regions, pixels, dim, scale, q, k, v, map, dy, dMap, dq, dk, dv);
  }

  @Override
  public void embedding(Array ids, Array table, Array y) {
    geometry.embedding(ids, table, y);
  }

  @Override
  public void embeddingBackward(Array ids, Array dy, Array dTable) {
    geometry.embeddingBackward(ids, dy, dTable);
  }

  @Override
  public void patchGather(PatchGather spec, Array x, Array y) {
    geometry.patchGather(spec, x, y);
  }

  @Override
  public void patchScatter(PatchGather spec, Array dy, Array dx) {
    geometry.patchScatter(spec, dy, dx);
  }

  @Override
  public void mergeGather(int batch, int height, int width, int channels, Array x, Array y) {
    geometry.merge("merge_gather", height, width, channels, x, y);
  }

  @Override
  public void mergeScatter(int batch, int height, int width, int channels, Array dy, Array dx) {
    geometry.merge("merge_scatter", height, width, channels, dy, dx);
  }

  @Override
  public void resize(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      boolean accumulate,
      Array x,
      Array y) {
    geometry.resize(height, width, channels, outHeight, outWidth, accumulate, x, y);
  }

  @Override
  public void resizeBackward(
      int batch,
      int height,
      int width,
      int channels,
      int outHeight,
      int outWidth,
      Array dy,
      Array dx) {
    geometry.resizeBackward(height, width, channels, outHeight, outWidth, dy, dx);
  }

  @Override
  public void regionPool(
      int batch, int height, int width, int rows, int columns, Array x, Array y) {
    geometry.regionPool(batch, height, width, rows, columns, x, y);
  }

  @Override
  public void regionPoolBackward(
      int batch, int height, int width, int rows, int columns, Array dy, Array dx) {
    geometry.regionPoolBackward(height, width, rows, columns, dy, dx);
  }

  @Override
  public void maskLoss(MaskLoss spec, Array logits, Array mask, Array losses, Array dLogits) {
    loss.maskLoss(spec, logits, mask, losses, dLogits);
  }

  @Override
  public void binaryLoss(
      boolean focal, float alpha, float gamma, Array x, Array target, Array losses, Array dx) {
    loss.binaryLoss(focal, alpha, gamma, x, target, losses, dx);
  }

  @Override
  public void crossEntropy(
      int rows, int classes, Array x, Array target, Array weight, Array losses, Array dx) {
    loss.crossEntropy(rows, classes, x, target, weight, losses, dx);
  }

  @Override
  public void gruCell(int batch, int hidden, Array gi, Array gh, Array h, Array y) {
    elementwise.gru(batch, hidden, gi, gh, h, y);
  }

  @Override
  public void gruCellBackward(
      int batch,
      int hidden,
      Array gi,
      Array gh,
      Array h,
      Array dy,
      Array dgi,
      Array dgh,
      Array dh) {
    elementwise.gruBackward(batch, hidden, gi, gh, h, dy, dgi, dgh, dh);
  }

  @Override
  public void dropout(double p, long block, long offset, Array rng, Array x, Array y) {
    elementwise.dropout(p, block, offset, rng, x, y);
  }

  @Override
  public void gradientNorm(List<Array> gradients, double maxNorm, Array control) {
    optimizer.norm(gradients, maxNorm, control);
  }

  @Override
  public void adamW(AdamW spec, List<AdamW.Slot> slots, Array control) {
    optimizer.step(spec, slots, control);
  }

  @Override
  public void advance(int growthInterval, Array control) {
    optimizer.advance(growthInterval, control);
  }
}
