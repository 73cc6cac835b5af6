// The backward of windowed attention on the tensor cores; window_attention_mma.cu has the mathematics,
// launch, layouts, bytes and operations of both.
#include "window_tiles.cuh"

#if MMA

// Chunk c of a row of a matrix of halves; rows that follow each other lie in other banks.
template <int ROWS>
DEVICE T* score_cell(T* scores, int row, int c) {
  static_assert(ROWS == 64, "eight chunks");
  return scores + ROWS * row + ((c ^ (row & 7)) << 3);
}

// Writes the pairs that a lane holds of rows i0 and i0 + 8 in a tile.
template <int ROWS>
DEVICE void put_scores(T* scores, const u32 (&a)[2], int i0, int tile) {
  int t = threadIdx.x % 4;
  *reinterpret_cast<u32*>(score_cell<ROWS>(scores, i0, tile) + 2 * t) = a[0];
  *reinterpret_cast<u32*>(score_cell<ROWS>(scores, i0 + 8, tile) + 2 * t) = a[1];
}

// c += this warp's 16 rows of scores · all rows of `right`, from step K of 16 on.
template <int TILES, int PLANES, int K = 0>
DEVICE void over_stored_keys(float (&c)[4 * PLANES][4], T* scores, Lanes right) {
  using S = Sizes<TILES, PLANES>;
  if constexpr (2 * K < TILES) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    u32 a[4];
    load_straight<0>(a, shared_address(score_cell<S::ROWS>(scores, 16 * warp + lane % 16, 2 * K + lane / 16)));
    const bool both = 2 * K + 1 < TILES;  // beyond the last tile nothing was written
    inner<PLANES, 2 * S::PLANE, 1024 * K>(c, a[0], a[1], both ? a[2] : 0, both ? a[3] : 0, right);
    over_stored_keys<TILES, PLANES, K + 1>(c, scores, right);
  }
}

// Where this lane points at its warp's 16 columns of scores, for `over_queries`.
template <int ROWS>
DEVICE u32 columns_of(T* scores) {
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  return shared_address(score_cell<ROWS>(scores, lane / 16 * 8 + lane % 8, 2 * warp + lane / 8 % 2));
}

// c += those columns, transposed, · all rows of `right`, from step K of 16 on.
template <int TILES, int PLANES, int K = 0>
DEVICE void over_queries(float (&c)[4 * PLANES][4], u32 columns, Lanes right) {
  using S = Sizes<TILES, PLANES>;
  if constexpr (K < S::WARPS_) {
    u32 a[4];
    load_transposed<32 * K * S::ROWS>(a, columns);
    inner<PLANES, 2 * S::PLANE, 1024 * K>(c, a[0], a[1], a[2], a[3], right);
    over_queries<TILES, PLANES, K + 1>(c, columns, right);
  }
}

// Where a block's sum of dS has element (i, j): each lane's pairs lie beside those of its warp.
template <int THREADS>
DEVICE int slot(int i, int j) {
  return 2 * ((j / 8 * 2 + i / 8 % 2) * THREADS + i / 16 * WARP + i % 8 * 4 + j % 8 / 2) + j % 2;
}

DEVICE void add(Pair& sum, Pair v) { sum = Pair{sum.first + v.first, sum.second + v.second}; }

// parts[blockIdx.y]: of the table [row][head], behind it, where there is a bias, its [3C].
template <int TILES, int PLANES>
DEVICE void attend_backward(MAP_ARGUMENTS, int batch, const T* qkv, const T* bias, const T* table, const T* y,
                            const float* lse, const T* dy, T* dqkv, float* parts) {
  using S = Sizes<TILES, PLANES>;
  T* keys = reinterpret_cast<T*>(block_memory());
  T* values = keys + S::PART;
  T* queries = values + S::PART;
  T* rises = queries + S::PART;  // dy
  T* scores = rises + S::PART;   // p
  T* slopes = scores + S::ROWS * S::ROWS;  // ds
  int n = windowH * windowW, channels = heads * d, head = blockIdx.x;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = lane % 4;
  int i0 = warp * 16 + lane / 4, i1 = i0 + 8;  // this lane's queries, and keys
  Window w = window_of_block(MAP_VALUES);
  int relatives = (2 * windowH - 1) * (2 * windowW - 1);
  bool padding = w.frameH != height || w.frameW != width;
  char* behind = reinterpret_cast<char*>(slopes + S::ROWS * S::ROWS);
  Places own = prepare<S::ROWS>(behind, w, table, head, heads, n, LOG2E);
  const float* top = own.table + (i0 < n ? offset_of(w, i0) : 0);
  const float* low = own.table + (i1 < n ? offset_of(w, i1) : 0);
  // dk and dv of the padded positions, a row a warp.
  float* padded = const_cast<float*>(own.table) + relatives + relatives / 2 + 1;
  float* warp_padded = padded + warp * 64 * PLANES;
  if (padding)
    for (int c = lane; c < 64 * PLANES; c += WARP) warp_padded[c] = 0;
  float root = rsqrtf(static_cast<float>(d));
  Rows rows = {qkv, bias ? bias + head * d : bias, channels, d};
  Pair sum[TILES][2];
#pragma unroll
  for (int tile = 0; tile < TILES; tile++) sum[tile][0] = sum[tile][1] = Pair{0, 0};
  int turn = 0;
  for (Range at = range_of_block(w, batch); at.index < at.last; next(at, w), turn ^= 1) {
    int* places = own.places + turn * S::ROWS;
    write_places(w, places, S::ROWS, n, bias != nullptr);
    i64 first = static_cast<i64>(at.picture) * height * width;
    rows.qkv = qkv + first * 3 * channels + head * d;
    __syncthreads();  // places are there, and all have left the last window
    load_keys<TILES, PLANES>(keys, values, rows, places);
    int topPlace = places[i0], lowPlace = places[i1];
    int s0 = source_at(topPlace), s1 = source_at(lowPlace);
    const T* rises_of = dy + first * channels + head * d;
    const T* y_of = y + first * channels + head * d;
    Left<PLANES> query, rise;
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
      // A padded query's output is dropped.
      query.top[p] = get_chunk(s0 < 0 ? nullptr : rows.at(topPlace, 0), 4 * p + t, d);
      query.low[p] = get_chunk(s1 < 0 ? nullptr : rows.at(lowPlace, 0), 4 * p + t, d);
      rise.top[p] = get_chunk(s0 < 0 ? nullptr : rises_of + s0 * channels, 4 * p + t, d);
      rise.low[p] = get_chunk(s1 < 0 ? nullptr : rises_of + s1 * channels, 4 * p + t, d);
    }
    float dot0 = 0, dot1 = 0;
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
      dot0 += chunk_dot(rise.top[p], get_chunk(s0 < 0 ? nullptr : y_of + s0 * channels, 4 * p + t, d));
      dot1 += chunk_dot(rise.low[p], get_chunk(s1 < 0 ? nullptr : y_of + s1 * channels, 4 * p + t, d));
    }
    dot0 = quad_sum(dot0);
    dot1 = quad_sum(dot1);
    const float* own_lse = lse + (static_cast<i64>(at.index) * heads + head) * n;
    float m0 = s0 < 0 ? POSITIVE_INFINITY : LOG2E * own_lse[i0];
    float m1 = s1 < 0 ? POSITIVE_INFINITY : LOG2E * own_lse[i1];
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
      *words_at(queries + p * S::PLANE, i0, t) = query.top[p];
      *words_at(queries + p * S::PLANE, i1, t) = query.low[p];
      *words_at(rises + p * S::PLANE, i0, t) = rise.top[p];
      *words_at(rises + p * S::PLANE, i1, t) = rise.low[p];
    }
    wait_for_copies();
    __syncthreads();  // the window is there
    bool seam = seamed(w);
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      float s[4], dp[4];
      outer<PLANES>(s, query, keys, S::PLANE, tile);
      finish_scores(s, tile, LOG2E * root, top, low, own, places, seam, side_at(topPlace), side_at(lowPlace));
      outer<PLANES>(dp, rise, values, S::PLANE, tile);
      s[0] = exp2_approximate(s[0] - m0);
      s[1] = exp2_approximate(s[1] - m0);
      s[2] = exp2_approximate(s[2] - m1);
      s[3] = exp2_approximate(s[3] - m1);
      u32 p[2] = {pack_pair(s[0], s[1]), pack_pair(s[2], s[3])};
      put_scores<S::ROWS>(scores, p, i0, tile);
      Pair a = {s[0] * (dp[0] - dot0), s[1] * (dp[1] - dot0)};
      Pair b = {s[2] * (dp[2] - dot1), s[3] * (dp[3] - dot1)};
      u32 ds[2] = {pack_pair(a.first, a.second), pack_pair(b.first, b.second)};
      put_scores<S::ROWS>(slopes, ds, i0, tile);
    }
    // Here and not in the loop above, where registers are short.
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      u32 a = *reinterpret_cast<const u32*>(score_cell<S::ROWS>(slopes, i0, tile) + 2 * t);
      u32 b = *reinterpret_cast<const u32*>(score_cell<S::ROWS>(slopes, i1, tile) + 2 * t);
      add(sum[tile][0], Pair{lower(a), upper(a)});
      add(sum[tile][1], Pair{lower(b), upper(b)});
    }
    T* to = dqkv + first * 3 * channels + head * d;
    T* to0 = s0 < 0 ? nullptr : to + s0 * 3 * channels;
    T* to1 = s1 < 0 ? nullptr : to + s1 * 3 * channels;
    float out[4 * PLANES][4];
    clear<PLANES>(out);
    __syncwarp();  // these rows are this warp's own
    over_stored_keys<TILES, PLANES>(out, slopes, lanes_of(keys));
    store_rows<PLANES>(to0, to1, out, root, root, d);
    __syncthreads();  // p and ds are there
    clear<PLANES>(out);
    over_queries<TILES, PLANES>(out, columns_of<S::ROWS>(scores), lanes_of(rises));
    store_rows<PLANES>(to0 ? to0 + 2 * channels : nullptr, to1 ? to1 + 2 * channels : nullptr, out, 1, 1, d);
    if (padding) add_padded<PLANES>(warp_padded + 32 * PLANES, out, s0 == -1, s1 == -1, 1);
    clear<PLANES>(out);
    over_queries<TILES, PLANES>(out, columns_of<S::ROWS>(slopes), lanes_of(queries));
    store_rows<PLANES>(to0 ? to0 + channels : nullptr, to1 ? to1 + channels : nullptr, out, root, root, d);
    if (padding) add_padded<PLANES>(warp_padded, out, s0 == -1, s1 == -1, root);
  }
  __syncthreads();
  Pair* slots = reinterpret_cast<Pair*>(block_memory());  // in place of the last window
#pragma unroll
  for (int i = 0; i < 2 * TILES; i++) slots[i * S::THREADS + threadIdx.x] = sum[i / 2][i % 2];
  __syncthreads();
  const float* sums = reinterpret_cast<const float*>(slots);
  float* part = parts + blockIdx.y * (static_cast<i64>(relatives) * heads + (bias ? 3 * channels : 0));
  for (int r = threadIdx.x; r < relatives; r += S::THREADS) {
    int down = r / (2 * windowW - 1) - windowH + 1, right = r % (2 * windowW - 1) - windowW + 1;
    float v = 0;
    for (int i = max(0, down); i < windowH + min(0, down); i++)
      for (int j = max(0, right); j < windowW + min(0, right); j++)
        v += sums[slot<S::THREADS>(i * windowW + j, (i - down) * windowW + j - right)];
    part[static_cast<i64>(r) * heads + head] = v;
  }
  if (!bias) return;
  part += static_cast<i64>(relatives) * heads + head * d;
  put_bias_part<PLANES, S::WARPS_>(part, padded, padding, channels, d);
}

#define BACKWARD_ARGUMENTS                                                                                       \
  MAP_ARGUMENTS, int batch, const T *qkv, const T *bias, const T *table, const T *y, const float *lse, const T *dy, \
      T *dqkv, float *parts
#define BACKWARD_VALUES MAP_VALUES, batch, qkv, bias, table, y, lse, dy, dqkv, parts

KERNEL_BOUNDS(128, 4) void window_attention_backward_7x1(BACKWARD_ARGUMENTS) { attend_backward<7, 1>(BACKWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void window_attention_backward_7x2(BACKWARD_ARGUMENTS) { attend_backward<7, 2>(BACKWARD_VALUES); }
KERNEL_BOUNDS(128, 4) void window_attention_backward_8x1(BACKWARD_ARGUMENTS) { attend_backward<8, 1>(BACKWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void window_attention_backward_8x2(BACKWARD_ARGUMENTS) { attend_backward<8, 2>(BACKWARD_VALUES); }

#define PARTS_AT_ONCE 8

// Adds the blocks' parts, each of `table` and then `bias` floats, in order: 32 columns a block, 8
// runs of parts side by side, 256 threads as (32, 8).
KERNEL void window_attention_parts(int parts, int table, int bias, const float* from, T* dTable, T* dBias) {
  float* runs = reinterpret_cast<float*>(block_memory());
  int columns = table + bias, c = blockIdx.x * WARP + threadIdx.x;
  float v = 0;
  if (c < columns)
    for (int p = threadIdx.y; p < parts; p += PARTS_AT_ONCE) v += from[static_cast<i64>(p) * columns + c];
  runs[threadIdx.y * WARP + threadIdx.x] = v;
  __syncthreads();
  if (threadIdx.y != 0 || c >= columns) return;
  v = 0;
  for (int k = 0; k < PARTS_AT_ONCE; k++) v += runs[k * WARP + threadIdx.x];
  if (c < table) {
    put(dTable + c, v);
  } else {
    put(dBias + c - table, v);
  }
}

#endif
