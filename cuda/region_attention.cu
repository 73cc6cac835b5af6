// Region-image attention, one head: map = softmax(scale · Q Kᵀ) over up to 14,400 pixels for 4 to 128
// regions, y = map · V. The scores stay in fp32 between their two passes; the products with V, K and
// Q are the library's.
//
// region_scores   grid (chunks of pixels, batch, ⌈regions/8⌉), 128 threads: eight regions' queries wait
//                 in shared memory, a warp takes a pixel, its lanes the channels, so that a row of K
//                 is read once, coalesced, for eight regions. Also dy·Vᵀ in backward.
// region_softmax  a block a row (batch · regions rows).
// region_softmax_backward  ds = map · (dmap − Σ dmap·map), dmap = scores + what reaches the map.
//
// Bytes forward: pixels·D·s·⌈P/8⌉ for K, as much for V, 4·P·pixels three times for the scores, and
// P·pixels·s for the map. Operations: 4·P·pixels·D.
#include "common.cuh"

#define WARPS 4
#define AT_ONCE 8

// scores[b][r][pixel] = scale · q[b][r] · k[b][pixel]
KERNEL void region_scores(int regions, int pixels, int dim, float scale, const T* q, const T* k, float* scores) {
  SHARED(float, queries);
  i64 b = blockIdx.y;
  int first = blockIdx.z * AT_ONCE, count = min(AT_ONCE, regions - first);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  for (int i = threadIdx.x; i < count * dim; i += blockDim.x)
    queries[i] = scale * f(q[(b * regions + first) * dim + i]);
  __syncthreads();
  for (int p = blockIdx.x * WARPS + warp; p < pixels; p += gridDim.x * WARPS) {
    const T* row = k + (b * pixels + p) * dim;
    float sums[AT_ONCE] = {};
    for (int c = lane; c < dim; c += WARP) {
      float v = f(row[c]);
      for (int r = 0; r < count; r++) sums[r] += v * queries[r * dim + c];
    }
    for (int r = 0; r < count; r++) {
      float sum = warp_sum(sums[r]);
      if (lane == 0) scores[(b * regions + first + r) * pixels + p] = sum;
    }
  }
}

KERNEL void region_softmax(int pixels, const float* scores, T* map) {
  SHARED(float, scratch);
  const float* s = scores + blockIdx.x * static_cast<i64>(pixels);
  T* to = map + blockIdx.x * static_cast<i64>(pixels);
  float top = NEGATIVE_INFINITY;
  for (int p = threadIdx.x; p < pixels; p += blockDim.x) top = fmaxf(top, s[p]);
  top = group_max(top, scratch);
  float sum = 0;
  for (int p = threadIdx.x; p < pixels; p += blockDim.x) sum += expf(s[p] - top);
  sum = group_sum(sum, scratch);
  for (int p = threadIdx.x; p < pixels; p += blockDim.x) put(to + p, expf(s[p] - top) / sum);
}

KERNEL void region_softmax_backward(int pixels, const float* scores, const T* dMap, const T* map, T* ds) {
  SHARED(float, scratch);
  i64 first = blockIdx.x * static_cast<i64>(pixels);
  float sum = 0;
  for (int p = threadIdx.x; p < pixels; p += blockDim.x)
    sum += f(map[first + p]) * (scores[first + p] + (dMap ? f(dMap[first + p]) : 0));
  sum = group_sum(sum, scratch);
  for (int p = threadIdx.x; p < pixels; p += blockDim.x)
    put(ds + first + p, f(map[first + p]) * (scores[first + p] + (dMap ? f(dMap[first + p]) : 0) - sum));
}
