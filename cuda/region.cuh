// What both files of region attention share: the passes over K and V. How a tile of pixels meets the
// regions is a struct's, `Regions`:
//
//   outer   scores[region][pixel] = rows(pixels × dim) · small(regions × dim)ᵀ
//   fold    sums(regions × dim) = factor · sums + weights(regions × pixels) · rows
//   spread  rows = scale · weightsᵀ · small
//
// A block walks over a chunk of pixels, TILE at a time. SET regions are what one block folds.
#pragma once
#include "common.cuh"

#define WARPS 4
#define THREADS (WARPS * WARP)
#define TILE 64
#define SCORES (TILE + 4)  // floats a region: lanes of a product meet no bank twice

DEVICE char* block_memory() {
  SHARED(char, memory);
  return memory;
}

// Pixels of a tile of which `left` are there: those beyond are read as the last one, with weight 0.
DEVICE int inside(int pixel, int left) { return min(pixel, left - 1); }

// Two neighbouring pixels of a row of the map, of which `left` from the first on are there; zeros
// beyond. `paired`: rows begin where two elements can be moved at once.
template <class U>
DEVICE void load_pair(const U* from, int left, bool paired, float (&v)[2]) {
  v[0] = v[1] = 0;
  if (paired && left >= 2) {
    load_some<2>(from, v);
  } else {
    if (left > 0) v[0] = f(from[0]);
    if (left > 1) v[1] = f(from[1]);
  }
}

template <class U>
DEVICE void store_pair(U* to, int left, bool paired, const float (&v)[2]) {
  if (paired && left >= 2) {
    store_some<2>(to, v);
  } else {
    if (left > 0) put(to, v[0]);
    if (left > 1) put(to + 1, v[1]);
  }
}

template <class U>
DEVICE bool pairs(const U* rows, int pixels) {
  return pixels % 2 == 0 && (reinterpret_cast<u64>(rows) & (2 * sizeof(U) - 1)) == 0;
}

#define REGION_SHAPE int regions, int pixels, int dim, int tilesEach
#define REGION_SHAPE_VALUES regions, pixels, dim, tilesEach

// Map as exp(score − top of the tile), `tops` of each tile, and a chunk's {top, Σ exp} and part of y.
// Grid (sets of regions, chunks, batch).
#define REGION_FORWARD \
  REGION_SHAPE, float scale, const T *q, const T *k, const T *v, T *map, float *tops, float *states, float *parts
#define REGION_FORWARD_VALUES REGION_SHAPE_VALUES, scale, q, k, v, map, tops, states, parts

template <class Regions>
DEVICE void region_forward(REGION_FORWARD) {
  const int SET = Regions::SET;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  int first = blockIdx.x * SET, count = min(SET, regions - first);
  int tiles = (pixels + TILE - 1) / TILE, start = blockIdx.y * tilesEach, end = min(start + tilesEach, tiles);
  i64 b = blockIdx.z;
  float* scores = reinterpret_cast<float*>(block_memory());
  float* top = scores + SET * SCORES;
  float* sum = top + SET;
  float* factor = sum + SET;
  typename Regions::Weight* weights = reinterpret_cast<typename Regions::Weight*>(factor + SET);
  float* sums = reinterpret_cast<float*>(weights + Regions::weights(SET));
  for (int r = threadIdx.x; r < SET; r += THREADS) {
    top[r] = NEGATIVE_INFINITY;
    sum[r] = factor[r] = 0;
  }
  for (int i = threadIdx.x; i < Regions::weights(SET); i += THREADS) put(weights + i, 0);
  bool paired = pairs(map, pixels);
  i64 part = (b * gridDim.y + blockIdx.y) * regions + first;
  for (int tile = start; tile < end; tile++) {
    int left = min(TILE, pixels - tile * TILE);
    i64 at = (b * pixels + tile * TILE) * dim;
    Regions::outer(k + at, left, dim, q + (b * regions + first) * dim, count, scores);
    __syncthreads();  // scores are there
    for (int r = warp; r < count; r += WARPS) {
      int n = 2 * lane;
      float e[2];
#pragma unroll
      for (int i = 0; i < 2; i++) e[i] = n + i < left ? scale * scores[r * SCORES + n + i] : NEGATIVE_INFINITY;
      float old = top[r], now = fmaxf(old, warp_max(fmaxf(e[0], e[1])));
      e[0] = expf(e[0] - now);
      e[1] = expf(e[1] - now);
      float more = warp_sum(e[0] + e[1]);
      Regions::weigh(weights, r, n, e);
      i64 row = b * regions + first + r;
      store_pair(map + row * pixels + tile * TILE + n, left - n, paired, e);
      if (lane == 0) {
        float by = expf(old - now);
        factor[r] = by;
        top[r] = now;
        sum[r] = sum[r] * by + more;
        tops[row * tiles + tile] = now;
      }
    }
    __syncthreads();  // weights are there
    Regions::fold(v + at, left, dim, weights, count, factor, tile == start, tile == end - 1, sums, parts + part * dim);
  }
  for (int r = threadIdx.x; r < count; r += THREADS) {
    states[2 * (part + r)] = top[r];
    states[2 * (part + r) + 1] = sum[r];
  }
}

// dV = mapᵀ dY; dmap = dY Vᵀ + what reaches the map from elsewhere; a chunk's Σ dmap·map. Grid
// (1, chunks, batch).
#define REGION_VALUES_ARGUMENTS \
  REGION_SHAPE, const T *v, const T *map, const T *more, const T *dy, float *dMap, float *dots, T *dv
#define REGION_VALUES_VALUES REGION_SHAPE_VALUES, v, map, more, dy, dMap, dots, dv

template <class Regions>
DEVICE void region_values(REGION_VALUES_ARGUMENTS) {
  const int SET = Regions::SET;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  int tiles = (pixels + TILE - 1) / TILE, start = blockIdx.y * tilesEach, end = min(start + tilesEach, tiles);
  int padded = Regions::padded(regions);
  i64 b = blockIdx.z;
  float* scores = reinterpret_cast<float*>(block_memory());
  float* dot = scores + SET * SCORES;
  typename Regions::Weight* weights = reinterpret_cast<typename Regions::Weight*>(dot + padded);
  for (int r = threadIdx.x; r < padded; r += THREADS) dot[r] = 0;
  for (int i = threadIdx.x; i < Regions::weights(padded); i += THREADS) put(weights + i, 0);
  bool paired = pairs(map, pixels) && pairs(dMap, pixels) && pairs(more, pixels);
  const T* small = dy + b * regions * dim;
  for (int tile = start; tile < end; tile++) {
    int left = min(TILE, pixels - tile * TILE);
    i64 at = (b * pixels + tile * TILE) * dim;
    for (int first = 0; first < regions; first += SET) {
      int count = min(SET, regions - first);
      Regions::outer(v + at, left, dim, small + first * dim, count, scores);
      __syncthreads();  // scores are there
      for (int r = warp; r < count; r += WARPS) {
        int n = 2 * lane;
        i64 row = (b * regions + first + r) * pixels + tile * TILE + n;
        float p[2], d[2], e[2] = {0, 0};
        load_pair(map + row, left - n, paired, p);
        if (more) load_pair(more + row, left - n, paired, e);
#pragma unroll
        for (int i = 0; i < 2; i++) d[i] = n + i < left ? scores[r * SCORES + n + i] + e[i] : 0;
        store_pair(dMap + row, left - n, paired, d);
        Regions::weigh(weights, first + r, n, p);
        float sum = warp_sum(p[0] * d[0] + p[1] * d[1]);
        if (lane == 0) dot[first + r] += sum;
      }
      __syncthreads();  // scores may be overwritten, and weights are there
    }
    Regions::spread(weights, left, dim, small, regions, 1, dv + at, 0, 1);
  }
  for (int r = threadIdx.x; r < regions; r += THREADS) dots[(b * gridDim.y + blockIdx.y) * regions + r] = dot[r];
}

// ds = map (dmap − Σ dmap·map); dK = scale dsᵀ Q, and a chunk's part of ds K. Grid (sets of regions,
// chunks, batch): a set's block folds its regions and spreads its share of the columns.
#define REGION_KEYS_ARGUMENTS \
  REGION_SHAPE, float scale, const T *q, const T *k, const T *map, const float *dMap, int dotChunks, \
      const float *dots, T *dk, float *parts
#define REGION_KEYS_VALUES REGION_SHAPE_VALUES, scale, q, k, map, dMap, dotChunks, dots, dk, parts

template <class Regions>
DEVICE void region_keys(REGION_KEYS_ARGUMENTS) {
  const int SET = Regions::SET;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  int first = blockIdx.x * SET, count = min(SET, regions - first);
  int tiles = (pixels + TILE - 1) / TILE, start = blockIdx.y * tilesEach, end = min(start + tilesEach, tiles);
  int padded = Regions::padded(regions);
  i64 b = blockIdx.z;
  float* total = reinterpret_cast<float*>(block_memory());
  typename Regions::Weight* weights = reinterpret_cast<typename Regions::Weight*>(total + padded);
  float* sums = reinterpret_cast<float*>(weights + Regions::weights(padded));
  for (int r = warp; r < regions; r += WARPS) {
    float sum = 0;
    for (int c = lane; c < dotChunks; c += WARP) sum += dots[(b * dotChunks + c) * regions + r];
    sum = warp_sum(sum);
    if (lane == 0) total[r] = sum;
  }
  for (int i = threadIdx.x; i < Regions::weights(padded); i += THREADS) put(weights + i, 0);
  bool paired = pairs(map, pixels) && pairs(dMap, pixels);
  i64 part = (b * gridDim.y + blockIdx.y) * regions + first;
  const T* small = q + b * regions * dim;
  for (int tile = start; tile < end; tile++) {
    int left = min(TILE, pixels - tile * TILE);
    i64 at = (b * pixels + tile * TILE) * dim;
    __syncthreads();  // totals are there, and all have left the last tile
    for (int r = warp; r < regions; r += WARPS) {
      int n = 2 * lane;
      i64 row = (b * regions + r) * pixels + tile * TILE + n;
      float p[2], d[2];
      load_pair(map + row, left - n, paired, p);
      load_pair(dMap + row, left - n, paired, d);
#pragma unroll
      for (int i = 0; i < 2; i++) d[i] = p[i] * (d[i] - total[r]);
      Regions::weigh(weights, r, n, d);
    }
    __syncthreads();  // weights are there
    Regions::fold(k + at, left, dim, weights + Regions::weights(first), count, nullptr, tile == start,
                  tile == end - 1, sums, parts + part * dim);
    Regions::spread(weights, left, dim, small, regions, scale, dk + at, blockIdx.x, gridDim.x);
  }
}
