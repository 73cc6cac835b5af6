// Attention over short key sequences (BERT's self-attention, region-language and pixel-word
// attention): softmax(scale · QKᵀ + padding) V for each picture and head, operands read in place from
// packed projections. Record: org.deixis.backend.Attention. This file's products are outside the tensor
// cores: fp32, and half types where attention_mma.cu and attention_long_mma.cu do not go.
//
//   forward            a warp a query, lanes the keys; grid (⌈queries/4⌉, heads, batch), 128 threads
//   attention_dots     D_i = dy_i · y_i, a thread a (picture, head, query)
//   backward queries   as forward: ds = p (dy·v − D), dq_i = scale Σ_j ds_ij k_j
//   backward keys      a warp a key; 32 queries at a time, a lane each for p and ds, then all lanes
//                      over the head's columns: dk_j = scale Σ_i ds_ij q_i, dv_j = Σ_i p_ij dy_i
//
// Where rows are whole packs of 16 bytes, a lane moves one, and in sums over rows lanes that the columns do not
// need take further rows.
//
// Bytes: (2·Q + 2·K)·C·s forward, twice that and lse backward. Operations 4·Q·K·C and 10·Q·K·C.
#include "common.cuh"

#define WARPS 4

#define SHAPE_ARGUMENTS int heads, int queries, int keys, int d, float scale, int qStride, int kStride, int vStride
#define SHAPE_VALUES heads, queries, keys, d, scale, qStride, kStride, vStride

// Whether rows are whole packs; `addresses` of where they begin, joined by "or".
DEVICE bool whole_packs(int sizes, u64 addresses) {
  return sizes % Pack<T>::N == 0 && addresses % 16 == 0;
}
DEVICE u64 address(const void* p) { return reinterpret_cast<u64>(p); }

// own · row, N columns a load.
template <int N>
DEVICE float dot(const float* own, const T* row, int d) {
  float sum = 0;
#pragma unroll 4
  for (int c = 0; c < d; c += N) {
    float v[N];
    load_some<N>(row + c, v);
#pragma unroll
    for (int e = 0; e < N; e++) sum += own[c + e] * v[e];
  }
  return sum;
}

// Σ weights[j] · row j over `count` rows: a lane N columns, several rows at once where that leaves lanes;
// `take` gets columns c to c + N − 1 at one lane.
template <int N, class Take>
DEVICE void weigh_rows(const float* weights, const T* rows, i64 stride, int count, int d, Take take) {
  int lane = threadIdx.x % WARP, across = WARP;  // lanes a row
  while (across / 2 * N >= d) across /= 2;
  for (int first = 0; first < d; first += across * N) {
    int c = first + lane % across * N;
    float sum[N] = {};
    if (c < d) {
#pragma unroll 4
      for (int j = lane / across; j < count; j += WARP / across) {
        float v[N];
        load_some<N>(rows + j * stride + c, v);
#pragma unroll
        for (int e = 0; e < N; e++) sum[e] += weights[j] * v[e];
      }
    }
    for (int m = across; m < WARP; m *= 2) {
#pragma unroll
      for (int e = 0; e < N; e++) sum[e] += __shfl_xor_sync(ALL_LANES, sum[e], m);
    }
    if (c < d && lane < across) take(c, sum);
  }
}

template <int N>
DEVICE void attend(SHAPE_ARGUMENTS, const T* q, const T* k, const T* v, const int* mask, T* y, float* lse) {
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
    bool seen = !mask || mask[b * keys + j] != 0;
    float s = seen ? dot<N>(own, k + static_cast<i64>(j) * kStride, d) : NEGATIVE_INFINITY;
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
  weigh_rows<N>(p, v, vStride, keys, d, [&](int c, float(&total)[N]) {
#pragma unroll
    for (int e = 0; e < N; e++) total[e] /= sum;
    store_some<N>(to + c, total);
  });
  if (lse && lane == 0) lse[(b * heads + head) * queries + i] = top + logf(sum);
}

KERNEL void attention(SHAPE_ARGUMENTS, const T* q, const T* k, const T* v, const int* mask, T* y, float* lse) {
  if (whole_packs(d | qStride | kStride | vStride, address(k) | address(v) | address(y))) {
    attend<Pack<T>::N>(SHAPE_VALUES, q, k, v, mask, y, lse);
  } else {
    attend<1>(SHAPE_VALUES, q, k, v, mask, y, lse);
  }
}

template <int N>
DEVICE void dots_of_rows(i64 n, int heads, int queries, int d, const T* y, const T* dy, float* dots) {
  GRID_STRIDE(i, n) {
    i64 b = i / queries / heads;
    i64 at = ((b * queries + i % queries) * heads + i / queries % heads) * d;
    float sum = 0;
#pragma unroll 4
    for (int c = 0; c < d; c += N) {
      float one[N], other[N];
      load_some<N>(y + at + c, one);
      load_some<N>(dy + at + c, other);
#pragma unroll
      for (int e = 0; e < N; e++) sum += one[e] * other[e];
    }
    dots[i] = sum;
  }
}

KERNEL void attention_dots(i64 n, int heads, int queries, int d, const T* y, const T* dy, float* dots) {
  if (whole_packs(d, address(y) | address(dy))) {
    dots_of_rows<Pack<T>::N>(n, heads, queries, d, y, dy, dots);
  } else {
    dots_of_rows<1>(n, heads, queries, d, y, dy, dots);
  }
}

#define BACKWARD_QUERIES                                                                                    \
  SHAPE_ARGUMENTS, const T *q, const T *k, const T *v, const int *mask, const float *lse, const float *dots, \
      const T *dy, T *dq

template <int N>
DEVICE void backward_queries(BACKWARD_QUERIES) {
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
    float s = dot<N>(own, k + static_cast<i64>(j) * kStride, d);
    float dp = dot<N>(out, v + static_cast<i64>(j) * vStride, d);
    ds[j] = expf(s - lse[at]) * (dp - dots[at]);
  }
  __syncwarp();
  T* to = dq + row * qStride + head * d;
  weigh_rows<N>(ds, k, kStride, keys, d, [&](int c, float(&total)[N]) {
#pragma unroll
    for (int e = 0; e < N; e++) total[e] *= scale;
    store_some<N>(to + c, total);
  });
}

KERNEL void attention_backward_queries(BACKWARD_QUERIES) {
  if (whole_packs(d | qStride | kStride | vStride, address(k) | address(v) | address(dq))) {
    backward_queries<Pack<T>::N>(SHAPE_VALUES, q, k, v, mask, lse, dots, dy, dq);
  } else {
    backward_queries<1>(SHAPE_VALUES, q, k, v, mask, lse, dots, dy, dq);
  }
}

// dk and dv have the strides of k and v. grid (⌈keys/4⌉, heads, batch).
#define BACKWARD_KEYS                                                                                       \
  SHAPE_ARGUMENTS, const T *q, const T *k, const T *v, const int *mask, const float *lse, const float *dots, \
      const T *dy, T *dk, T *dv

template <int N>
DEVICE void backward_keys(BACKWARD_KEYS) {
  SHARED(float, memory);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, head = blockIdx.y;
  i64 b = blockIdx.z;
  float* key = memory + warp * (4 * d + 2 * WARP);
  float* value = key + d;
  float* keySum = value + d;
  float* valueSum = keySum + d;
  float* p = valueSum + d;  // of 32 queries
  float* ds = p + WARP;
  int j = blockIdx.x * WARPS + warp;
  if (j >= keys) return;
  i64 row = b * keys + j;
  for (int c = lane; c < d; c += WARP) {
    key[c] = scale * f(k[row * kStride + head * d + c]);
    value[c] = f(v[row * vStride + head * d + c]);
    keySum[c] = 0;
    valueSum[c] = 0;
  }
  bool seen = !mask || mask[row] != 0;
  i64 first = (b * heads + head) * queries, channels = heads * d;
  const T* queryRows = q + b * queries * qStride + head * d;
  const T* outRows = dy + b * queries * channels + head * d;
  for (int i0 = 0; seen && i0 < queries; i0 += WARP) {
    int i = i0 + lane;
    __syncwarp();  // key and value are there, and all have left the last queries
    if (i < queries) {
      float s = dot<N>(key, queryRows + static_cast<i64>(i) * qStride, d);
      float dp = dot<N>(value, outRows + i * channels, d);
      p[lane] = expf(s - lse[first + i]);
      ds[lane] = p[lane] * (dp - dots[first + i]);
    }
    __syncwarp();
    int count = min(WARP, queries - i0);
    weigh_rows<N>(ds, queryRows + static_cast<i64>(i0) * qStride, qStride, count, d, [&](int c, float(&sum)[N]) {
#pragma unroll
      for (int e = 0; e < N; e++) keySum[c + e] += sum[e];
    });
    weigh_rows<N>(p, outRows + i0 * channels, channels, count, d, [&](int c, float(&sum)[N]) {
#pragma unroll
      for (int e = 0; e < N; e++) valueSum[c + e] += sum[e];
    });
  }
  __syncwarp();
  for (int c = lane; c < d; c += WARP) {
    put(dk + row * kStride + head * d + c, scale * keySum[c]);
    put(dv + row * vStride + head * d + c, valueSum[c]);
  }
}

KERNEL void attention_backward_keys(BACKWARD_KEYS) {
  if (whole_packs(d | qStride, address(q) | address(dy))) {
    backward_keys<Pack<T>::N>(SHAPE_VALUES, q, k, v, mask, lse, dots, dy, dk, dv);
  } else {
    backward_keys<1>(SHAPE_VALUES, q, k, v, mask, lse, dots, dy, dk, dv);
  }
}
