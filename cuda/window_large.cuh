// What the forward and the backward of windowed attention on the tensor cores share where windows have 65
// to 144 positions. window_attention_large.cu says how they are laid out and why.
#pragma once
#include "window_tiles.cuh"

#if MMA

// A warp takes TILES tiles of 16 rows.
template <int PLANES>
struct Large {
  static const int ROWS = 144;
  static const int TILES = PLANES == 1 ? 2 : 1;
  static const int WARPS_ = (ROWS / 16 + TILES - 1) / TILES;
  static const int THREADS = WARP * WARPS_;
  static const int PLANE = 32 * ROWS;  // elements
  static const int PART = PLANES * PLANE;
};

// A window and its picture, in shared memory in turn, where registers are short.
struct Step {
  Window window;
  int picture;
};

// What lies behind the table and its −∞.
DEVICE float* behind(const Places& p, const Window& w) {
  int relatives = (2 * w.windowH - 1) * (2 * w.windowW - 1);
  return const_cast<float*>(p.table) + relatives + relatives / 2 + 1;
}

DEVICE void begin_steps(Step* steps, const Window& w, const Range& at) {
  if (threadIdx.x == 0) steps[at.index & 1] = Step{w, at.picture};
  __syncthreads();
}

// Prepares the step after that of a window; by one thread, when all have left the one before.
DEVICE void next_step(Step* steps, int index) {
  const Step& now = steps[index & 1];
  Step& then = steps[index & 1 ^ 1];
  then = now;
  Range r = {0, 0, now.picture};
  next(r, then.window);
  then.picture = r.picture;
}

template <int COUNT>
struct Tiles {
  static const int N = COUNT;
};

// body(Tiles<as many of the `used` tiles as are this warp's, at most LIMIT>), where there are any.
template <int LIMIT, class Body>
DEVICE void for_own_tiles(int used, Body body) {
  int own = used - static_cast<int>(threadIdx.x) / WARP * LIMIT;
  if (own >= LIMIT) {
    body(Tiles<LIMIT>());
  } else if constexpr (LIMIT == 2) {
    if (own == 1) body(Tiles<1>());
  }
}

// body(row) for the rows of which this lane brings chunk threadIdx.x % 4; whole warps have one or none.
template <int PLANES, class Body>
DEVICE void for_brought_rows(Body body) {
  using S = Large<PLANES>;
#pragma unroll
  for (int k = 0; k * S::THREADS < 4 * S::ROWS; k++) {
    int row = k * (S::THREADS / 4) + threadIdx.x / 4;
    if (row < S::ROWS) body(row);
  }
}

// Where the q of a position of a head begins; k and v lie `channels` and 2·channels further. Selected, not
// branched for: every lane has its own.
struct Origin {
  const T* q;
  bool there, inside;  // it is a position of the window; it lies in the map
};
DEVICE Origin origin(const Rows& rows, int place) {
  int source = source_at(place);
  Origin o;
  o.inside = source >= 0;
  o.there = source >= -1;
  o.q = o.inside || !o.there ? rows.qkv + static_cast<i64>(max(source, 0)) * (3 * rows.channels) : rows.bias;
  return o;
}

// Brings chunk threadIdx.x % 4 of each plane of a row to `to`, PLANE elements a plane, zeros where it is not there;
// the row's address is a global one in either case.
template <int PLANES, int PLANE>
DEVICE void bring_chunks(T* to, const T* from, bool there, int d) {
  int c = threadIdx.x % 4;
#pragma unroll
  for (int p = 0; p < PLANES; p++) {
    bool own = 32 * p + 8 * c < d;
    copy_async(to + p * PLANE, from + (own ? 32 * p + 8 * c : 0), there && own);
  }
}
template <int PLANES>
DEVICE void bring(T* part, int row, const T* from, bool there, int d) {
  bring_chunks<PLANES, Large<PLANES>::PLANE>(cell(part, row, threadIdx.x % 4), from, there, d);
}

// Sixteen rows as a left side, eight as a right side of a product over their columns, 16 a step. Whole fragments
// are loaded: registers that a product takes must follow each other.
template <int PLANES>
struct Side {
  u32 step[2 * PLANES][4];
};
template <int PLANES>
struct Right {
  u32 word[PLANES][4];
};

// `rows` and `rest` are where this lane points for columns 0 to 15 and 16 to 31 of plane 0; BYTES a plane.
template <int PLANES, int BYTES>
DEVICE void get_side(Side<PLANES>& a, u32 rows, u32 rest) {
  load_straight<0>(a.step[0], rows);
  load_straight<0>(a.step[1], rest);
  if constexpr (PLANES == 2) {
    load_straight<BYTES>(a.step[2], rows);
    load_straight<BYTES>(a.step[3], rest);
  }
}

// Where this lane points at the first eight rows of a part; the next eight lie 512 bytes further.
DEVICE u32 eight_of(T* part) {
  int lane = threadIdx.x % WARP;
  return shared_address(cell(part, lane % 8, lane / 8));
}
template <int PLANES, int OFFSET>
DEVICE void get_right(Right<PLANES>& b, u32 rows) {
  load_straight<OFFSET>(b.word[0], rows);
  if constexpr (PLANES == 2) load_straight<OFFSET + 2 * Large<PLANES>::PLANE>(b.word[1], rows);
}

// c += left · rightᵀ.
template <int PLANES>
DEVICE void add_outer(float (&c)[4], const Side<PLANES>& a, const Right<PLANES>& b) {
#pragma unroll
  for (int p = 0; p < PLANES; p++) {
    const u32(&one)[4] = a.step[2 * p];
    const u32(&two)[4] = a.step[2 * p + 1];
    mma(c, one[0], one[1], one[2], one[3], b.word[p][0], b.word[p][1]);
    mma(c, two[0], two[1], two[2], two[3], b.word[p][2], b.word[p][3]);
  }
}

// c[m] += a[m] · (the 16 rows that lie OFFSET bytes behind `right`), in columns 8 I to 8 I + 15.
template <int I, int OFFSET, int OWN, int COLUMNS>
DEVICE void multiply_some(float (&c)[OWN][COLUMNS][4], const u32 (&a)[OWN][4], u32 right) {
  u32 b[4];
  load_transposed<OFFSET>(b, right);
#pragma unroll
  for (int m = 0; m < OWN; m++) {
    mma(c[m][I], a[m][0], a[m][1], a[m][2], a[m][3], b[0], b[1]);
    mma(c[m][I + 1], a[m][0], a[m][1], a[m][2], a[m][3], b[2], b[3]);
  }
}

// The same in all columns.
template <int OWN, int PLANES, int OFFSET = 0>
DEVICE void multiply(float (&c)[OWN][4 * PLANES][4], const u32 (&a)[OWN][4], Lanes right) {
  multiply_some<0, OFFSET>(c, a, right.first);
  multiply_some<2, OFFSET>(c, a, right.second);
  if constexpr (PLANES == 2) {
    const int next_plane = OFFSET + 2 * Large<PLANES>::PLANE;
    multiply_some<4, next_plane>(c, a, right.first);
    multiply_some<6, next_plane>(c, a, right.second);
  }
}

// Lanes that point 16 k rows further down.
DEVICE Lanes sixteen_on(Lanes at, int k) { return Lanes{at.first + 1024 * k, at.second + 1024 * k}; }

// ---- scores: what the accumulators of a tile start from

// The table's elements `top` and `low` bytes on, for rows g and g + 8, and what two columns add to that.
DEVICE void start_scores(float (&s)[4], const float* table, int top, int low, Offsets o) {
  const char* from = reinterpret_cast<const char*>(table);
  s[0] = *reinterpret_cast<const float*>(from + (top + o.first));
  s[1] = *reinterpret_cast<const float*>(from + (top + o.second));
  s[2] = *reinterpret_cast<const float*>(from + (low + o.first));
  s[3] = *reinterpret_cast<const float*>(from + (low + o.second));
}

// Adds `mask` where rows g and g + 8 and two columns, whose places begin there, lie on different sides.
DEVICE void mask_scores(float (&s)[4], const int* columns, const int* rows, float mask) {
  int first = side_at(columns[0]), second = side_at(columns[1]), top = side_at(rows[0]), low = side_at(rows[8]);
  if (first != top) s[0] += mask;
  if (second != top) s[1] += mask;
  if (first != low) s[2] += mask;
  if (second != low) s[3] += mask;
}

#endif
