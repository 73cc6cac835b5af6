// Windowed attention on the tensor cores, for fp16 and bf16; the mathematics, shapes and sides are
// those of window_attention.cu, which serves fp32, and bf16 on sm_75.
//
// A block takes one head and a run of windows, through pictures: grid (heads, groups), a warp for
// each 16 positions. `TILES` is the number of 8-key tiles, N = window area ≤ 8·TILES: 7 for windows of
// 7×7, 8 for 8×8, 18 for 12×12; `PLANES` that of 32-column planes, d ≤ 32·PLANES. What is beyond N or
// d is zero, and beyond N its score −∞.
//
//   forward   a warp's 16 queries stay in registers, and so do their scores: S = Q Kᵀ is accumulated
//             where P V wants its left side.  p = 2^(s − max), y = P V / Σ p
//   backward  1. by queries: P from the log-sum-exp, dP = dY Vᵀ, D = dy·y, dS = P (dP − D),
//                dQ = dS K, P and dS to shared memory as halves; dS added up in fp32 over the block's
//                windows, each lane its own elements, in registers or (TILES 18) in shared memory
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
#include "mma.cuh"
#include "window.cuh"

#if MMA

#define LOG2E 1.44269504f
#define LN2 0.69314718f

#define POSITIVE_INFINITY __uint_as_float(0x7f800000u)

struct __align__(8) Offsets {
  int first, second;
};
struct __align__(8) Pair {
  float first, second;
};

template <int TILES, int PLANES>
struct Sizes {
  static const int WARPS_ = (TILES + 1) / 2;
  static const int ROWS = 16 * WARPS_;
  static const int THREADS = 32 * WARPS_;
  static const int PLANE = 32 * ROWS;         // elements
  static const int PART = PLANES * PLANE;     // q, k, v or dy of a window
  static const bool LARGE = TILES > 8;        // registers do not hold the sum of dS
};

DEVICE char* block_memory() {
  SHARED(char, memory);
  return memory;
}

// ---- what a block knows of its windows

struct Places {
  const float* table;  // of this head, times log₂e; element c of it is the pair of equal positions
  int* offsets;        // table index of (n, m) = offset of row n − what offsets[m] holds
  int* places;         // 16 · map index + side; map index −1 for padding, −2 beyond N
};

DEVICE int offset_of(const Window& w, int n) { return n / w.windowW * (2 * w.windowW - 1) + n % w.windowW; }

// Fills the table and the offsets; `memory` as Java's `placesBytes` counts it.
template <int ROWS>
DEVICE Places prepare(char* memory, const Window& w, const T* table, int head, int heads, int n) {
  int relatives = (2 * w.windowH - 1) * (2 * w.windowW - 1), centre = relatives / 2;
  Places p;
  p.offsets = reinterpret_cast<int*>(memory);
  p.places = p.offsets + ROWS;  // two rows of them, for windows in turn
  float* own = reinterpret_cast<float*>(p.places + 2 * ROWS);
  p.table = own;
  for (int i = threadIdx.x; i < relatives; i += blockDim.x) own[i] = LOG2E * f(table[i * heads + head]);
  for (int i = threadIdx.x; i <= centre; i += blockDim.x) own[relatives + i] = NEGATIVE_INFINITY;
  for (int i = threadIdx.x; i < ROWS; i += blockDim.x) p.offsets[i] = i < n ? centre - offset_of(w, i) : relatives;
  return p;
}

DEVICE int side_at(int place) { return place & 15; }
DEVICE int source_at(int place) { return place >> 4; }

// Which windows of all pictures a block has: those from `index` to `last`, which follow each other.
struct Range {
  int index, last, picture;
};

// Also moves `w` to the first of them.
DEVICE Range range_of_block(Window& w, int batch) {
  int columns = w.frameW / w.windowW, windows = w.frameH / w.windowH * columns, all = batch * windows;
  int each = (all + gridDim.y - 1) / gridDim.y, first = blockIdx.y * each;
  w.top = first % windows / columns * w.windowH;
  w.left = first % columns * w.windowW;
  return Range{first, min(first + each, all), first / windows};
}

DEVICE void next(Range& r, Window& w) {
  r.index++;
  w.left += w.windowW;
  if (w.left < w.frameW) return;
  w.left = 0;
  w.top += w.windowH;
  if (w.top < w.frameH) return;
  w.top = 0;
  r.picture++;
}

DEVICE void write_places(const Window& w, int* places, int rows, int n) {
  int i = threadIdx.x;
  if (i < rows) places[i] = i < n ? w.source(i) * 16 + w.side(i) : -32;
}

// Whether positions of this window lie on different sides.
DEVICE bool seamed(const Window& w) {
  return (w.shiftH && w.top == w.frameH - w.windowH) || (w.shiftW && w.left == w.frameW - w.windowW);
}

// ---- sixteen bytes of a row of a head

struct Rows {
  const T* qkv;  // of the picture, at this head
  const T* bias;
  int channels, d;

  // Part 0 q, 1 k, 2 v of a position; null beyond N.
  DEVICE_MEMBER const T* at(int place, int part) const {
    int source = source_at(place);
    if (source < -1) return nullptr;
    return source < 0 ? bias + part * channels : qkv + (source * 3 + part) * channels;
  }
};

DEVICE int4 get_chunk(const T* row, int c, int d) {
  if (!row || 8 * c >= d) return int4{0, 0, 0, 0};
  return *reinterpret_cast<const int4*>(row + 8 * c);
}

DEVICE void put_chunk(T* row, int c, int d, const u32 (&w)[4]) {
  if (!row || 8 * c >= d) return;
  *reinterpret_cast<int4*>(row + 8 * c) =
      int4{static_cast<int>(w[0]), static_cast<int>(w[1]), static_cast<int>(w[2]), static_cast<int>(w[3])};
}

// Chunk c (8 elements) of a row of a plane.
DEVICE T* cell(T* plane, int row, int c) { return plane + 32 * row + ((c ^ (row >> 1 & 3)) << 3); }
DEVICE int4* words_at(T* plane, int row, int c) { return reinterpret_cast<int4*>(cell(plane, row, c)); }

// Brings keys and values into two parts of shared memory.
template <int TILES, int PLANES>
DEVICE void load_keys(T* keys, T* values, const Rows& rows, const int* places) {
  using S = Sizes<TILES, PLANES>;
  int c = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int row = threadIdx.x / 4 + half * (S::ROWS / 2);
    const T* key = rows.at(places[row], 1);
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
      bool there = key && 32 * p + 8 * c < rows.d;
      const T* from = there ? key + 32 * p + 8 * c : rows.qkv;
      copy_async(cell(keys + p * S::PLANE, row, c), from, there);
      copy_async(cell(values + p * S::PLANE, row, c), there ? from + rows.channels : from, there);
    }
  }
}

// ---- products

// Sixteen rows as the left side of a product over their columns: of rows g and g + 8 the chunks t.
template <int PLANES>
struct Left {
  int4 top[PLANES], low[PLANES];
};

// c = left · (rows 8·tile to 8·tile + 7)ᵀ.
template <int PLANES>
DEVICE void outer(float (&c)[4], const Left<PLANES>& a, T* right, int plane, int tile) {
  int lane = threadIdx.x % WARP;
  c[0] = c[1] = c[2] = c[3] = 0;
#pragma unroll
  for (int p = 0; p < PLANES; p++) {
    int4 b = *words_at(right + p * plane, 8 * tile + lane / 4, lane % 4);
    mma(c, a.top[p].x, a.low[p].x, a.top[p].y, a.low[p].y, b.x, b.y);
    mma(c, a.top[p].z, a.low[p].z, a.top[p].w, a.low[p].w, b.z, b.w);
  }
}

// Where this lane points at sixteen rows of a part, for transposed reads of columns 0 to 15 and 16 to
// 31 of a plane.
struct Lanes {
  u32 first, second;
};
DEVICE Lanes lanes_of(T* part) {
  int lane = threadIdx.x % WARP;
  return Lanes{shared_address(cell(part, lane % 16, lane / 16)), shared_address(cell(part, lane % 16, 2 + lane / 16))};
}

// c += a · (16 rows that lie OFFSET bytes behind `right`), PLANE bytes a plane.
template <int PLANES, int PLANE, int OFFSET>
DEVICE void inner(float (&c)[4 * PLANES][4], u32 a0, u32 a1, u32 a2, u32 a3, Lanes right) {
  u32 b[4];
  load_transposed<OFFSET>(b, right.first);
  mma(c[0], a0, a1, a2, a3, b[0], b[1]);
  mma(c[1], a0, a1, a2, a3, b[2], b[3]);
  load_transposed<OFFSET>(b, right.second);
  mma(c[2], a0, a1, a2, a3, b[0], b[1]);
  mma(c[3], a0, a1, a2, a3, b[2], b[3]);
  if constexpr (PLANES == 2) {
    load_transposed<OFFSET + PLANE>(b, right.first);
    mma(c[4], a0, a1, a2, a3, b[0], b[1]);
    mma(c[5], a0, a1, a2, a3, b[2], b[3]);
    load_transposed<OFFSET + PLANE>(b, right.second);
    mma(c[6], a0, a1, a2, a3, b[0], b[1]);
    mma(c[7], a0, a1, a2, a3, b[2], b[3]);
  }
}

template <int PLANES>
DEVICE void clear(float (&c)[4 * PLANES][4]) {
#pragma unroll
  for (int i = 0; i < 4 * PLANES; i++) c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0;
}

// c += a · all keys from step K of 16 on; of a, each lane holds its pairs.
template <int TILES, int PLANES, int K = 0>
DEVICE void over_keys(float (&c)[4 * PLANES][4], const u32 (&a)[TILES][2], Lanes right) {
  using S = Sizes<TILES, PLANES>;
  if constexpr (2 * K + 1 < TILES) {
    inner<PLANES, 2 * S::PLANE, 1024 * K>(c, a[2 * K][0], a[2 * K][1], a[2 * K + 1][0], a[2 * K + 1][1], right);
    over_keys<TILES, PLANES, K + 1>(c, a, right);
  } else if constexpr (2 * K < TILES) {
    inner<PLANES, 2 * S::PLANE, 1024 * K>(c, a[2 * K][0], a[2 * K][1], 0, 0, right);
  }
}

// Writes rows g (times a) and g + 8 (times b) of an accumulator; a null row is left out.
template <int PLANES>
DEVICE void store_rows(T* top, T* low, const float (&c)[4 * PLANES][4], float a, float b, int d) {
  int t = threadIdx.x % 4;
#pragma unroll
  for (int p = 0; p < PLANES; p++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      u32 w[4];
      float by = h ? b : a;
#pragma unroll
      for (int j = 0; j < 4; j++) w[j] = pack_pair(by * c[4 * p + j][2 * h], by * c[4 * p + j][2 * h + 1]);
      quad_transpose(w, t);
      put_chunk(h ? low : top, 4 * p + t, d, w);
    }
  }
}

// Scores, in powers of two, of rows g and g + 8 with the keys of a tile; `top` and `low` are the
// table at the rows' offsets.
DEVICE void finish_scores(float (&s)[4], int tile, float scale, const float* top, const float* low, const Places& p,
                          const int* places, bool seam, int topSide, int lowSide) {
  int j = 8 * tile + threadIdx.x % 4 * 2;
  Offsets o = *reinterpret_cast<const Offsets*>(p.offsets + j);
  s[0] = s[0] * scale + top[o.first];
  s[1] = s[1] * scale + top[o.second];
  s[2] = s[2] * scale + low[o.first];
  s[3] = s[3] * scale + low[o.second];
  if (!seam) return;
  int first = side_at(places[j]), second = side_at(places[j + 1]);
  if (first != topSide) s[0] += MASKED * LOG2E;
  if (second != topSide) s[1] += MASKED * LOG2E;
  if (first != lowSide) s[2] += MASKED * LOG2E;
  if (second != lowSide) s[3] += MASKED * LOG2E;
}

// ---- forward

template <int TILES, int PLANES>
DEVICE void attend(MAP_ARGUMENTS, int batch, const T* qkv, const T* bias, const T* table, T* y, float* lse) {
  using S = Sizes<TILES, PLANES>;
  T* keys = reinterpret_cast<T*>(block_memory());
  T* values = keys + S::PART;
  int n = windowH * windowW, channels = heads * d, head = blockIdx.x;
  int lane = threadIdx.x % WARP, i0 = threadIdx.x / WARP * 16 + lane / 4, i1 = i0 + 8, t = lane % 4;
  Window w = window_of_block(MAP_VALUES);
  Places own = prepare<S::ROWS>(reinterpret_cast<char*>(values + S::PART), w, table, head, heads, n);
  const float* top = own.table + (i0 < n ? offset_of(w, i0) : 0);
  const float* low = own.table + (i1 < n ? offset_of(w, i1) : 0);
  float scale = LOG2E * rsqrtf(static_cast<float>(d));
  Rows rows = {qkv, bias ? bias + head * d : bias, channels, d};
  int turn = 0;
  for (Range at = range_of_block(w, batch); at.index < at.last; next(at, w), turn ^= 1) {
    int* places = own.places + turn * S::ROWS;
    write_places(w, places, S::ROWS, n);
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
    float m0 = NEGATIVE_INFINITY, m1 = NEGATIVE_INFINITY;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      outer<PLANES>(s[tile], query, keys, S::PLANE, tile);
      finish_scores(s[tile], tile, scale, top, low, own, places, seam, side_at(topPlace), side_at(lowPlace));
      m0 = fmaxf(m0, fmaxf(s[tile][0], s[tile][1]));
      m1 = fmaxf(m1, fmaxf(s[tile][2], s[tile][3]));
    }
    m0 = quad_max(m0);
    m1 = quad_max(m1);
    float sum0 = 0, sum1 = 0;
    u32 p[TILES][2];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
      float a = exp2_approximate(s[tile][0] - m0), b = exp2_approximate(s[tile][1] - m0);
      float c = exp2_approximate(s[tile][2] - m1), e = exp2_approximate(s[tile][3] - m1);
      sum0 += a + b;
      sum1 += c + e;
      p[tile][0] = pack_pair(a, b);
      p[tile][1] = pack_pair(c, e);
    }
    sum0 = quad_sum(sum0);
    sum1 = quad_sum(sum1);
    float out[4 * PLANES][4];
    clear<PLANES>(out);
    over_keys<TILES, PLANES>(out, p, lanes_of(values));
    int s0 = source_at(topPlace), s1 = source_at(lowPlace);
    T* to = y + first * channels + head * d;
    store_rows<PLANES>(s0 < 0 ? nullptr : to + static_cast<i64>(s0) * channels,
                       s1 < 0 ? nullptr : to + static_cast<i64>(s1) * channels, out, 1 / sum0, 1 / sum1, d);
    if (lse && t == 0) {
      float* into = lse + (static_cast<i64>(at.index) * heads + head) * n;
      if (i0 < n) into[i0] = s0 < 0 ? 0 : LN2 * (m0 + log2f(sum0));
      if (i1 < n) into[i1] = s1 < 0 ? 0 : LN2 * (m1 + log2f(sum1));
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
KERNEL_BOUNDS(288, 1) void window_attention_18x1(FORWARD_ARGUMENTS) { attend<18, 1>(FORWARD_VALUES); }
KERNEL_BOUNDS(288, 1) void window_attention_18x2(FORWARD_ARGUMENTS) { attend<18, 2>(FORWARD_VALUES); }

// ---- backward

// Chunk c of a row of an N×N matrix of halves; rows that follow each other lie in other banks.
template <int ROWS>
DEVICE T* score_cell(T* scores, int row, int c) {
  int mix = ROWS % 64 == 0 ? row & 7 : row >> 2 & 1;
  return scores + ROWS * row + ((c ^ mix) << 3);
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

// Adds rows of padding, of the two that a lane has, to a sum a column.
template <int PLANES>
DEVICE void add_padded(float* sums, const float (&c)[4 * PLANES][4], bool top, bool low, float scale) {
  int lane = threadIdx.x % WARP;
#pragma unroll
  for (int i = 0; i < 4 * PLANES; i++) {
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float v = (top ? c[i][e] : 0) + (low ? c[i][2 + e] : 0);
      for (int m = 4; m < WARP; m *= 2) v += __shfl_xor_sync(ALL_LANES, v, m);
      if (lane < 4) sums[8 * i + 2 * lane + e] += scale * v;
    }
  }
}

// Where a block's sum of dS has element (i, j): each lane's pairs lie beside those of its warp.
template <int THREADS>
DEVICE int slot(int i, int j) {
  return 2 * ((j / 8 * 2 + i / 8 % 2) * THREADS + i / 16 * WARP + i % 8 * 4 + j % 8 / 2) + j % 2;
}

DEVICE float pair_dot(u32 a, u32 b) { return lower(a) * lower(b) + upper(a) * upper(b); }
DEVICE float chunk_dot(int4 a, int4 b) {
  return pair_dot(a.x, b.x) + pair_dot(a.y, b.y) + pair_dot(a.z, b.z) + pair_dot(a.w, b.w);
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
  T* scores = rises + S::PART;   // p, and behind it or in its turn ds
  T* slopes = S::LARGE ? scores : scores + S::ROWS * S::ROWS;
  Pair* slots = reinterpret_cast<Pair*>(slopes + S::ROWS * S::ROWS);
  int n = windowH * windowW, channels = heads * d, head = blockIdx.x;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = lane % 4;
  int i0 = warp * 16 + lane / 4, i1 = i0 + 8;  // this lane's queries, and keys
  Window w = window_of_block(MAP_VALUES);
  int relatives = (2 * windowH - 1) * (2 * windowW - 1);
  bool padding = w.frameH != height || w.frameW != width;
  char* behind = reinterpret_cast<char*>(slots + (S::LARGE ? 2 * TILES * S::THREADS : 0));
  Places own = prepare<S::ROWS>(behind, w, table, head, heads, n);
  const float* top = own.table + (i0 < n ? offset_of(w, i0) : 0);
  const float* low = own.table + (i1 < n ? offset_of(w, i1) : 0);
  // dk and dv of the padded positions, a row a warp.
  float* padded = const_cast<float*>(own.table) + relatives + relatives / 2 + 1;
  float* warp_padded = padded + warp * 64 * PLANES;
  if (padding)
    for (int c = lane; c < 64 * PLANES; c += WARP) warp_padded[c] = 0;
  float root = rsqrtf(static_cast<float>(d));
  Rows rows = {qkv, bias ? bias + head * d : bias, channels, d};
  Pair sum[S::LARGE ? 1 : TILES][2];
#pragma unroll
  for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      if (S::LARGE) {
        slots[(2 * tile + h) * S::THREADS + threadIdx.x] = Pair{0, 0};
      } else {
        sum[S::LARGE ? 0 : tile][h] = Pair{0, 0};
      }
    }
  }
  int turn = 0;
  for (Range at = range_of_block(w, batch); at.index < at.last; next(at, w), turn ^= 1) {
    int* places = own.places + turn * S::ROWS;
    write_places(w, places, S::ROWS, n);
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
    u32 held[S::LARGE ? TILES : 1][2];  // ds, where it has to wait until p has been read
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
      if (S::LARGE) {
        add(slots[2 * tile * S::THREADS + threadIdx.x], a);
        add(slots[(2 * tile + 1) * S::THREADS + threadIdx.x], b);
      }
      u32 ds[2] = {pack_pair(a.first, a.second), pack_pair(b.first, b.second)};
      if (S::LARGE) {
        held[S::LARGE ? tile : 0][0] = ds[0];
        held[S::LARGE ? tile : 0][1] = ds[1];
      } else {
        put_scores<S::ROWS>(slopes, ds, i0, tile);
      }
    }
    if constexpr (!S::LARGE) {
      // Here and not in the loop above, where registers are short.
#pragma unroll
      for (int tile = 0; tile < TILES; tile++) {
        u32 a = *reinterpret_cast<const u32*>(score_cell<S::ROWS>(slopes, i0, tile) + 2 * t);
        u32 b = *reinterpret_cast<const u32*>(score_cell<S::ROWS>(slopes, i1, tile) + 2 * t);
        add(sum[tile][0], Pair{lower(a), upper(a)});
        add(sum[tile][1], Pair{lower(b), upper(b)});
      }
    }
    T* to = dqkv + first * 3 * channels + head * d;
    T* to0 = s0 < 0 ? nullptr : to + s0 * 3 * channels;
    T* to1 = s1 < 0 ? nullptr : to + s1 * 3 * channels;
    float out[4 * PLANES][4];
    clear<PLANES>(out);
    if constexpr (S::LARGE) {
      over_keys<TILES, PLANES>(out, held, lanes_of(keys));
    } else {
      __syncwarp();  // these rows are this warp's own
      over_stored_keys<TILES, PLANES>(out, slopes, lanes_of(keys));
    }
    store_rows<PLANES>(to0, to1, out, root, root, d);
    __syncthreads();  // p, and where it has a place of its own ds, is there
    clear<PLANES>(out);
    over_queries<TILES, PLANES>(out, columns_of<S::ROWS>(scores), lanes_of(rises));
    store_rows<PLANES>(to0 ? to0 + 2 * channels : nullptr, to1 ? to1 + 2 * channels : nullptr, out, 1, 1, d);
    if (padding) add_padded<PLANES>(warp_padded + 32 * PLANES, out, s0 == -1, s1 == -1, 1);
    if (S::LARGE) {
      __syncthreads();  // all have read p
#pragma unroll
      for (int tile = 0; tile < TILES; tile++) put_scores<S::ROWS>(slopes, held[S::LARGE ? tile : 0], i0, tile);
      __syncthreads();
    }
    clear<PLANES>(out);
    over_queries<TILES, PLANES>(out, columns_of<S::ROWS>(slopes), lanes_of(queries));
    store_rows<PLANES>(to0 ? to0 + channels : nullptr, to1 ? to1 + channels : nullptr, out, root, root, d);
    if (padding) add_padded<PLANES>(warp_padded, out, s0 == -1, s1 == -1, root);
  }
  __syncthreads();
  if (!S::LARGE) {
    slots = reinterpret_cast<Pair*>(block_memory());  // in place of the last window
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++) slots[i * S::THREADS + threadIdx.x] = sum[S::LARGE ? 0 : i / 2][i % 2];
    __syncthreads();
  }
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
  for (int c = threadIdx.x; c < 3 * d; c += S::THREADS) {
    float v = 0;  // a padded query's gradient is 0
    if (padding && c >= d)
      for (int k = 0; k < S::WARPS_; k++) v += padded[k * 64 * PLANES + (c / d - 1) * 32 * PLANES + c % d];
    part[c / d * channels + c % d] = v;
  }
}

#define BACKWARD_ARGUMENTS                                                                                       \
  MAP_ARGUMENTS, int batch, const T *qkv, const T *bias, const T *table, const T *y, const float *lse, const T *dy, \
      T *dqkv, float *parts
#define BACKWARD_VALUES MAP_VALUES, batch, qkv, bias, table, y, lse, dy, dqkv, parts

KERNEL_BOUNDS(128, 4) void window_attention_backward_7x1(BACKWARD_ARGUMENTS) { attend_backward<7, 1>(BACKWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void window_attention_backward_7x2(BACKWARD_ARGUMENTS) { attend_backward<7, 2>(BACKWARD_VALUES); }
KERNEL_BOUNDS(128, 4) void window_attention_backward_8x1(BACKWARD_ARGUMENTS) { attend_backward<8, 1>(BACKWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void window_attention_backward_8x2(BACKWARD_ARGUMENTS) { attend_backward<8, 2>(BACKWARD_VALUES); }
KERNEL_BOUNDS(288, 1) void window_attention_backward_18x1(BACKWARD_ARGUMENTS) { attend_backward<18, 1>(BACKWARD_VALUES); }
KERNEL_BOUNDS(288, 1) void window_attention_backward_18x2(BACKWARD_ARGUMENTS) { attend_backward<18, 2>(BACKWARD_VALUES); }

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
