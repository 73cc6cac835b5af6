// Attention on the tensor cores over more than 64 keys, or by heads of 65 to 128 columns, for fp16 and bf16; the
// mathematics and arguments are those of attention.cu, which serves the rest. Rows, fragments and 16-byte moves are as
// window_attention_mma.cu has them. Variants `_P` are for heads of at most 32·P columns (32, 64, 128).
//
// 128 threads; a warp has 32 rows of its own (16 where P = 4), of queries or of keys, and meets the other side's
// 8·TILES at a time, which come into shared memory for the whole block while it is at work on those before: one
// barrier a step. What a row is multiplied by is read once for two groups of 16 rows: with one, reading shared memory
// would take as long as the products.
//
//   forward   by queries, grid (heads, ⌈queries / 128⌉, batch): scores and weights of a step in registers, the highest
//             score and Σ run along (Milakov and Gimelshein, 2018); what was summed is scaled to a higher one.
//   queries   the same, backward: P from the log-sum-exp, dP = dY Vᵀ, D = dy·y, dS = P (dP − D), dQ = scale dS K.
//             D and the log-sum-exp go to `pairs`.
//   keys      then by keys, grid (heads, chunks · ⌈keys / 128⌉, batch): Sᵀ = K Qᵀ, dPᵀ = V dYᵀ, so that Pᵀ and dSᵀ are
//             in registers where dV += Pᵀ dY and dK += scale dSᵀ Q want their left sides. Where blocks are few and
//             queries many, each writes its chunk's part in fp32, and `attention_parts` adds them in order.
//
// Steps behind the last key to be seen are left out, and so are blocks by keys of which none is. Sums have one order:
// two runs give the same bits.
//
// Bytes: (2·Q + 2·K)·C·s forward, (6·Q + 6·K)·C·s backward, beside 4 and 20 a (query, head). Operations: 4·Q·K·C and
// 14·Q·K·C. Backward in one kernel by keys would be 10·Q·K·C, and dQ then an fp32 part a block of keys, added in order.
// At 64 × 512 tokens and C 768 that saves 51 GFLOP, 0.11 ms at 470 TFLOP/s, and moves 805 MB more, 0.19 ms; at
// 16 × 128, one block of keys, it saves one of two launches of a few µs.
#include "attention_tiles.cuh"

#if MMA

// Rows of two matrices of a head that come into shared memory 8·TILES at a time, the next on their way while a block
// is at work on these.
template <int TILES, int PLANES>
struct Stream {
  using S = Sizes<TILES, PLANES>;
  T* memory;  // 4·S::PART elements
  const T* x;
  const T* y;
  int xStride, yStride, rows, d;

  DEVICE_MEMBER T* ones(int n) const { return memory + (n & 1) * (2 * S::PART); }
  DEVICE_MEMBER T* others(int n) const { return ones(n) + S::PART; }
  DEVICE_MEMBER void load(int n) const {
    i64 first = n * S::ROWS;
    load_rows<TILES, PLANES>(ones(n), others(n), rows - n * S::ROWS, d, x + first * xStride, xStride, y + first * yStride,
                             yStride);
  }
  // Waits for step n of `steps` and sends for the next.
  DEVICE_MEMBER void advance(int n, int steps) const {
    wait_for_copies();
    __syncthreads();  // this step's rows are there, and all have left those of the step before
    if (n + 1 < steps) load(n + 1);
  }
};

// Keys and values of the block's head.
template <int TILES, int PLANES>
DEVICE Stream<TILES, PLANES> keys_of(SHAPE_ARGUMENTS, const T* k, const T* v) {
  i64 row = static_cast<i64>(blockIdx.z) * keys;
  int column = blockIdx.x * d;
  return {reinterpret_cast<T*>(block_memory()), k + row * kStride + column, v + row * vStride + column,
          kStride, vStride, keys, d};
}

// Steps of ROWS keys up to the last that is to be seen, at least one; every warp finds the same.
template <int ROWS>
DEVICE int steps_of(const float* unseen, int keys) {
  float last = 0;
  for (int j = threadIdx.x % WARP; j < keys; j += WARP) last = unseen[j] == 0 ? j : last;
  return static_cast<int>(warp_max(last)) / ROWS + 1;
}

// A highest score to subtract from scores: none of −∞ − −∞, which is NaN, while no key was to be seen.
DEVICE float subtrahend(float highest) { return highest == NEGATIVE_INFINITY ? 0 : highest; }

// tiles.cuh's product of 16 rows with a tile, for G groups of 16, which share what is read of the right side.
template <int G, int PLANES>
DEVICE void outer(float (&c)[G][4], const Left<PLANES> (&a)[G], T* right, int plane, int tile) {
  int lane = threadIdx.x % WARP;
#pragma unroll
  for (int g = 0; g < G; g++) c[g][0] = c[g][1] = c[g][2] = c[g][3] = 0;
#pragma unroll
  for (int p = 0; p < PLANES; p++) {
    int4 b = *words_at(right + p * plane, 8 * tile + lane / 4, lane % 4);
#pragma unroll
    for (int g = 0; g < G; g++) {
      mma(c[g], a[g].top[p].x, a[g].low[p].x, a[g].top[p].y, a[g].low[p].y, b.x, b.y);
      mma(c[g], a[g].top[p].z, a[g].low[p].z, a[g].top[p].w, a[g].low[p].w, b.z, b.w);
    }
  }
}

// c += a · 8·TILES rows, from step I of 16 rows by 16 columns on, for G left sides alike; PLANE bytes a plane.
template <int PLANES, int PLANE, int I = 0, int G, int TILES>
DEVICE void over_rows(float (&c)[G][4 * PLANES][4], const u32 (&a)[G][TILES][2], Lanes right) {
  if constexpr (I < TILES * PLANES) {
    const int K = I / (2 * PLANES), C = I % (2 * PLANES);  // of rows and of columns
    u32 b[4];
    load_transposed<1024 * K + C / 2 * PLANE>(b, C % 2 ? right.second : right.first);
#pragma unroll
    for (int g = 0; g < G; g++) {
      mma(c[g][2 * C], a[g][2 * K][0], a[g][2 * K][1], a[g][2 * K + 1][0], a[g][2 * K + 1][1], b[0], b[1]);
      mma(c[g][2 * C + 1], a[g][2 * K][0], a[g][2 * K][1], a[g][2 * K + 1][0], a[g][2 * K + 1][1], b[2], b[3]);
    }
    over_rows<PLANES, PLANE, I + 1>(c, a, right);
  }
}

// The same lanes' addresses `rows` further on.
DEVICE Lanes below(Lanes lanes, int rows) { return Lanes{lanes.first + 64 * rows, lanes.second + 64 * rows}; }

// The first of a warp's queries.
template <int G>
DEVICE int first_query() {
  return (blockIdx.y * (blockDim.x / WARP) + threadIdx.x / WARP) * 16 * G;
}

// G: groups of 16 rows that a warp has for its own.
template <int G, int TILES, int PLANES>
DEVICE void attend(SHAPE_ARGUMENTS, const T* q, const T* k, const T* v, const int* mask, T* y, float* lse) {
  using S = Sizes<TILES, PLANES>;
  int head = blockIdx.x, channels = heads * d;
  i64 b = blockIdx.z;
  Stream<TILES, PLANES> stream = keys_of<TILES, PLANES>(SHAPE_VALUES, k, v);
  float* unseen = reinterpret_cast<float*>(stream.memory + 4 * S::PART);
  int start = first_query<G>(), i = start + threadIdx.x % WARP / 4;
  stream.load(0);
  hide_keys(unseen, (keys + S::ROWS - 1) / S::ROWS * S::ROWS, keys, mask ? mask + b * keys : mask);
  q += b * queries * qStride + head * d;
  Left<PLANES> query[G];
  Softmax x[G];
  float out[G][4 * PLANES][4];
#pragma unroll
  for (int g = 0; g < G; g++) {
    query[g] = load_left<PLANES>(q, qStride, i + 16 * g, queries, d);
    x[g] = {NEGATIVE_INFINITY, NEGATIVE_INFINITY, 0, 0};
    clear<PLANES>(out[g]);
  }
  __syncthreads();  // which keys are to be seen is known
  int steps = steps_of<S::ROWS>(unseen, keys);
  for (int n = 0; n < steps; n++) {
    stream.advance(n, steps);
    if (start >= queries) continue;
    float s[G][TILES][4];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      float c[G][4];
      outer(c, query, stream.ones(n), S::PLANE, tile);
#pragma unroll
      for (int g = 0; g < G; g++) {
        to_scores(c[g], LOG2E * scale, unseen + n * S::ROWS, tile);
#pragma unroll
        for (int e = 0; e < 4; e++) s[g][tile][e] = c[g][e];
      }
    }
    u32 p[G][TILES][2];
#pragma unroll
    for (int g = 0; g < G; g++) {
      float topBefore = x[g].top, lowBefore = x[g].low;
      raise(x[g], s[g]);
      float top = subtrahend(x[g].top), low = subtrahend(x[g].low);
      float byTop = exp2_approximate(topBefore - top), byLow = exp2_approximate(lowBefore - low);
      x[g].topSum *= byTop;
      x[g].lowSum *= byLow;
#pragma unroll
      for (int c = 0; c < 4 * PLANES; c++) {
#pragma unroll
        for (int e = 0; e < 4; e++) out[g][c][e] *= e < 2 ? byTop : byLow;
      }
      weigh(x[g], s[g], top, low, p[g]);
    }
    over_rows<PLANES, 2 * S::PLANE>(out, p, lanes_of(stream.others(n)));
  }
  y += b * queries * channels + head * d;
#pragma unroll
  for (int g = 0; g < G; g++) {
    int i0 = i + 16 * g, i1 = i0 + 8;
    x[g].topSum = quad_sum(x[g].topSum);
    x[g].lowSum = quad_sum(x[g].lowSum);
    store_rows<PLANES>(i0 < queries ? y + static_cast<i64>(i0) * channels : nullptr,
                       i1 < queries ? y + static_cast<i64>(i1) * channels : nullptr, out[g], 1 / x[g].topSum,
                       1 / x[g].lowSum, d);
    store_lse(lse, heads, queries, x[g], i0, i1, queries);
  }
}

template <int G, int TILES, int PLANES>
DEVICE void backward_queries(SHAPE_ARGUMENTS, const T* q, const T* k, const T* v, const int* mask, const T* y,
                             const float* lse, const T* dy, T* dq, float* pairs) {
  using S = Sizes<TILES, PLANES>;
  int head = blockIdx.x, channels = heads * d;
  i64 b = blockIdx.z, row = (b * heads + head) * queries;
  Stream<TILES, PLANES> stream = keys_of<TILES, PLANES>(SHAPE_VALUES, k, v);
  float* unseen = reinterpret_cast<float*>(stream.memory + 4 * S::PART);
  int start = first_query<G>(), i = start + threadIdx.x % WARP / 4;
  stream.load(0);
  hide_keys(unseen, (keys + S::ROWS - 1) / S::ROWS * S::ROWS, keys, mask ? mask + b * keys : mask);
  i64 out = b * queries * channels + head * d;
  q += b * queries * qStride + head * d;
  Rising<PLANES> r[G];
  Left<PLANES> query[G], rise[G];
  float sum[G][4 * PLANES][4];
#pragma unroll
  for (int g = 0; g < G; g++) {
    int i0 = i + 16 * g, i1 = i0 + 8;
    r[g] = load_rising<PLANES>(q, qStride, dy + out, y + out, lse + row, channels, i0, queries, d);
    query[g] = r[g].query;
    rise[g] = r[g].rise;
    clear<PLANES>(sum[g]);
    if (threadIdx.x % 4 == 0) {
      float top[2] = {r[g].top, r[g].topDot}, low[2] = {r[g].low, r[g].lowDot};
      if (i0 < queries) store_some<2>(pairs + 2 * (row + i0), top);
      if (i1 < queries) store_some<2>(pairs + 2 * (row + i1), low);
    }
  }
  __syncthreads();  // which keys are to be seen is known
  int steps = steps_of<S::ROWS>(unseen, keys);
  for (int n = 0; n < steps; n++) {
    stream.advance(n, steps);
    if (start >= queries) continue;
    Lanes keyLanes = lanes_of(stream.ones(n));
#pragma unroll
    for (int k = 0; k < TILES; k += 2) {
      u32 ds[G][2][2];
#pragma unroll
      for (int tile = k; tile < k + 2; tile++) {
        float s[G][4], dp[G][4];
        outer(s, query, stream.ones(n), S::PLANE, tile);
        outer(dp, rise, stream.others(n), S::PLANE, tile);
#pragma unroll
        for (int g = 0; g < G; g++) {
          u32 p[2];
          to_scores(s[g], LOG2E * scale, unseen + n * S::ROWS, tile);
          score_gradient(s[g], dp[g], r[g], p, ds[g][tile - k]);
        }
      }
      over_rows<PLANES, 2 * S::PLANE>(sum, ds, below(keyLanes, 8 * k));
    }
  }
  dq += b * queries * qStride + head * d;
#pragma unroll
  for (int g = 0; g < G; g++) {
    int i0 = i + 16 * g, i1 = i0 + 8;
    store_rows<PLANES>(i0 < queries ? dq + static_cast<i64>(i0) * qStride : nullptr,
                       i1 < queries ? dq + static_cast<i64>(i1) * qStride : nullptr, sum[g], scale, scale, d);
  }
}

// Rows of keys that are not seen get zeros, once: what they sum before depends on no other row, nor others on it.
template <int PLANES>
DEVICE void hide_rows(float (&c)[4 * PLANES][4], bool top, bool low) {
#pragma unroll
  for (int i = 0; i < 4 * PLANES; i++) {
#pragma unroll
    for (int e = 0; e < 4; e++) c[i][e] = (e < 2 ? top : low) ? c[i][e] : 0;
  }
}

template <int G, int TILES, int PLANES>
DEVICE void backward_keys(SHAPE_ARGUMENTS, int each, const T* q, const T* k, const T* v, const int* mask,
                          const T* dy, const float* pairs, T* dk, T* dv, float* parts) {
  using S = Sizes<TILES, PLANES>;
  const int KEYS = 64 * G;  // of a block
  int head = blockIdx.x, channels = heads * d, lane = threadIdx.x % WARP;
  i64 b = blockIdx.z;
  int blocks = (keys + KEYS - 1) / KEYS, chunk = blockIdx.y / blocks, block = blockIdx.y % blocks * KEYS;
  int first = chunk * each, count = min(each, queries - first), steps = (count + S::ROWS - 1) / S::ROWS;
  i64 firstRow = b * queries + first;
  Stream<TILES, PLANES> stream = {reinterpret_cast<T*>(block_memory()), q + firstRow * qStride + head * d,
                                  dy + firstRow * channels + head * d, qStride, channels, count, d};
  float* ownPairs = reinterpret_cast<float*>(stream.memory + 4 * S::PART);  // of two steps
  pairs += 2 * ((b * heads + head) * queries + first);
  auto load_pairs = [&](int n) {
    int i = threadIdx.x, from = n * S::ROWS + i;
    bool there = from < count;
    if (i < S::ROWS) copy_pair_async(ownPairs + 2 * ((n & 1) * S::ROWS + i), there ? pairs + 2 * from : pairs, there);
  };
  stream.load(0);
  load_pairs(0);
  mask = mask ? mask + b * keys : mask;
  auto seen = [&](int j) { return j < keys && (!mask || mask[j] != 0); };
  bool any = false;
  for (int j = block + lane; j < block + KEYS; j += WARP) any |= seen(j);
  if (!__ballot_sync(ALL_LANES, any)) steps = 0;
  int j = block + threadIdx.x / WARP * 16 * G + lane / 4;
  k += b * keys * kStride + head * d;
  v += b * keys * vStride + head * d;
  Left<PLANES> key[G], value[G];
  float keySum[G][4 * PLANES][4], valueSum[G][4 * PLANES][4];
#pragma unroll
  for (int g = 0; g < G; g++) {
    key[g] = load_left<PLANES>(k, kStride, j + 16 * g, keys, d);
    value[g] = load_left<PLANES>(v, vStride, j + 16 * g, keys, d);
    clear<PLANES>(keySum[g]);
    clear<PLANES>(valueSum[g]);
  }
  for (int n = 0; n < steps; n++) {
    stream.advance(n, steps);
    if (n + 1 < steps) load_pairs(n + 1);
    const float* lanePairs = ownPairs + 2 * (n & 1) * S::ROWS + 4 * (lane % 4);
#pragma unroll (PLANES == 1 ? 1 : TILES / 2)
    for (int h = 0; h < TILES; h += 2) {
      u32 p[G][2][2], ds[G][2][2];
#pragma unroll
      for (int tile = h; tile < h + 2; tile++) {
        float s[G][4], dp[G][4], r[4];
        outer(s, key, stream.ones(n), S::PLANE, tile);
        outer(dp, value, stream.others(n), S::PLANE, tile);
        load_some<4>(lanePairs + 16 * tile, r);
        float lse[4] = {r[0], r[2], r[0], r[2]}, dot[4] = {r[1], r[3], r[1], r[3]};
#pragma unroll
        for (int g = 0; g < G; g++) {
#pragma unroll
          for (int e = 0; e < 4; e++) s[g][e] *= LOG2E * scale;
          score_gradient(s[g], dp[g], lse, dot, p[g][tile - h], ds[g][tile - h]);
        }
      }
      over_rows<PLANES, 2 * S::PLANE>(valueSum, p, below(lanes_of(stream.others(n)), 8 * h));
      over_rows<PLANES, 2 * S::PLANE>(keySum, ds, below(lanes_of(stream.ones(n)), 8 * h));
    }
  }
  wait_for_copies();
#pragma unroll
  for (int g = 0; g < G; g++) {
    hide_rows<PLANES>(valueSum[g], seen(j + 16 * g), seen(j + 16 * g + 8));
    hide_rows<PLANES>(keySum[g], seen(j + 16 * g), seen(j + 16 * g + 8));
    store_sums<PLANES>(SHAPE_VALUES, valueSum[g], false, j + 16 * g, chunk, dk, dv, parts);
    store_sums<PLANES>(SHAPE_VALUES, keySum[g], true, j + 16 * g, chunk, dk, dv, parts);
  }
}

#define FORWARD_ARGUMENTS SHAPE_ARGUMENTS, const T *q, const T *k, const T *v, const int *mask, T *y, float *lse
#define FORWARD_VALUES SHAPE_VALUES, q, k, v, mask, y, lse
#define QUERIES_ARGUMENTS                                                                                             \
  SHAPE_ARGUMENTS, const T *q, const T *k, const T *v, const int *mask, const T *y, const float *lse, const T *dy, \
      T *dq, float *pairs
#define QUERIES_VALUES SHAPE_VALUES, q, k, v, mask, y, lse, dy, dq, pairs
#define KEYS_ARGUMENTS                                                                                              \
  SHAPE_ARGUMENTS, int each, const T *q, const T *k, const T *v, const int *mask, const T *dy, const float *pairs, \
      T *dk, T *dv, float *parts
#define KEYS_VALUES SHAPE_VALUES, each, q, k, v, mask, dy, pairs, dk, dv, parts

KERNEL_BOUNDS(128, 2) void attention_long_1(FORWARD_ARGUMENTS) { attend<2, 8, 1>(FORWARD_VALUES); }
KERNEL_BOUNDS(128, 2) void attention_long_2(FORWARD_ARGUMENTS) { attend<2, 8, 2>(FORWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void attention_long_4(FORWARD_ARGUMENTS) { attend<1, 4, 4>(FORWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void attention_long_queries_1(QUERIES_ARGUMENTS) { backward_queries<2, 8, 1>(QUERIES_VALUES); }
KERNEL_BOUNDS(128, 2) void attention_long_queries_2(QUERIES_ARGUMENTS) { backward_queries<2, 8, 2>(QUERIES_VALUES); }
KERNEL_BOUNDS(128, 2) void attention_long_queries_4(QUERIES_ARGUMENTS) { backward_queries<1, 4, 4>(QUERIES_VALUES); }
KERNEL_BOUNDS(128, 3) void attention_long_keys_1(KEYS_ARGUMENTS) { backward_keys<2, 8, 1>(KEYS_VALUES); }
KERNEL_BOUNDS(128, 2) void attention_long_keys_2(KEYS_ARGUMENTS) { backward_keys<2, 4, 2>(KEYS_VALUES); }
KERNEL_BOUNDS(128, 2) void attention_long_keys_4(KEYS_ARGUMENTS) { backward_keys<1, 4, 4>(KEYS_VALUES); }

#endif
