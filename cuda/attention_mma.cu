// Attention over short key sequences on the tensor cores, for fp16 and bf16; the mathematics and
// arguments are those of attention.cu, which serves fp32 and heads that are not whole packs. More than 64 keys and
// heads of more than 64 columns are attention_long_mma.cu's.
//
// Variants `TxP` are for at most 8·T keys (32, 64) and heads of at most 32·P columns. Keys beyond the
// sequence are rows of zeros; they and masked ones get a score of −∞. Rows, fragments and 16-byte
// moves are as window_attention_mma.cu has them.
//
//   grid      (heads, chunks of queries, batch): heads side by side, as their parts of a row are.
//             `each` queries a chunk. Keys and values come into shared memory once a block.
//   forward   1 to 4 warps; a warp takes 16 queries at a time, the next 16 on their way meanwhile: scores, softmax
//             and P V in registers, no barrier after the keys'
//   backward  128 threads, 64 queries at a time: 1. by queries, a warp 16 of them: P from the log-sum-exp, dP = dY Vᵀ,
//             D = dy·y, dS = P (dP − D), dQ = scale dS K; P, dS, Q and dY go to shared memory.
//             2. by keys: dV += Pᵀ dY, dK += dSᵀ Q, a warp 16 keys of one of them (T = 4) or of both (T = 8),
//             summed in registers over the block's queries. With several chunks, each writes its part in fp32, and
//             `attention_parts` adds them in order.
//
// Bytes: (2·Q + 2·K)·C·s forward, (4·Q + 4·K)·C·s and lse backward, and 8·K·C a chunk and direction where there are
// several. Operations on the tensor cores: 4·Q·8T·C forward, 10·Q·8T·C backward, Q rounded up to 16.
#include "attention_tiles.cuh"

#if MMA

#define QUERIES 64  // of backward at a time

#define CUT_ARGUMENTS SHAPE_ARGUMENTS, int each
#define CUT_VALUES SHAPE_VALUES, each

// Brings keys and values of a head into two parts of shared memory, and what is added to each key's score.
template <int TILES, int PLANES>
DEVICE void load_keys(T* keyRows, T* valueRows, float* unseen, int keys, int d, const T* k, int kStride, const T* v,
                      int vStride, const int* mask) {
  load_rows<TILES, PLANES>(keyRows, valueRows, keys, d, k, kStride, v, vStride);
  hide_keys(unseen, Sizes<TILES, PLANES>::ROWS, keys, mask);
}

template <int TILES, int PLANES>
DEVICE void attend(CUT_ARGUMENTS, const T* q, const T* k, const T* v, const int* mask, T* y, float* lse) {
  using S = Sizes<TILES, PLANES>;
  T* keyRows = reinterpret_cast<T*>(block_memory());
  T* valueRows = keyRows + S::PART;
  float* unseen = reinterpret_cast<float*>(valueRows + S::PART);
  int head = blockIdx.x, channels = heads * d;
  i64 b = blockIdx.z;
  int first = blockIdx.y * each, last = min(first + each, queries), step = blockDim.x / 2;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  q += b * queries * qStride + head * d;
  y += b * queries * channels + head * d;
  load_keys<TILES, PLANES>(keyRows, valueRows, unseen, keys, d, k + b * keys * kStride + head * d, kStride,
                           v + b * keys * vStride + head * d, vStride, mask ? mask + b * keys : mask);
  Left<PLANES> next = load_left<PLANES>(q, qStride, first + 16 * warp + lane / 4, last, d);
  wait_for_copies();
  __syncthreads();  // keys and values are there
  for (int start = first + 16 * warp; start < last; start += step) {
    int i0 = start + lane / 4, i1 = i0 + 8;
    Left<PLANES> query = next;
    next = load_left<PLANES>(q, qStride, i0 + step, last, d);
    float s[TILES][4];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
      score<PLANES>(s[tile], query, keyRows, S::PLANE, tile, LOG2E * scale, unseen);
    u32 p[TILES][2];
    Softmax x = soften(s, p);
    float out[4 * PLANES][4];
    clear<PLANES>(out);
    over_keys<TILES, PLANES>(out, p, lanes_of(valueRows));
    store_rows<PLANES>(i0 < last ? y + static_cast<i64>(i0) * channels : nullptr,
                       i1 < last ? y + static_cast<i64>(i1) * channels : nullptr, out, 1 / x.topSum, 1 / x.lowSum, d);
    store_lse(lse, heads, queries, x, i0, i1, last);
  }
}

// A matrix of 64 queries × keys in shared memory: planes of 32 keys, a chunk a tile.
DEVICE T* weight_cell(T* weights, int row, int tile) {
  return cell(weights + tile / 4 * 32 * QUERIES, row, tile % 4);
}

DEVICE void put_weights(T* weights, const u32 (&a)[2], int i0, int tile) {
  int at = 2 * (threadIdx.x % 4);
  store_words<4>(weight_cell(weights, i0, tile) + at, a[0]);
  store_words<4>(weight_cell(weights, i0 + 8, tile) + at, a[1]);
}

// c += 16 columns of weights, transposed, to which `columns` points · the first `left` rows of
// `right`, from step K of 16 on.
template <int PLANES, int K = 0>
DEVICE void over_queries(float (&c)[4 * PLANES][4], int left, u32 columns, Lanes right) {
  if constexpr (16 * K < QUERIES) {
    if (16 * K >= left) return;
    u32 a[4];
    load_transposed<1024 * K>(a, columns);
    inner<PLANES, 64 * QUERIES, 1024 * K>(c, a[0], a[1], a[2], a[3], right);
    over_queries<PLANES, K + 1>(c, left, columns, right);
  }
}

// `parts` as store_sums has them.
template <int TILES, int PLANES>
DEVICE void attend_backward(CUT_ARGUMENTS, const T* q, const T* k, const T* v, const int* mask, const T* y,
                            const float* lse, const T* dy, T* dq, T* dk, T* dv, float* parts) {
  using S = Sizes<TILES, PLANES>;
  const int PLANE = 32 * QUERIES, OWN = TILES / 4;  // OWN: sums of a warp, and planes of weights
  T* keyRows = reinterpret_cast<T*>(block_memory());
  T* valueRows = keyRows + S::PART;
  T* queryRows = valueRows + S::PART;
  T* rises = queryRows + PLANES * PLANE;  // dy
  T* weights = rises + PLANES * PLANE;    // p
  T* slopes = weights + OWN * PLANE;      // ds
  float* unseen = reinterpret_cast<float*>(slopes + OWN * PLANE);
  int head = blockIdx.x, channels = heads * d;
  i64 b = blockIdx.z;
  int first = blockIdx.y * each, last = min(first + each, queries);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = lane % 4;
  int i0 = 16 * warp + lane / 4, i1 = i0 + 8;
  q += b * queries * qStride + head * d;
  dq += b * queries * qStride + head * d;
  y += b * queries * channels + head * d;
  dy += b * queries * channels + head * d;
  lse += (b * heads + head) * queries;
  load_keys<TILES, PLANES>(keyRows, valueRows, unseen, keys, d, k + b * keys * kStride + head * d, kStride,
                           v + b * keys * vStride + head * d, vStride, mask ? mask + b * keys : mask);
  float sum[OWN][4 * PLANES][4];
#pragma unroll
  for (int o = 0; o < OWN; o++) clear<PLANES>(sum[o]);
  for (int start = first; start < last; start += QUERIES) {
    int left = min(QUERIES, last - start), top = start + i0, low = start + i1;
    Rising<PLANES> r = load_rising<PLANES>(q, qStride, dy, y, lse, channels, top, last, d);
    wait_for_copies();
    __syncthreads();  // keys and values are there, and all have left the last queries
    if (16 * warp < left) {
#pragma unroll
      for (int p = 0; p < PLANES; p++) {
        *words_at(queryRows + p * PLANE, i0, t) = r.query.top[p];
        *words_at(queryRows + p * PLANE, i1, t) = r.query.low[p];
        *words_at(rises + p * PLANE, i0, t) = r.rise.top[p];
        *words_at(rises + p * PLANE, i1, t) = r.rise.low[p];
      }
      u32 held[TILES][2];  // ds
#pragma unroll
      for (int tile = 0; tile < TILES; tile++) {
        float s[4], dp[4];
        u32 p[2];
        score<PLANES>(s, r.query, keyRows, S::PLANE, tile, LOG2E * scale, unseen);
        outer<PLANES>(dp, r.rise, valueRows, S::PLANE, tile);
        score_gradient(s, dp, r, p, held[tile]);
        put_weights(weights, p, i0, tile);
        put_weights(slopes, held[tile], i0, tile);
      }
      float slope[4 * PLANES][4];
      clear<PLANES>(slope);
      over_keys<TILES, PLANES>(slope, held, lanes_of(keyRows));
      store_rows<PLANES>(top < last ? dq + static_cast<i64>(top) * qStride : nullptr,
                         low < last ? dq + static_cast<i64>(low) * qStride : nullptr, slope, scale, scale, d);
    }
    __syncthreads();  // p, ds, queries and dy are there
#pragma unroll
    for (int o = 0; o < OWN; o++) {
      bool ofKeys = OWN == 1 ? warp / 2 : o;
      int group = OWN == 1 ? warp % 2 : warp;
      T* own = weight_cell(ofKeys ? slopes : weights, lane / 16 * 8 + lane % 8, 2 * group + lane / 8 % 2);
      over_queries<PLANES>(sum[o], left, shared_address(own), lanes_of(ofKeys ? queryRows : rises));
    }
  }
#pragma unroll
  for (int o = 0; o < OWN; o++) {
    bool ofKeys = OWN == 1 ? warp / 2 : o;
    int j0 = 16 * (OWN == 1 ? warp % 2 : warp) + lane / 4;
    store_sums<PLANES>(SHAPE_VALUES, sum[o], ofKeys, j0, blockIdx.y, dk, dv, parts);
  }
}

#define FORWARD_ARGUMENTS CUT_ARGUMENTS, const T *q, const T *k, const T *v, const int *mask, T *y, float *lse
#define FORWARD_VALUES CUT_VALUES, q, k, v, mask, y, lse
#define BACKWARD_ARGUMENTS                                                                              \
  CUT_ARGUMENTS, const T *q, const T *k, const T *v, const int *mask, const T *y, const float *lse, const T *dy, \
      T *dq, T *dk, T *dv, float *parts
#define BACKWARD_VALUES CUT_VALUES, q, k, v, mask, y, lse, dy, dq, dk, dv, parts

KERNEL_BOUNDS(128, 6) void attention_4x1(FORWARD_ARGUMENTS) { attend<4, 1>(FORWARD_VALUES); }
KERNEL_BOUNDS(128, 5) void attention_4x2(FORWARD_ARGUMENTS) { attend<4, 2>(FORWARD_VALUES); }
KERNEL_BOUNDS(128, 5) void attention_8x1(FORWARD_ARGUMENTS) { attend<8, 1>(FORWARD_VALUES); }
KERNEL_BOUNDS(128, 4) void attention_8x2(FORWARD_ARGUMENTS) { attend<8, 2>(FORWARD_VALUES); }
KERNEL_BOUNDS(128, 4) void attention_backward_4x1(BACKWARD_ARGUMENTS) { attend_backward<4, 1>(BACKWARD_VALUES); }
KERNEL_BOUNDS(128, 4) void attention_backward_4x2(BACKWARD_ARGUMENTS) { attend_backward<4, 2>(BACKWARD_VALUES); }
KERNEL_BOUNDS(128, 4) void attention_backward_8x1(BACKWARD_ARGUMENTS) { attend_backward<8, 1>(BACKWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void attention_backward_8x2(BACKWARD_ARGUMENTS) { attend_backward<8, 2>(BACKWARD_VALUES); }

// Adds the chunks' parts of dv and dk, `rows` (batch · keys) of `channels` each, in order: a thread
// 8 columns of a row, of 2·rows·channels / 8.
KERNEL void attention_parts(i64 rows, int channels, int chunks, float scale, int kStride, int vStride,
                            const float* parts, T* dk, T* dv) {
  int packs = channels / 8;
  i64 matrix = rows * channels;
  GRID_STRIDE(i, 2 * rows * packs) {
    i64 pack, row = split(i, packs, &pack);
    bool ofKeys = row >= rows;
    const float* from = parts + row * channels + 8 * pack;
    float v[8] = {};
#pragma unroll 4
    for (int c = 0; c < chunks; c++) {
      float part[8];
      load_some<4>(from + 2 * c * matrix, part);
      load_some<4>(from + 2 * c * matrix + 4, part + 4);
#pragma unroll
      for (int e = 0; e < 8; e++) v[e] += part[e];
    }
    float by = ofKeys ? scale : 1;
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] *= by;
    store_some<8>((ofKeys ? dk + (row - rows) * kStride : dv + row * vStride) + 8 * pack, v);
  }
}

#endif
