// Region-image attention, one head: map = softmax(scale · Q Kᵀ) over up to 14,400 pixels for 4 to 128
// regions, y = map · V. This file's products are outside the tensor cores: fp32, and half types where
// region_attention_mma.cu does not go.
//
//   forward    a block takes a set of regions and a chunk of pixels, 64 at a time: scores, exp against
//              the highest score so far, sums(regions × dim) of exp · V, which shrink when a
//              higher score comes. The map is written as exp(score − highest so far); `region_finish`
//              adds the chunks in order and multiplies the map by what its tile lacks.
//   backward   1. `region_values`: dmap = dY Vᵀ + what reaches the map, Σ dmap·map; dV = mapᵀ dY
//              2. `region_keys`: ds = map (dmap − Σ dmap·map); dK = scale dsᵀ Q, parts of dQ = scale ds K
//              and `region_finish` for dQ. So K and V are read once each.
//
// Grid (sets of 8 regions, chunks, batch), 128 threads; sets of one chunk lie side by side, so that what
// the second reads of K and V is in the cache. A lane moves four elements at once, 16 bytes of fp32,
// where rows are whole fours: `…_4`, else `…_1` by single elements.
//   outer   a warp takes four pixels, its lanes the columns; 32 sums (8 regions × 4 pixels) meet in 31
//           shuffles
//   fold, spread  a thread takes columns: 8 regions' sums in registers, a pixel's weights from shared
//           memory for all threads at once. Sums wait in shared memory between tiles.
//
// Bytes: forward 2·pixels·D·s, backward 4·pixels·D·s, beside them P·pixels (3·s forward, 4·s + 8
// backward) and 8·P·D a chunk. Operations 4·P·pixels·D forward, 8·P·pixels·D backward.
#include "region.cuh"

// v[i] of all lanes, added: lane i gets the sum of value i.
DEVICE float scatter_sums(float (&v)[WARP]) {
  int lane = threadIdx.x % WARP;
#pragma unroll
  for (int d = WARP / 2; d > 0; d >>= 1) {
    bool upper = lane & d;
#pragma unroll
    for (int i = 0; i < d; i++) {
      float give = upper ? v[i] : v[i + d], keep = upper ? v[i + d] : v[i];
      v[i] = keep + __shfl_xor_sync(ALL_LANES, give, d);
    }
  }
  return v[0];
}

// N columns a lane.
template <int N>
struct Plain {
  static const int SET = 8;
  typedef float Weight;  // weights[set of 8][pixel][region of the set]

  static DEVICE_MEMBER int padded(int regions) { return (regions + SET - 1) / SET * SET; }
  static DEVICE_MEMBER int weights(int regions) { return regions * TILE; }
  static DEVICE_MEMBER void weigh(float* w, int region, int pixel, const float (&v)[2]) {
    float* at = w + weights(region / SET * SET) + pixel * SET + region % SET;
    at[0] = v[0];
    at[SET] = v[1];
  }

  static DEVICE_MEMBER void outer(const T* rows, int left, int dim, const T* small, int count, float* scores) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll 1
    for (int n = warp * (TILE / WARPS); n < (warp + 1) * (TILE / WARPS); n += 4) {
      float sums[WARP];
#pragma unroll
      for (int i = 0; i < WARP; i++) sums[i] = 0;
#pragma unroll 1
      for (int c = lane * N; c < dim; c += WARP * N) {
        float x[4][N];
#pragma unroll
        for (int p = 0; p < 4; p++) load_some<N>(rows + static_cast<i64>(inside(n + p, left)) * dim + c, x[p]);
#pragma unroll
        for (int r = 0; r < SET; r++) {
          float s[N];
          load_some<N>(small + inside(r, count) * dim + c, s);
#pragma unroll
          for (int p = 0; p < 4; p++) {
#pragma unroll
            for (int e = 0; e < N; e++) sums[4 * r + p] += x[p][e] * s[e];
          }
        }
      }
      float sum = scatter_sums(sums);
      scores[lane / 4 * SCORES + n + lane % 4] = sum;
    }
  }

  static DEVICE_MEMBER void fold(const T* rows, int left, int dim, const float* weights, int count, const float* factor,
                                 bool first, bool last, float* sums, float* part) {
    for (int block = 0; block * THREADS * N < dim; block++) {
      int c = (block * THREADS + threadIdx.x) * N;
      if (c >= dim) continue;
      float* kept = sums + (block * SET * THREADS + threadIdx.x) * N;
      float a[SET][N];
#pragma unroll
      for (int r = 0; r < SET; r++) {
        if (!first) load_some<N>(kept + r * THREADS * N, a[r]);
        float by = first ? 0 : factor ? factor[r] : 1;
#pragma unroll
        for (int e = 0; e < N; e++) a[r][e] = first ? 0 : by * a[r][e];
      }
#pragma unroll 1
      for (int n = 0; n < left; n += 8) {
        float x[8][N];
#pragma unroll
        for (int p = 0; p < 8; p++) load_some<N>(rows + static_cast<i64>(inside(n + p, left)) * dim + c, x[p]);
#pragma unroll
        for (int p = 0; p < 8; p++) {
          float w[SET];
          load_some<4>(weights + (n + p) * SET, w);
          load_some<4>(weights + (n + p) * SET + 4, w + 4);
#pragma unroll
          for (int r = 0; r < SET; r++) {
#pragma unroll
            for (int e = 0; e < N; e++) a[r][e] += w[r] * x[p][e];
          }
        }
      }
#pragma unroll
      for (int r = 0; r < SET; r++) {
        if (!last) {
          store_some<N>(kept + r * THREADS * N, a[r]);
        } else if (r < count) {
          store_some<N>(part + r * static_cast<i64>(dim) + c, a[r]);
        }
      }
    }
  }

  static DEVICE_MEMBER void spread(const float* w, int left, int dim, const T* small, int regions, float scale, T* rows,
                                   int begin, int step) {
    for (int block = begin; block * THREADS * N < dim; block += step) {
      int c = (block * THREADS + threadIdx.x) * N;
      if (c >= dim) continue;
#pragma unroll 1
      for (int n = 0; n < left; n += 8) {
        float a[8][N] = {};
#pragma unroll 1
        for (int r0 = 0; r0 < regions; r0 += SET) {
          float s[SET][N];
#pragma unroll
          for (int r = 0; r < SET; r++) load_some<N>(small + inside(r0 + r, regions) * dim + c, s[r]);
#pragma unroll
          for (int p = 0; p < 8; p++) {
            float own[SET];
            load_some<4>(w + weights(r0) + (n + p) * SET, own);
            load_some<4>(w + weights(r0) + (n + p) * SET + 4, own + 4);
#pragma unroll
            for (int r = 0; r < SET; r++) {
#pragma unroll
              for (int e = 0; e < N; e++) a[p][e] += own[r] * s[r][e];
            }
          }
        }
#pragma unroll
        for (int p = 0; p < 8; p++) {
          if (n + p >= left) continue;
#pragma unroll
          for (int e = 0; e < N; e++) a[p][e] *= scale;
          store_some<N>(rows + static_cast<i64>(n + p) * dim + c, a[p]);
        }
      }
    }
  }
};

KERNEL_BOUNDS(128, 3) void region_forward_4(REGION_FORWARD) { region_forward<Plain<4>>(REGION_FORWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void region_values_4(REGION_VALUES_ARGUMENTS) { region_values<Plain<4>>(REGION_VALUES_VALUES); }
KERNEL_BOUNDS(128, 3) void region_keys_4(REGION_KEYS_ARGUMENTS) { region_keys<Plain<4>>(REGION_KEYS_VALUES); }
KERNEL_BOUNDS(128, 3) void region_forward_1(REGION_FORWARD) { region_forward<Plain<1>>(REGION_FORWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void region_values_1(REGION_VALUES_ARGUMENTS) { region_values<Plain<1>>(REGION_VALUES_VALUES); }
KERNEL_BOUNDS(128, 3) void region_keys_1(REGION_KEYS_ARGUMENTS) { region_keys<Plain<1>>(REGION_KEYS_VALUES); }

// What a chunk's sums are worth: exp(its top − the highest) / Σ exp.
struct Share {
  float top, scale;
};

DEVICE Share share_of_chunks(const float* states, int chunks, int regions) {
  int lane = threadIdx.x % WARP;
  float top = NEGATIVE_INFINITY, sum = 0;
  for (int c = lane; c < chunks; c += WARP) top = fmaxf(top, states[2 * static_cast<i64>(c) * regions]);
  top = warp_max(top);
  for (int c = lane; c < chunks; c += WARP) {
    const float* own = states + 2 * static_cast<i64>(c) * regions;
    sum += own[1] * expf(own[0] - top);
  }
  return Share{top, 1 / warp_sum(sum)};
}

// N columns a lane from c on: each warp adds every fourth chunk in order, then the warps.
template <int N>
DEVICE void add_parts(int regions, int dim, int chunks, int c, const float* states, Share share, const float* parts,
                      float* scratch, T* y) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  float a[N] = {};
  if (c < dim) {
#pragma unroll 4
    for (int k = warp; k < chunks; k += WARPS) {
      float x[N], w = states ? expf(states[2 * static_cast<i64>(k) * regions] - share.top) : 1;
      load_some<N>(parts + static_cast<i64>(k) * regions * dim + c, x);
#pragma unroll
      for (int e = 0; e < N; e++) a[e] += w * x[e];
    }
  }
#pragma unroll
  for (int e = 0; e < N; e++) scratch[(warp * N + e) * WARP + lane] = a[e];
  __syncthreads();
  if (warp > 0 || c >= dim) return;
#pragma unroll
  for (int e = 0; e < N; e++) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += scratch[(w * N + e) * WARP + lane];
    put(y + c + e, share.scale * sum);
  }
}

// y = Σ chunks' parts, each by its share, and the map's last factor; without `states` (for dQ) the
// parts alone, times scale. Grid (blocks of y, then of the map's row with 2,048 pixels each; regions;
// batch), 128 threads; a block of y has 128 columns, or 32 where dim is no multiple of 4.
KERNEL void region_finish(int regions, int pixels, int dim, int chunks, int yBlocks, float scale, const float* states,
                          const float* tops, const float* parts, T* map, T* y) {
  float* scratch = reinterpret_cast<float*>(block_memory());
  const int N = Pack<T>::N, PIECE = 2048;
  i64 row = blockIdx.z * static_cast<i64>(regions) + blockIdx.y;
  i64 first = blockIdx.z * static_cast<i64>(chunks) * regions + blockIdx.y;  // of the picture's chunks
  if (states) states += 2 * first;
  Share share = states ? share_of_chunks(states, chunks, regions) : Share{0, scale};
  int block = blockIdx.x, lane = threadIdx.x % WARP;
  if (block < yBlocks) {
    if (dim % 4 == 0) {
      add_parts<4>(regions, dim, chunks, (block * WARP + lane) * 4, states, share, parts + first * dim, scratch, y + row * dim);
    } else {
      add_parts<1>(regions, dim, chunks, block * WARP + lane, states, share, parts + first * dim, scratch, y + row * dim);
    }
    return;
  }
  tops += row * ((pixels + TILE - 1) / TILE);
  map += row * pixels;
  int start = (block - yBlocks) * PIECE, end = min(start + PIECE, pixels);
  if (pixels % N == 0 && aligned(map)) {
    const int K = PIECE / (THREADS * N);
    Pack<T> x[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
      int n = start + (k * THREADS + threadIdx.x) * N;
      if (n < end) x[k] = load_pack(map + n);
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
      int n = start + (k * THREADS + threadIdx.x) * N;
      if (n >= end) continue;
      float by = expf(tops[n / TILE] - share.top) * share.scale;
#pragma unroll
      for (int e = 0; e < N; e++) x[k].v[e] *= by;
      store_pack(map + n, x[k]);
    }
    return;
  }
  for (int n = start + threadIdx.x; n < end; n += THREADS)
    put(map + n, f(map[n]) * (expf(tops[n / TILE] - share.top) * share.scale));
}
