// What the forward and the backward of windowed attention on the tensor cores share beside tiles.cuh: a
// window's places, its rows in shared memory, and scores. window_attention_mma.cu says how they are
// laid out and why.
#pragma once
#include "tiles.cuh"
#include "window.cuh"

#if MMA

struct __align__(8) Offsets {
  int first, second;
};
struct __align__(8) Pair {
  float first, second;
};

// ---- what a block knows of its windows

struct Places {
  const float* table;  // of this head, times log₂e or √d
  int* offsets;        // table index of (n, m) = offset of n + what offsets[m] holds
  int* places;         // 16 · map index + side; map index −1 for padding, −2 for what is all zeros
};

DEVICE int offset_of(const Window& w, int n) { return n / w.windowW * (2 * w.windowW - 1) + n % w.windowW; }

// Lays the places out in `memory`, as Java's `places` counts it, and fills the table, each element times `by`.
template <int ROWS>
DEVICE Places prepare_table(char* memory, const Window& w, const T* table, int head, int heads, float by) {
  int relatives = (2 * w.windowH - 1) * (2 * w.windowW - 1), centre = relatives / 2;
  Places p;
  p.offsets = reinterpret_cast<int*>(memory);
  p.places = p.offsets + ROWS;  // two rows of them, for windows in turn
  float* own = reinterpret_cast<float*>(p.places + 2 * ROWS);
  p.table = own;
  for (int i = threadIdx.x; i < relatives; i += blockDim.x) own[i] = by * f(table[i * heads + head]);
  for (int i = threadIdx.x; i <= centre; i += blockDim.x) own[relatives + i] = NEGATIVE_INFINITY;
  return p;
}

// What a key adds to a query's offset in the table; −∞ is there for those beyond N.
DEVICE int key_offset(const Window& w, int key, int n) {
  int relatives = (2 * w.windowH - 1) * (2 * w.windowW - 1);
  return key < n ? relatives / 2 - offset_of(w, key) : relatives;
}

// The same, and the keys' offsets.
template <int ROWS>
DEVICE Places prepare(char* memory, const Window& w, const T* table, int head, int heads, int n, float by) {
  Places p = prepare_table<ROWS>(memory, w, table, head, heads, by);
  for (int i = threadIdx.x; i < ROWS; i += blockDim.x) p.offsets[i] = key_offset(w, i, n);
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

// Padding without a bias is all zeros: it has the map index of what lies beyond N.
DEVICE void write_places(const Window& w, int* places, int rows, int n, bool bias) {
  int i = threadIdx.x;
  if (i >= rows) return;
  int source = i < n ? w.source(i) : -2;
  if (source < 0 && !bias) source = -2;
  places[i] = source * 16 + (i < n ? w.side(i) : 0);
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

// ---- what both backwards share

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

// Writes this head's columns of a block's part of the bias's gradient, from `padded`: dk and dv of padded
// positions, a row of 64·PLANES for each of COUNT warps.
template <int PLANES, int COUNT>
DEVICE void put_bias_part(float* part, const float* padded, bool padding, int channels, int d) {
  for (int c = threadIdx.x; c < 3 * d; c += COUNT * WARP) {
    float v = 0;  // a padded query's gradient is 0
    if (padding && c >= d)
      for (int k = 0; k < COUNT; k++) v += padded[k * 64 * PLANES + (c / d - 1) * 32 * PLANES + c % d];
    part[c / d * channels + c % d] = v;
  }
}

#endif
