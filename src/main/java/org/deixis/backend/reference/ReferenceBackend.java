package org.deixis.backend.reference;

import java.nio.ByteBuffer;
import java.nio.LongBuffer;
import java.util.List;
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

/**
 * Every kernel as plain loops in double precision, one thread, no blocking: what the other backends
 * are compared with. It rounds only when it stores, so its F64 results serve finite differences and
 * its half results are those of an exact computation. Backward kernels recompute what others keep
 * (y, lse) and do not read it.
 */
public final class ReferenceBackend implements Backend {
  public static final String NAME = "reference";

  private final HostMemory memory = new HostMemory(this);

  @Override
  public String name() {
    return NAME;
  }

  @Override
  public Memory memory() {
    return memory;
  }

  @Override
  public boolean supports(DType dtype) {
    return dtype.isFloating();
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
    // Each call has done its work when it returns.
  }

  @Override
  public void close() {
    memory.trim();
  }

  private static long[] words(Array rng) {
    LongBuffer longs = HostBuffer.of(rng).longs();
    int at = Math.toIntExact(rng.offset());
    return new long[] {longs.get(at), longs.get(at + 1)};
  }

  @Override
  public void fill(Array y, double value) {
    ReferenceMoves.fill(y, value);
  }

  @Override
  public void copy(Array x, Array y) {
    ReferenceMoves.copy(x, y);
  }

  @Override
  public void transpose(Array x, int[] permutation, Array y) {
    ReferenceMoves.transpose(x, permutation, y);
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
    ReferenceMoves.copyColumns(rows, columns, x, xOffset, xStride, y, yOffset, yStride, accumulate);
  }

  @Override
  public void repeat(int outer, int times, int inner, Array x, Array y) {
    ReferenceMoves.repeat(outer, times, inner, x, y);
  }

  @Override
  public void reduce(Reduction kind, int outer, int axis, int inner, Array x, Array y) {
    ReferenceMoves.reduce(kind, outer, axis, inner, x, y);
  }

  @Override
  public void unary(Unary kind, Array x, Array y) {
    ReferenceElementwise.unary(kind, x, y);
  }

  @Override
  public void unaryBackward(Unary kind, Array x, Array y, Array dy, Array dx) {
    ReferenceElementwise.unaryBackward(kind, x, dy, dx);
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
    ReferenceElementwise.binary(kind, outer, middle, inner, bOuter, bMiddle, bInner, a, b, y);
  }

  @Override
  public void axpby(double alpha, Array x, double beta, Array y) {
    ReferenceElementwise.axpby(alpha, x, beta, y);
  }

  @Override
  public void gemm(Gemm spec, Array a, Array b, Array bias, Array preActivation, Array c) {
    ReferenceProducts.gemm(spec, a, b, bias, preActivation, c);
  }

  @Override
  public void conv2d(Conv2d spec, Array x, Array weight, Array bias, Array y) {
    ReferenceProducts.conv2d(spec, x, weight, bias, y);
  }

  @Override
  public void conv2dBackwardData(Conv2d spec, Array weight, Array dy, Array dx) {
    ReferenceProducts.conv2dBackwardData(spec, weight, dy, dx);
  }

  @Override
  public void conv2dBackwardWeight(Conv2d spec, Array x, Array dy, Array dWeight) {
    ReferenceProducts.conv2dBackwardWeight(spec, x, dy, dWeight);
  }

  @Override
  public void softmax(int rows, int columns, Array x, Array y) {
    ReferenceNorm.softmax(rows, columns, x, y);
  }

  @Override
  public void softmaxBackward(int rows, int columns, Array y, Array dy, Array dx) {
    ReferenceNorm.softmaxBackward(rows, columns, y, dy, dx);
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
    ReferenceNorm.layerNorm(rows, columns, eps, x, residual, gamma, beta, sum, y, stats);
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
    ReferenceNorm.layerNormBackward(rows, columns, x, gamma, stats, dy, extra, dx, dGamma, dBeta);
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
    ReferenceNorm.groupNorm(batch, pixels, channels, groups, eps, x, gamma, beta, y, stats);
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
    ReferenceNorm.groupNormBackward(
        batch, pixels, channels, groups, x, gamma, stats, dy, dx, dGamma, dBeta);
  }

  @Override
  public void windowAttention(
      WindowAttention spec, Array qkv, Array bias, Array table, Array y, Array lse) {
    ReferenceWindowAttention.forward(spec, qkv, bias, table, y, lse);
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
    ReferenceWindowAttention.backward(spec, qkv, bias, table, dy, dqkv, dBias, dTable);
  }

  @Override
  public void attention(Attention spec, Array q, Array k, Array v, Array mask, Array y, Array lse) {
    ReferenceAttention.attention(spec, q, k, v, mask, y, lse);
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
    ReferenceAttention.attentionBackward(spec, q, k, v, mask, dy, dq, dk, dv);
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
    ReferenceAttention.regionAttention(batch, regions, pixels, dim, scale, q, k, v, y, map);
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
    ReferenceAttention.regionAttentionBackward(
        batch, regions, pixels, dim, scale, q, k, v, map, dy, dMap, dq, dk, dv);
  }

  @Override
  public void embedding(Array ids, Array table, Array y) {
    ReferenceGeometry.embedding(ids, table, y);
  }

  @Override
  public void embeddingBackward(Array ids, Array dy, Array dTable) {
    ReferenceGeometry.embeddingBackward(ids, dy, dTable);
  }

  @Override
  public void patchGather(PatchGather spec, Array x, Array y) {
    ReferenceGeometry.patchGather(spec, x, y);
  }

  @Override
  public void patchScatter(PatchGather spec, Array dy, Array dx) {
    ReferenceGeometry.patchScatter(spec, dy, dx);
  }

  @Override
  public void mergeGather(int batch, int height, int width, int channels, Array x, Array y) {
    ReferenceGeometry.mergeGather(batch, height, width, channels, x, y);
  }

  @Override
  public void mergeScatter(int batch, int height, int width, int channels, Array dy, Array dx) {
    ReferenceGeometry.mergeScatter(batch, height, width, channels, dy, dx);
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
    ReferenceGeometry.resize(batch, height, width, channels, outHeight, outWidth, accumulate, x, y);
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
    ReferenceGeometry.resizeBackward(batch, height, width, channels, outHeight, outWidth, dy, dx);
  }

  @Override
  public void regionPool(
      int batch, int height, int width, int rows, int columns, Array x, Array y) {
    ReferenceGeometry.regionPool(batch, height, width, rows, columns, x, y);
  }

  @Override
  public void regionPoolBackward(
      int batch, int height, int width, int rows, int columns, Array dy, Array dx) {
    ReferenceGeometry.regionPoolBackward(batch, height, width, rows, columns, dy, dx);
  }

  @Override
  public void maskLoss(MaskLoss spec, Array logits, Array mask, Array loss, Array dLogits) {
    ReferenceLoss.maskLoss(spec, logits, mask, loss, dLogits);
  }

  @Override
  public void binaryLoss(
      boolean focal, float alpha, float gamma, Array x, Array target, Array loss, Array dx) {
    ReferenceLoss.binaryLoss(focal, alpha, gamma, x, target, loss, dx);
  }

  @Override
  public void crossEntropy(
      int rows, int classes, Array x, Array target, Array weight, Array loss, Array dx) {
    ReferenceLoss.crossEntropy(rows, classes, x, target, weight, loss, dx);
  }

  @Override
  public void gruCell(int batch, int hidden, Array gi, Array gh, Array h, Array y) {
    ReferenceGru.forward(batch, hidden, gi, gh, h, y);
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
    ReferenceGru.backward(batch, hidden, gi, gh, h, dy, dgi, dgh, dh);
  }

  @Override
  public void dropout(double p, long block, long offset, Array rng, Array x, Array y) {
    ReferenceElementwise.dropout(p, block, offset, words(rng), x, y);
  }

  @Override
  public void gradientNorm(List<Array> gradients, double maxNorm, Array control) {
    ReferenceOptimizer.gradientNorm(gradients, maxNorm, control);
  }

  @Override
  public void adamW(AdamW spec, List<AdamW.Slot> slots, Array control) {
    ReferenceOptimizer.adamW(spec, slots, control);
  }

  @Override
  public void advance(int growthInterval, Array control) {
    ReferenceOptimizer.advance(growthInterval, control);
  }
}
