// Losses with their gradients.
//
//   element  bce(z, t) = max(z, 0) − z t + log(1 + exp(−|z|));  focal: α u^γ bce, u = 1 − exp(−bce)
//   mask     mean over pixels of element(z, t) + dice·(1 − (2Σpt + 1)/(Σp + Σt + 1)), z the logits
//            up-sampled bilinearly on the fly: the full-resolution logits are never stored
//
// mask_sums    grid (chunks, pictures), 256 threads: four sums a block, at full resolution
// mask_total   a thread a picture adds the chunks in order: loss and the factors of Dice's gradient
// mask_gradient a thread a low-resolution logit gathers from the pixels that read it, again at full
//              resolution. Bytes: the bitmap once a pass, and the logits; operations about 60 a pixel
//              in the first pass and 4·40 in the second (a pixel is read by up to four logits).
// binary_loss: grid-stride. cross_entropy: a warp a row; one block adds the rows.
//
// Losses and their gradients are fp32 whatever the logits are: a half gradient of a mean over a
// picture would underflow before the loss scale reaches it.
#include "common.cuh"

DEVICE float bce(float z, float t) { return fmaxf(z, 0) - z * t + log1pf(expf(-fabsf(z))); }

DEVICE float element_loss(int focal, float alpha, float gamma, float z, float t) {
  float e = bce(z, t);
  return focal ? alpha * powf(-expm1f(-e), gamma) * e : e;
}

// d/dz; where u is 0 the inner term vanishes with bce.
DEVICE float element_slope(int focal, float alpha, float gamma, float z, float t) {
  float slope = sigmoid(z) - t;
  if (!focal) return slope;
  float e = bce(z, t), u = -expm1f(-e);
  float inner = u == 0 ? 0 : gamma * powf(u, gamma - 1) * (1 - u) * e;
  return alpha * (inner + powf(u, gamma)) * slope;
}

DEVICE float sample(const T* z, int width, Tap row, Tap column) {
  float tl = f(z[row.low * width + column.low]), tr = f(z[row.low * width + column.high]);
  float bl = f(z[row.high * width + column.low]), br = f(z[row.high * width + column.high]);
  return (1 - row.share) * ((1 - column.share) * tl + column.share * tr) +
         row.share * ((1 - column.share) * bl + column.share * br);
}

#define MASK_ARGUMENTS int lowHeight, int lowWidth, int height, int width, int focal, float alpha, float gamma

// partial[picture][chunk][Σ element, Σ p, Σ t, Σ pt]
KERNEL void mask_sums(MASK_ARGUMENTS, const T* logits, const void* mask, int maskType, float* partial) {
  SHARED(float, scratch);
  i64 pixels = static_cast<i64>(height) * width;
  const T* z = logits + blockIdx.y * static_cast<i64>(lowHeight) * lowWidth;
  float sums[4] = {};
  GRID_STRIDE(i, pixels) {
    float v = sample(z, lowWidth, tap(static_cast<int>(i / width), lowHeight, height),
                     tap(static_cast<int>(i % width), lowWidth, width));
    float t = element(mask, maskType, blockIdx.y * pixels + i), p = sigmoid(v);
    sums[0] += element_loss(focal, alpha, gamma, v, t);
    sums[1] += p;
    sums[2] += t;
    sums[3] += p * t;
  }
  for (int s = 0; s < 4; s++) {
    float total = group_sum(sums[s], scratch);
    if (threadIdx.x == 0) partial[(blockIdx.y * static_cast<i64>(gridDim.x) + blockIdx.x) * 4 + s] = total;
  }
}

// factors[picture] = {numerator, denominator} of Dice's overlap
KERNEL void mask_total(int pictures, int chunks, i64 pixels, float dice, const float* partial, float* loss,
                       float* factors) {
  GRID_STRIDE(b, pictures) {
    float sums[4] = {};
    for (int c = 0; c < chunks; c++)
      for (int s = 0; s < 4; s++) sums[s] += partial[(b * chunks + c) * 4 + s];
    float numerator = 2 * sums[3] + 1, denominator = sums[1] + sums[2] + 1;
    loss[b] = (pixels == 0 ? 0 : sums[0] / pixels) + dice * (1 - numerator / denominator);
    factors[2 * b] = numerator;
    factors[2 * b + 1] = denominator;
  }
}

KERNEL void mask_gradient(i64 n, MASK_ARGUMENTS, float dice, const T* logits, const void* mask, int maskType,
                          const float* factors, float* dLogits) {
  i64 pixels = static_cast<i64>(height) * width;
  GRID_STRIDE(i, n) {
    int sx = static_cast<int>(i % lowWidth), sy = static_cast<int>(i / lowWidth % lowHeight);
    i64 b = i / lowWidth / lowHeight;
    const T* z = logits + b * lowHeight * lowWidth;
    float numerator = factors[2 * b], denominator = factors[2 * b + 1];
    int y0 = first_reader(sy, lowHeight, height), y1 = last_reader(sy, lowHeight, height);
    int x0 = first_reader(sx, lowWidth, width), x1 = last_reader(sx, lowWidth, width);
    float sum = 0;
    for (int y = y0; y <= y1; y++) {
      Tap row = tap(y, lowHeight, height);
      float wy = (row.low == sy ? 1 - row.share : 0) + (row.high == sy ? row.share : 0);
      if (wy == 0) continue;
      for (int x = x0; x <= x1; x++) {
        Tap column = tap(x, lowWidth, width);
        float w = wy * ((column.low == sx ? 1 - column.share : 0) + (column.high == sx ? column.share : 0));
        if (w == 0) continue;
        float v = sample(z, lowWidth, row, column);
        float t = element(mask, maskType, b * pixels + static_cast<i64>(y) * width + x), p = sigmoid(v);
        float slope = element_slope(focal, alpha, gamma, v, t) / pixels;
        slope -= dice * (2 * t * denominator - numerator) / (denominator * denominator) * p * (1 - p);
        sum += w * slope;
      }
    }
    dLogits[i] = sum;
  }
}

KERNEL void binary_loss(int focal, float alpha, float gamma, const T* x, const void* target, int targetType,
                        float* loss, float* dx, i64 n) {
  GRID_STRIDE(i, n) {
    float z = f(x[i]), t = element(target, targetType, i);
    loss[i] = element_loss(focal, alpha, gamma, z, t);
    if (dx) dx[i] = element_slope(focal, alpha, gamma, z, t);
  }
}

// rowLoss[row] = {w·nll, w}; a warp a row.
KERNEL void cross_entropy_rows(i64 rows, int classes, const T* x, const int* target, const T* weight, float* rowLoss) {
  i64 row = blockIdx.x * static_cast<i64>(blockDim.y) + threadIdx.y;
  if (row >= rows) return;
  x += row * classes;
  float top = NEGATIVE_INFINITY;
  for (int c = threadIdx.x; c < classes; c += WARP) top = fmaxf(top, f(x[c]));
  top = warp_max(top);
  float sum = 0;
  for (int c = threadIdx.x; c < classes; c += WARP) sum += expf(f(x[c]) - top);
  sum = warp_sum(sum);
  if (threadIdx.x == 0) {
    float w = weight ? f(weight[target[row]]) : 1;
    rowLoss[2 * row] = w * (top + logf(sum) - f(x[target[row]]));
    rowLoss[2 * row + 1] = w;
  }
}

// One block: totals = {Σ w·nll, Σ w}, each thread's rows in order, then the threads.
KERNEL void cross_entropy_total(i64 rows, const float* rowLoss, float* loss, float* totals) {
  SHARED(float, scratch);
  float sum = 0, weights = 0;
  for (i64 r = threadIdx.x; r < rows; r += blockDim.x) {
    sum += rowLoss[2 * r];
    weights += rowLoss[2 * r + 1];
  }
  sum = group_sum(sum, scratch);
  weights = group_sum(weights, scratch);
  if (threadIdx.x == 0) {
    *loss = rows == 0 ? 0 : sum / weights;
    totals[0] = sum;
    totals[1] = weights;
  }
}

KERNEL void cross_entropy_gradient(i64 rows, int classes, const T* x, const int* target, const T* weight,
                                   const float* totals, float* dx) {
  i64 row = blockIdx.x * static_cast<i64>(blockDim.y) + threadIdx.y;
  if (row >= rows) return;
  x += row * classes;
  float top = NEGATIVE_INFINITY;
  for (int c = threadIdx.x; c < classes; c += WARP) top = fmaxf(top, f(x[c]));
  top = warp_max(top);
  float sum = 0;
  for (int c = threadIdx.x; c < classes; c += WARP) sum += expf(f(x[c]) - top);
  sum = warp_sum(sum);
  float w = (weight ? f(weight[target[row]]) : 1) / totals[1];
  for (int c = threadIdx.x; c < classes; c += WARP)
    dx[row * classes + c] = w * (expf(f(x[c]) - top) / sum - (c == target[row] ? 1 : 0));
}
