// What the forward and the backward of windowed attention on the tensor cores share: tiles of a
// window in shared memory, its places, scores, and products. window_attention_mma.cu says how they
// are laid out and why.
#pragma once
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

#endif
