// Attention over short key sequences (BERT's self-attention, region-language and pixel-word
// attention): softmax(scale · QKᵀ + padding) V for each picture and head, operands read in place from
// packed projections. Record: org.deixis.backend.Attention.
//
//   forward            a warp a query, lanes the keys; grid (⌈queries/4⌉, heads, batch), 128 threads
//   attention_dots     D_i = dy_i · y_i, a thread a (picture, head, query)
//   backward queries   as forward: ds = p (dy·v − D), dq_i = scale Σ_j ds_ij k_j
//   backward keys      a warp a key; 32 queries at a time, a lane each for p and ds, then all lanes
//                      over the head's columns: dk_j = scale Σ_i ds_ij q_i, dv_j = Σ_i p_ij dy_i
//
// Bytes: (2·Q + 2·K)·C·s forward, twice that and lse backward. Operations 4·Q·K·C and 10·Q·K·C.
#include "common.cuh"

#define WARPS 4

#define SHAPE_ARGUMENTS int heads, int queries, int keys, int d, float scale, int qStride, int kStride, int vStride

KERNEL void attention(SHAPE_ARGUMENTS, const T* q, const T* k, const T* v, const int* mask, T* y, float* lse) {
  SHARED(float, memory);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, head = blockIdx.y;
  i64 b = blockIdx.z;
  float* own = memory + warp * (d + keys);
  float* p = own + d;
  int i = blockIdx.x * WARPS + warp;
  if (i >= queries) return;
  const T* query = q + (b * queries + i) * qStride + head * d;
  k += b * keys * kStride + head * d;
  v += b * keys * vStride + head * d;
  for (int c = lane; c < d; c += WARP) own[c] = scale * f(query[c]);
  __syncwarp();
  float top = NEGATIVE_INFINITY;
  for (int j = lane; j < keys; j += WARP) {
    float s = 0;
    if (mask && mask[b * keys + j] == 0) {
      s = NEGATIVE_INFINITY;
    } else {
      for (int c = 0; c < d; c++) s += own[c] * f(k[static_cast<i64>(j) * kStride + c]);
    }
    p[j] = s;
    top = fmaxf(top, s);
  }
  top = warp_max(top);
  float sum = 0;
  for (int j = lane; j < keys; j += WARP) {
    p[j] = expf(p[j] - top);
    sum += p[j];
  }
  sum = warp_sum(sum);
  __syncwarp();
  T* to = y + ((b * queries + i) * heads + head) * d;
  for (int c = lane; c < d; c += WARP) {
    float total = 0;
    for (int j = 0; j < keys; j++) total += p[j] * f(v[static_cast<i64>(j) * vStride + c]);
    put(to + c, total / sum);
  }
  if (lse && lane == 0) lse[(b * heads + head) * queries + i] = top + logf(sum);
}

KERNEL void attention_dots(i64 n, int heads, int queries, int d, const T* y, const T* dy, float* dots) {
  GRID_STRIDE(i, n) {
    i64 b = i / queries / heads;
    i64 at = ((b * queries + i % queries) * heads + i / queries % heads) * d;
    float sum = 0;
    for (int c = 0; c < d; c++) sum += f(y[at + c]) * f(dy[at + c]);
    dots[i] = sum;
  }
}

KERNEL void attention_backward_queries(SHAPE_ARGUMENTS, const T* q, const T* k, const T* v, const int* mask,
                                       const float* lse, const float* dots, const T* dy, T* dq) {
  SHARED(float, memory);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, head = blockIdx.y;
  i64 b = blockIdx.z;
  float* own = memory + warp * (2 * d + keys);
  float* out = own + d;
  float* ds = out + d;
  int i = blockIdx.x * WARPS + warp;
  if (i >= queries) return;
  i64 row = b * queries + i;
  k += b * keys * kStride + head * d;
  v += b * keys * vStride + head * d;
  for (int c = lane; c < d; c += WARP) {
    own[c] = scale * f(q[row * qStride + head * d + c]);
    out[c] = f(dy[(row * heads + head) * d + c]);
  }
  __syncwarp();
  i64 at = (b * heads + head) * queries + i;
  for (int j = lane; j < keys; j += WARP) {
    if (mask && mask[b * keys + j] == 0) {
      ds[j] = 0;
      continue;
    }
    float s = 0, dp = 0;
    for (int c = 0; c < d; c++) {
      s += own[c] * f(k[static_cast<i64>(j) * kStride + c]);
      dp += out[c] * f(v[static_cast<i64>(j) * vStride + c]);
    }
    ds[j] = expf(s - lse[at]) * (dp - dots[at]);
  }
  __syncwarp();
  for (int c = lane; c < d; c += WARP) {
    float total = 0;
    for (int j = 0; j < keys; j++) total += ds[j] * f(k[static_cast<i64>(j) * kStride + c]);
    put(dq + row * qStride + head * d + c, scale * total);
  }
}

// dk and dv have the strides of k and v. grid (⌈keys/4⌉, heads, batch).
KERNEL void attention_backward_keys(SHAPE_ARGUMENTS, const T* q, const T* k, const T* v, const int* mask,
                                    const float* lse, const float* dots, const T* dy, T* dk, T* dv) {
  SHARED(float, memory);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, head = blockIdx.y;
  i64 b = blockIdx.z;
  float* key = memory + warp * 4 * d;
  float* value = key + d;
  float* keySum = value + d;
  float* valueSum = keySum + d;
  int j = blockIdx.x * WARPS + warp;
  if (j >= keys) return;
  i64 row = b * keys + j;
  for (int c = lane; c < d; c += WARP) {
    key[c] = scale * f(k[row * kStride + head * d + c]);
    value[c] = f(v[row * vStride + head * d + c]);
    keySum[c] = 0;
    valueSum[c] = 0;
  }
  __syncwarp();
  bool seen = !mask || mask[row] != 0;
  i64 first = (b * heads + head) * queries;
  for (int i0 = 0; seen && i0 < queries; i0 += WARP) {
    int i = i0 + lane;
    float p = 0, ds = 0;
    if (i < queries) {
      const T* query = q + (b * queries + i) * qStride + head * d;
      const T* out = dy + ((b * queries + i) * heads + head) * d;
      float s = 0, dp = 0;
      for (int c = 0; c < d; c++) {
        s += key[c] * f(query[c]);
        dp += value[c] * f(out[c]);
      }
      p = expf(s - lse[first + i]);
      ds = p * (dp - dots[first + i]);
    }
    int count = min(WARP, queries - i0);
    for (int t = 0; t < count; t++) {
      float pt = __shfl_sync(ALL_LANES, p, t), dst = __shfl_sync(ALL_LANES, ds, t);
      i64 other = b * queries + i0 + t;
      for (int c = lane; c < d; c += WARP) {
        keySum[c] += dst * f(q[other * qStride + head * d + c]);
        valueSum[c] += pt * f(dy[(other * heads + head) * d + c]);
      }
    }
  }
  for (int c = lane; c < d; c += WARP) {
    put(dk + row * kStride + head * d + c, scale * keySum[c]);
    put(dv + row * vStride + head * d + c, valueSum[c]);
  }
}
