// Losses of elements and of classes, with their gradients. The mask's is in mask_loss.cu.
//
// binary_loss: grid-stride. cross_entropy: a warp a row; one block adds the rows.
//
// Losses and their gradients are fp32 whatever the logits are: a half gradient of a mean over a
// picture would underflow before the loss scale reaches it.
#include "loss.cuh"

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
