// Windowed attention on the tensor cores, for fp16 and bf16; the mathematics, shapes and sides are
// those of window_attention.cu, which serves fp32, and bf16 on sm_75.
//
// A block takes one head and every gridDim.y-th (picture, window): grid (heads, groups), a warp for
// each 16 positions. `TILES` is the number of 8-key tiles, N = window area ≤ 8·TILES: 7 for windows of
// 7×7, 8 for 8×8, 18 for 12×12; `PLANES` that of 32-column planes, d ≤ 32·PLANES. What is beyond N or
// d is zero, and beyond N its score −∞.
//
//   forward   a warp's 16 queries stay in registers, and so do their scores: S = Q Kᵀ is accumulated
//             where P V wants its left side.  p = 2^(s − max), y = P V / Σ p
//   backward  1. by queries: P from the log-sum-exp, dP = dY Vᵀ, D = Σ_j p dp, dS = P (dP − D),
//                dQ = dS K, P and dS to shared memory as halves; dS added up in fp32 over the block's
//                windows, each lane its own elements
//             2. by keys: dV = Pᵀ dY, dK = dSᵀ Q
//             At its end a block folds its sum of dS into the table's rows, in order, and a second
//             kernel adds the blocks' parts in order: a part a block, not one a window.
//
// Global memory is read and written 16 bytes a lane: four lanes take 32 columns of a position. The
// depth of Q Kᵀ is permuted alike on both sides, so that the 16 bytes which a lane reads of a row
// are its fragment: k = 2t, 2t+1, 2t+8, 2t+9 of step s stand for columns 8t + 4s to 8t + 4s + 3.
// Rows of a plane are 64 bytes in shared memory, their four chunks exchanged by bits 1 and 2 of
// the row, so that neither those reads nor transposed ones meet a bank twice. The table waits as fp32 times
// log₂e, behind it as many −∞ as a query can reach, where the positions beyond N point.
//
// Bytes: forward 4·B·H·W·C·s, backward 7·B·H·W·C·s and a part a block. Operations on the tensor
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

// Goes to window `index`, and writes the places of its positions.
DEVICE void enter(Window& w, int index, int* places, int rows, int n) {
  int columns = w.frameW / w.windowW;
  w.top = index / columns * w.windowH;
  w.left = index % columns * w.windowW;
  int i = threadIdx.x;
  if (i < rows) places[i] = i < n ? w.source(i) * 16 + w.side(i) : -32;
}

// Whether positions of this window lie on different sides.
DEVICE bool seamed(const Window& w) {
  return (w.shiftH && w.top == w.frameH - w.windowH) || (w.shiftW && w.left == w.frameW - w.windowW);
}

// ---- sixteen bytes of a row of a head; `whole` where d and all addresses allow it

struct Rows {
  const T* qkv;  // of the picture, at this head
  const T* bias;
  int channels, d;
  bool whole;

  // Part 0 q, 1 k, 2 v of a position; null beyond N.
  DEVICE_MEMBER const T* at(int place, int part) const {
    int source = source_at(place);
    if (source < -1) return nullptr;
    return source < 0 ? bias + part * channels : qkv + static_cast<i64>(source) * 3 * channels + part * channels;
  }
};

DEVICE int4 get_chunk(const T* row, int c, int d, bool whole) {
  int4 words = {0, 0, 0, 0};
  if (!row || 8 * c >= d) return words;
  if (whole) return *reinterpret_cast<const int4*>(row + 8 * c);
  T raw[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (8 * c + i < d) {
      raw[i] = row[8 * c + i];
    } else {
      put(raw + i, 0);
    }
  }
  memcpy(&words, raw, sizeof(words));
  return words;
}

DEVICE void put_chunk(T* row, int c, int d, bool whole, const u32 (&w)[4]) {
  if (!row || 8 * c >= d) return;
  if (whole) {
    *reinterpret_cast<int4*>(row + 8 * c) =
        int4{static_cast<int>(w[0]), static_cast<int>(w[1]), static_cast<int>(w[2]), static_cast<int>(w[3])};
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; i++)
    if (8 * c + i < d) row[8 * c + i].bits = static_cast<unsigned short>(w[i / 2] >> 16 * (i % 2));
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
    int place = places[row];
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
      *words_at(keys + p * S::PLANE, row, c) = get_chunk(rows.at(place, 1), 4 * p + c, rows.d, rows.whole);
      *words_at(values + p * S::PLANE, row, c) = get_chunk(rows.at(place, 2), 4 * p + c, rows.d, rows.whole);
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

// c += a · (rows first to first + 15).
template <int PLANES>
DEVICE void inner(float (&c)[4 * PLANES][4], u32 a0, u32 a1, u32 a2, u32 a3, T* right, int plane, int first) {
  int lane = threadIdx.x % WARP;
#pragma unroll
  for (int h = 0; h < 2 * PLANES; h++) {
    u32 b[4];
    load_transposed(b, cell(right + h / 2 * plane, first + lane % 16, h % 2 * 2 + lane / 16));
    mma(c[2 * h], a0, a1, a2, a3, b[0], b[1]);
    mma(c[2 * h + 1], a0, a1, a2, a3, b[2], b[3]);
  }
}

// The same over all keys, with a left side of which each lane holds its pairs.
template <int TILES, int PLANES>
DEVICE void over_keys(float (&c)[4 * PLANES][4], const u32 (&a)[TILES][2], T* right) {
  using S = Sizes<TILES, PLANES>;
#pragma unroll
  for (int i = 0; i < 4 * PLANES; i++) c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0;
#pragma unroll
  for (int k = 0; k < S::WARPS_; k++) {
    const bool both = 2 * k + 1 < TILES;
    inner<PLANES>(c, a[2 * k][0], a[2 * k][1], both ? a[both ? 2 * k + 1 : 0][0] : 0,
                  both ? a[both ? 2 * k + 1 : 0][1] : 0, right, S::PLANE, 16 * k);
  }
}

// Writes rows g (times a) and g + 8 (times b) of an accumulator; a null row is left out.
template <int PLANES>
DEVICE void store_rows(T* top, T* low, const float (&c)[4 * PLANES][4], float a, float b, int d, bool whole) {
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
      put_chunk(h ? low : top, 4 * p + t, d, whole, w);
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
  SHARED(T, memory);
  T* keys = memory;
  T* values = keys + S::PART;
  int n = windowH * windowW, channels = heads * d, head = blockIdx.x;
  int lane = threadIdx.x % WARP, i0 = threadIdx.x / WARP * 16 + lane / 4, i1 = i0 + 8, t = lane % 4;
  Window w = window_of_block(MAP_VALUES);
  int windows = w.frameH / windowH * (w.frameW / windowW);
  Places own = prepare<S::ROWS>(reinterpret_cast<char*>(values + S::PART), w, table, head, heads, n);
  const float* top = own.table + (i0 < n ? offset_of(w, i0) : 0);
  const float* low = own.table + (i1 < n ? offset_of(w, i1) : 0);
  float scale = LOG2E * rsqrtf(static_cast<float>(d));
  Rows rows = {qkv, bias ? bias + head * d : bias, channels, d, d % 8 == 0 && aligned(qkv) && aligned(bias) && aligned(y)};
  int turn = 0;
  for (int index = blockIdx.y; index < batch * windows; index += gridDim.y, turn ^= 1) {
    int* places = own.places + turn * S::ROWS;
    int picture = index / windows;
    enter(w, index % windows, places, S::ROWS, n);
    i64 first = static_cast<i64>(picture) * height * width;
    rows.qkv = qkv + first * 3 * channels + head * d;
    __syncthreads();  // places are there, and all have left the last window
    load_keys<TILES, PLANES>(keys, values, rows, places);
    int topPlace = places[i0], lowPlace = places[i1];
    Left<PLANES> query;
#pragma unroll
    for (int p = 0; p < PLANES; p++) {
      query.top[p] = get_chunk(rows.at(topPlace, 0), 4 * p + t, d, rows.whole);
      query.low[p] = get_chunk(rows.at(lowPlace, 0), 4 * p + t, d, rows.whole);
    }
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
    over_keys<TILES, PLANES>(out, p, values);
    int s0 = source_at(topPlace), s1 = source_at(lowPlace);
    T* to = y + first * channels + head * d;
    store_rows<PLANES>(s0 < 0 ? nullptr : to + static_cast<i64>(s0) * channels,
                       s1 < 0 ? nullptr : to + static_cast<i64>(s1) * channels, out, 1 / sum0, 1 / sum1, d, rows.whole);
    if (lse && t == 0) {
      float* into = lse + (static_cast<i64>(index) * heads + head) * n;
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

#endif
