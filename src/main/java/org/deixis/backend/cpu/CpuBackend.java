package org.deixis.backend.cpu;

import java.nio.ByteBuffer;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicBoolean;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.backend.Backend;
import org.deixis.backend.Binary;
import org.deixis.backend.Conv2d;
import org.deixis.backend.Gemm;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.HostMemory;
import org.deixis.backend.MaskLoss;
import org.deixis.backend.Memory;
import org.deixis.backend.PatchGather;
import org.deixis.backend.Reduction;
import org.deixis.backend.Unary;
import org.deixis.backend.WindowAttention;
import org.deixis.core.DType;
import org.deixis.core.Env;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The processor: oneDNN and loops over tiles, shared among a fixed pool of threads. Calls are
 * synchronous.
 */
public final class CpuBackend implements Backend {
  private static final Logger LOG = LoggerFactory.getLogger(CpuBackend.class);

  private static final AtomicBoolean WARNED = new AtomicBoolean();

  /** Kernels that convert half types themselves. */
  static final Set<String> HALF_METHODS = Set.of("copy");

  private final HostMemory memory = new HostMemory(this);
  private final WorkerPool pool;
  private final CpuGemm gemm;
  private final CpuElementwise elementwise;
  private final CpuMove move;
  private final CpuReduce reduce;
  private final CpuLinear linear;
  private final CpuConv conv;
  private final CpuNorm norm;
  private final CpuGroupNorm groupNorm;
  private final CpuWindowAttention windowAttention;
  private final CpuAttention attention;
  private final CpuRegionAttention regionAttention;
  private final CpuGeometry geometry;
  private final CpuLoss loss;
  private final CpuRecurrent recurrent;
  private final CpuOptimizer optimizer;

  /** A backend of {@link Env#threads} threads. */
  public CpuBackend() {
    this(Env.threads());
  }

  /**
   * @param threads threads to compute with, the calling one included
   */
  public CpuBackend(int threads) {
    if (!"1".equals(System.getenv("OMP_NUM_THREADS")) && WARNED.compareAndSet(false, true)) {
      LOG.warn(
          "OMP_NUM_THREADS is not 1: oneDNN's own threads will get in the way of ours and slow"
              + " everything down; set OMP_NUM_THREADS=1 before java starts, as the launcher deixis"
              + " does");
    }
    pool = new WorkerPool(threads);
    gemm = new CpuGemm(pool);
    elementwise = new CpuElementwise(pool);
    move = new CpuMove(pool);
    reduce = new CpuReduce(pool, gemm, move);
    linear = new CpuLinear(pool, gemm, reduce);
    conv = new CpuConv(pool);
    norm = new CpuNorm(pool, reduce);
    groupNorm = new CpuGroupNorm(pool);
    windowAttention = new CpuWindowAttention(pool);
    attention = new CpuAttention(pool);
    regionAttention = new CpuRegionAttention(pool);
    geometry = new CpuGeometry(pool);
    loss = new CpuLoss(pool);
    recurrent = new CpuRecurrent(pool);
    optimizer = new CpuOptimizer(pool);
  }

  WorkerPool pool() {
    return pool;
  }

  @Override
  public String name() {
    return "cpu";
  }

  @Override
  public Memory memory() {
    return memory;
  }

  @Override
  public boolean supports(DType dtype) {
    return dtype == DType.F32;
  }

  @Override
  public boolean freezes(DType products) {
    FrozenWeights.check(products);
    return true;
  }

  @Override
  public void freeze(Array weight, DType products) {
    FrozenWeights.check(products);
    HostBuffer.of(weight).derive(new FrozenWeights(weight.backend().memory(), products));
  }

  @Override
  public void upload(ByteBuffer source, Array target) {
    // Every platform that the native libraries exist for is little-endian.
    bytes(target).put(source.slice(source.position(), Math.toIntExact(target.bytes())));
  }

  @Override
  public void download(Array source, ByteBuffer target) {
    target.duplicate().put(bytes(source));
  }

  private static ByteBuffer bytes(Array array) {
    int start = Math.toIntExact(array.offset() * array.dtype().bytes());
    return HostBuffer.of(array).bytesView().slice(start, Math.toIntExact(array.bytes()));
  }

  @Override
  public void synchronize() {
    // every call has done its work when it returns
  }

  @Override
  public void close() {
    pool.close();
    memory.trim();
  }

  @Override
  public void fill(Array y, double value) {
    move.fill(y, value);
  }

  @Override
  public void copy(Array x, Array y) {
    move.copy(x, y);
  }

  @Override
  public void transpose(Array x, int[] permutation, Array y) {
    move.transpose(x, permutation, y);
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
    move.copyColumns(rows, columns, x, xOffset, xStride, y, yOffset, yStride, accumulate);
  }

  @Override
  public void repeat(int outer, int times, int inner, Array x, Array y) {
    move.repeat(outer, times, inner, x, y);
  }

  @Override
  public void reduce(Reduction kind, int outer, int axis, int inner, Array x, Array y) {
    reduce.reduce(kind, outer, axis, inner, x, y);
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
    gemm.gemm(spec, a, b, bias, preActivation, c);
  }

  @Override
  public void linearBackwardWeight(
      int rows, int in, int out, Array x, Array dy, Array dWeight, Array dBias) {
    linear.backwardWeight(rows, in, out, x, dy, dWeight, dBias);
  }

  @Override
  public void conv2d(Conv2d spec, Array x, Array weight, Array bias, Array y) {
    conv.conv2d(spec, x, weight, bias, y);
  }

  @Override
  public void conv2dBackwardData(Conv2d spec, Array weight, Array dy, Array dx) {
    conv.conv2dBackwardData(spec, weight, dy, dx);
  }

  @Override
  public void conv2dBackwardWeight(Conv2d spec, Array x, Array dy, Array dWeight) {
    conv.conv2dBackwardWeight(spec, x, dy, dWeight);
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
    windowAttention.windowAttention(spec, qkv, bias, table, y, lse);
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
    windowAttention.windowAttentionBackward(
        spec, qkv, bias, table, y, lse, dy, dqkv, dBias, dTable);
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
    regionAttention.regionAttention(batch, regions, pixels, dim, scale, q, k, v, y, map);
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
    regionAttention.regionAttentionBackward(
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
    geometry.mergeGather(batch, height, width, channels, x, y);
  }

  @Override
  public void mergeScatter(int batch, int height, int width, int channels, Array dy, Array dx) {
    geometry.mergeScatter(batch, height, width, channels, dy, dx);
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
    geometry.resize(batch, height, width, channels, outHeight, outWidth, accumulate, x, y);
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
    geometry.resizeBackward(batch, height, width, channels, outHeight, outWidth, dy, dx);
  }

  @Override
  public void regionPool(
      int batch, int height, int width, int rows, int columns, Array x, Array y) {
    geometry.regionPool(batch, height, width, rows, columns, x, y);
  }

  @Override
  public void regionPoolBackward(
      int batch, int height, int width, int rows, int columns, Array dy, Array dx) {
    geometry.regionPoolBackward(batch, height, width, rows, columns, dy, dx);
  }

  @Override
  public void maskLoss(MaskLoss spec, Array logits, Array mask, Array loss, Array dLogits) {
    this.loss.maskLoss(spec, logits, mask, loss, dLogits);
  }

  @Override
  public void binaryLoss(
      boolean focal, float alpha, float gamma, Array x, Array target, Array loss, Array dx) {
    this.loss.binaryLoss(focal, alpha, gamma, x, target, loss, dx);
  }

  @Override
  public void crossEntropy(
      int rows, int classes, Array x, Array target, Array weight, Array loss, Array dx) {
    this.loss.crossEntropy(rows, classes, x, target, weight, loss, dx);
  }

  @Override
  public void gruCell(int batch, int hidden, Array gi, Array gh, Array h, Array y) {
    recurrent.gruCell(batch, hidden, gi, gh, h, y);
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
    recurrent.gruCellBackward(batch, hidden, gi, gh, h, dy, dgi, dgh, dh);
  }

  @Override
  public void dropout(double p, long block, long offset, Array rng, Array x, Array y) {
    recurrent.dropout(p, block, offset, rng, x, y);
  }

  @Override
  public void gradientNorm(List<Array> gradients, double maxNorm, Array control) {
    optimizer.gradientNorm(gradients, maxNorm, control);
  }

  @Override
  public void adamW(AdamW spec, List<AdamW.Slot> slots, Array control) {
    optimizer.adamW(spec, slots, control);
  }

  @Override
  public void advance(int growthInterval, Array control) {
    optimizer.advance(growthInterval, control);
  }
}
