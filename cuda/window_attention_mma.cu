// Windowed attention on the tensor cores, for fp16 and bf16; the mathematics, shapes and sides are
// those of window_attention.cu, which serves fp32, and bf16 on sm_75.
//
// A block takes one head and a run of windows, through pictures: grid (heads, groups), a warp for
// each 16 positions. `TILES` is the number of 8-key tiles, N = window area ≤ 8·TILES: 7 for windows of
// 7×7, 8 for 8×8 (window_attention_large.cu has what is larger); `PLANES` that of 32-column planes,
// d ≤ 32·PLANES. What is beyond N or d is zero, and beyond N its score −∞.
//
//   forward   a warp's 16 queries stay in registers, and so do their scores: S = Q Kᵀ is accumulated
//             where P V wants its left side.  p = 2^(s − max), y = P V / Σ p
//   backward  1. by queries: P from the log-sum-exp, dP = dY Vᵀ, D = dy·y, dS = P (dP − D),
//                dQ = dS K, P and dS to shared memory as halves; dS, so rounded, added up in fp32 over
//                the block's windows, each lane its own elements, in registers
//             2. by keys: dV = Pᵀ dY, dK = dSᵀ Q
//             At its end a block folds its sum of dS into the table's rows, in order, and a second
//             kernel adds the blocks' parts in order: a part a block, not one a window.
//
// Global memory is read and written 16 bytes a lane: four lanes take 32 columns of a position, so d is
// a multiple of 8 and all addresses are of 16. The depth of Q Kᵀ is permuted alike on both sides, so that the 16 bytes which a lane reads of a row
// are its fragment: k = 2t, 2t+1, 2t+8, 2t+9 of step s stand for columns 8t + 4s to 8t + 4s + 3.
// Rows of a plane are 64 bytes in shared memory, their four chunks exchanged by bits 1 and 2 of
// the row, so that neither those reads nor transposed ones meet a bank twice. The table waits as fp32 times
// log₂e, behind it as many −∞ as a query can reach, where the positions beyond N point.
//
// Bytes: forward 4·B·H·W·C·s, backward 8·B·H·W·C·s and a part a block. Operations on the tensor
// cores: 4·R·8·TILES·d a window and head forward, 10·R²·d backward, R = 16·⌈TILES/2⌉.
#include "window_tiles.cuh"

#if MMA

template <int TILES, int PLANES>
DEVICE void attend(MAP_ARGUMENTS, int batch, const T* qkv, const T* bias, const T* table, T* y, float* lse) {
  using S = Sizes<TILES, PLANES>;
  T* keys = reinterpret_cast<T*>(block_memory());
  T* values = keys + S::PART;
  int n = windowH * windowW, channels = heads * d, head = blockIdx.x;
  int lane = threadIdx.x % WARP, i0 = threadIdx.x / WARP * 16 + lane / 4, i1 = i0 + 8, t = lane % 4;
  Window w = window_of_block(MAP_VALUES);
  Places own = prepare<S::ROWS>(reinterpret_cast<char*>(values + S::PART), w, table, head, heads, n, LOG2E);
  const float* top = own.table + (i0 < n ? offset_of(w, i0) : 0);
  const float* low = own.table + (i1 < n ? offset_of(w, i1) : 0);
  float scale = LOG2E * rsqrtf(static_cast<float>(d));
  Rows rows = {qkv, bias ? bias + head * d : bias, channels, d};
  int turn = 0;
  for (Range at = range_of_block(w, batch); at.index < at.last; next(at, w), turn ^= 1) {
    int* places = own.places + turn * S::ROWS;
    write_places(w, places, S::ROWS, n, bias != nullptr);
    i64 first = static_cast<i64>(at.picture) * height * width;
    rows.qkv = qkv + first * 3 * channels + head * d;
    __syncthreads();  // places are there, and all have left the last window
    load_keys<TILES, PLANES>(keys, values, rows, places);
    int topPlace = places[i0], lowPlace = places[i1];
    Left<PLANES> query;
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
      query.top[p] = get_chunk(rows.at(topPlace, 0), 4 * p + t, d);
      query.low[p] = get_chunk(rows.at(lowPlace, 0), 4 * p + t, d);
    }
    wait_for_copies();
    __syncthreads();  // keys and values are there
    bool seam = seamed(w);
    float s[TILES][4];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      outer<PLANES>(s[tile], query, keys, S::PLANE, tile);
      finish_scores(s[tile], tile, scale, top, low, own, places, seam, side_at(topPlace), side_at(lowPlace));
    }
    u32 p[TILES][2];
    Softmax x = soften(s, p);
    float out[4 * PLANES][4];
    clear<PLANES>(out);
    over_keys<TILES, PLANES>(out, p, lanes_of(values));
    int s0 = source_at(topPlace), s1 = source_at(lowPlace);
    T* to = y + first * channels + head * d;
    store_rows<PLANES>(s0 < 0 ? nullptr : to + static_cast<i64>(s0) * channels,
                       s1 < 0 ? nullptr : to + static_cast<i64>(s1) * channels, out, 1 / x.topSum, 1 / x.lowSum, d);
    if (lse && t == 0) {
      float* into = lse + (static_cast<i64>(at.index) * heads + head) * n;
      if (i0 < n) into[i0] = s0 < 0 ? 0 : x.top_lse();
      if (i1 < n) into[i1] = s1 < 0 ? 0 : x.low_lse();
    }
  }
}

#define FORWARD_ARGUMENTS \
  MAP_ARGUMENTS, int batch, const T *qkv, const T *bias, const T *table, T *y, float *lse
#define FORWARD_VALUES MAP_VALUES, batch, qkv, bias, table, y, lse

KERNEL_BOUNDS(128, 5) void window_attention_7x1(FORWARD_ARGUMENTS) { attend<7, 1>(FORWARD_VALUES); }
KERNEL_BOUNDS(128, 4) void window_attention_7x2(FORWARD_ARGUMENTS) { attend<7, 2>(FORWARD_VALUES); }
KERNEL_BOUNDS(128, 5) void window_attention_8x1(FORWARD_ARGUMENTS) { attend<8, 1>(FORWARD_VALUES); }
KERNEL_BOUNDS(128, 4) void window_attention_8x2(FORWARD_ARGUMENTS) { attend<8, 2>(FORWARD_VALUES); }

#endif
