// What the attentions over sequences on the tensor cores share, of few keys (attention_mma.cu) and of many
// (attention_long_mma.cu): rows of a head from global memory, scores, what a score's gradient is, and where sums over
// queries go.
#pragma once
#include "tiles.cuh"

#if MMA

#define SHAPE_ARGUMENTS int heads, int queries, int keys, int d, float scale, int qStride, int kStride, int vStride
#define SHAPE_VALUES heads, queries, keys, d, scale, qStride, kStride, vStride

// Brings the first `left` of 8·TILES rows of two matrices of a head into two parts of shared memory, zeros behind them.
template <int TILES, int PLANES>
DEVICE void load_rows(T* ones, T* others, int left, int d, const T* x, int xStride, const T* y, int yStride) {
  using S = Sizes<TILES, PLANES>;
  int c = threadIdx.x % 4;
  for (int row = threadIdx.x / 4; row < S::ROWS; row += blockDim.x / 4) {
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
      int column = 32 * p + 8 * c;
      bool there = row < left && column < d;
      copy_async(cell(ones + p * S::PLANE, row, c), there ? x + static_cast<i64>(row) * xStride + column : x, there);
      copy_async(cell(others + p * S::PLANE, row, c), there ? y + static_cast<i64>(row) * yStride + column : y, there);
    }
  }
}

// What is added to the scores of `rows` keys, of which `keys` are there: −∞ where one is not to be seen.
DEVICE void hide_keys(float* unseen, int rows, int keys, const int* mask) {
  for (int j = threadIdx.x; j < rows; j += blockDim.x)
    unseen[j] = j < keys && (!mask || mask[j] != 0) ? 0 : NEGATIVE_INFINITY;
}

// Rows i and i + 8, which lane / 4 tells apart in a warp, as a left side; zeros from `last` on.
template <int PLANES>
DEVICE Left<PLANES> load_left(const T* rows, int stride, int i, int last, int d) {
  const T* top = i < last ? rows + static_cast<i64>(i) * stride : nullptr;
  const T* low = i + 8 < last ? rows + static_cast<i64>(i + 8) * stride : nullptr;
  Left<PLANES> a;
#pragma unroll
  for (int p = 0; p < PLANES; p++) {
    a.top[p] = get_chunk(top, 4 * p + threadIdx.x % 4, d);
    a.low[p] = get_chunk(low, 4 * p + threadIdx.x % 4, d);
  }
  return a;
}

// Scores in powers of two of what a product with a tile of keys gave.
DEVICE void to_scores(float (&s)[4], float scale, const float* unseen, int tile) {
  float u[2];
  load_some<2>(unseen + 8 * tile + threadIdx.x % 4 * 2, u);
#pragma unroll
  for (int e = 0; e < 4; e++) s[e] = s[e] * scale + u[e % 2];
}

// The scores of rows g and g + 8 with the keys of a tile.
template <int PLANES>
DEVICE void score(float (&s)[4], const Left<PLANES>& query, T* keyRows, int plane, int tile, float scale,
                  const float* unseen) {
  outer<PLANES>(s, query, keyRows, plane, tile);
  to_scores(s, scale, unseen, tile);
}

// Writes the log-sum-exp of rows i0 and i1, unless null is where it goes; x's sums are the rows'.
DEVICE void store_lse(float* lse, int heads, int queries, const Softmax& x, int i0, int i1, int last) {
  if (lse && threadIdx.x % 4 == 0) {
    float* into = lse + (static_cast<i64>(blockIdx.z) * heads + blockIdx.x) * queries;
    if (i0 < last) into[i0] = x.top_lse();
    if (i1 < last) into[i1] = x.low_lse();
  }
}

// Queries g and g + 8 of a warp, backward: q, dy, the log-sum-exp in powers of two (∞ from `last` on, which makes P
// zero) and D = dy·y.
template <int PLANES>
struct Rising {
  Left<PLANES> query, rise;
  float top, low, topDot, lowDot;
};

// `channels` a row of dy and y.
template <int PLANES>
DEVICE Rising<PLANES> load_rising(const T* q, int qStride, const T* dy, const T* y, const float* lse, int channels, int i,
                                  int last, int d) {
  Rising<PLANES> r;
  r.query = load_left<PLANES>(q, qStride, i, last, d);
  r.rise = load_left<PLANES>(dy, channels, i, last, d);
  Left<PLANES> out = load_left<PLANES>(y, channels, i, last, d);
  r.topDot = r.lowDot = 0;
#pragma unroll
  for (int p = 0; p < PLANES; p++) {
    r.topDot += chunk_dot(r.rise.top[p], out.top[p]);
    r.lowDot += chunk_dot(r.rise.low[p], out.low[p]);
  }
  r.topDot = quad_sum(r.topDot);
  r.lowDot = quad_sum(r.lowDot);
  r.top = i < last ? LOG2E * lse[i] : POSITIVE_INFINITY;
  r.low = i + 8 < last ? LOG2E * lse[i + 8] : POSITIVE_INFINITY;
  return r;
}

// Of scores s and dP, p = 2^(s − lse) and ds = p (dp − dot) as pairs of halves.
DEVICE void score_gradient(float (&s)[4], const float (&dp)[4], const float (&lse)[4], const float (&dot)[4],
                           u32 (&p)[2], u32 (&ds)[2]) {
#pragma unroll
  for (int e = 0; e < 4; e++) s[e] = exp2_approximate(s[e] - lse[e]);
  p[0] = pack_pair(s[0], s[1]);
  p[1] = pack_pair(s[2], s[3]);
  ds[0] = pack_pair(s[0] * (dp[0] - dot[0]), s[1] * (dp[1] - dot[1]));
  ds[1] = pack_pair(s[2] * (dp[2] - dot[2]), s[3] * (dp[3] - dot[3]));
}

// The same of rows g and g + 8 of a product whose rows are queries.
template <int PLANES>
DEVICE void score_gradient(float (&s)[4], const float (&dp)[4], const Rising<PLANES>& r, u32 (&p)[2], u32 (&ds)[2]) {
  float lse[4] = {r.top, r.top, r.low, r.low}, dot[4] = {r.topDot, r.topDot, r.lowDot, r.lowDot};
  score_gradient(s, dp, lse, dot, p, ds);
}

template <int PLANES>
DEVICE void store_part(float* row, const float (&c)[4 * PLANES][4], int e, int d) {
  int column = 2 * (threadIdx.x % 4);
#pragma unroll
  for (int i = 0; i < 4 * PLANES; i++) {
    if (8 * i < d) store_some<2>(row + 8 * i + column, c[i] + e);
  }
}

// Writes what keys j0 and j0 + 8 sum over a chunk of queries, to dk (`ofKeys`) or dv, or in fp32 to
// parts[chunk][dv, dk][batch][key][head][column] where there are several chunks, else null.
template <int PLANES>
DEVICE void store_sums(SHAPE_ARGUMENTS, const float (&sum)[4 * PLANES][4], bool ofKeys, int j0, int chunk, T* dk, T* dv,
                       float* parts) {
  int j1 = j0 + 8, head = blockIdx.x, channels = heads * d;
  i64 b = blockIdx.z;
  if (parts) {
    i64 rows = static_cast<i64>(gridDim.z) * keys;
    float* to = parts + ((2 * chunk + ofKeys) * rows + b * keys) * channels + head * d;
    if (j0 < keys) store_part<PLANES>(to + static_cast<i64>(j0) * channels, sum, 0, d);
    if (j1 < keys) store_part<PLANES>(to + static_cast<i64>(j1) * channels, sum, 2, d);
  } else {
    float by = ofKeys ? scale : 1;
    i64 stride = ofKeys ? kStride : vStride;
    T* to = (ofKeys ? dk : dv) + b * keys * stride + head * d;
    store_rows<PLANES>(j0 < keys ? to + j0 * stride : nullptr, j1 < keys ? to + j1 * stride : nullptr, sum, by, by, d);
  }
}

#endif
