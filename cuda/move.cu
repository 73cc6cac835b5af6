// Filling, converting, permuting, copying and folding. Bound by memory: every element is read and
// written once, sixteen bytes a load where addresses and extents allow it, which is the same for all
// threads of a launch, and element by element where not; PACKS loads in flight a thread.
//
//   fill          y[i] = v                                          bytes: n·s
//   copy_bytes    y[i] = x[i], of one type                          bytes: 2n·s
//   convert       y[i] = x[i], between floating types               bytes: n·(sx + sy)
//   permute       y[i] = x[p(i)]; packs where the last axis stays   bytes: 2n·s
//   transpose     matrices, by tiles in shared memory               bytes: 2n·s
//   copy_columns  y[r·yStride + c] (+)= x[r·xStride + c]            bytes: 2 or 3 n·s
//   repeat        y[o][t][n] = x[o][n]                              bytes: n·s (1 + times)
//   reduce_rows   fold of the last axis: a warp a row, or a block for long rows     bytes: n·s
//   reduce_columns fold of a middle axis in chunks of it, rows of a chunk shared out to the rows of a
//                 block; reduce_chunks folds the chunks. Every order is fixed, so that the sum does
//                 not depend on scheduling                          bytes: n·s, and 8 a column and chunk
//
// Launch: a block of 256 threads a tile of PACKS packs a thread; the folds as said at each.
#include "common.cuh"

// CudaMoves has it too.
#define PACKS 4

KERNEL void fill(T* y, i64 n, float v) {
  const int N = Pack<T>::N;
  i64 tile = blockIdx.x * static_cast<i64>(blockDim.x * PACKS * N);
  i64 whole = 0;
  if (aligned(y)) {
    Pack<T> p;
#pragma unroll
    for (int e = 0; e < N; e++) p.v[e] = v;
    for (int k = 0; k < PACKS; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * N;
      if (i + N <= n) store_pack(y + i, p);
    }
    whole = n - n % N;
  }
  i64 last = min(n, tile + blockDim.x * PACKS * N);
  for (i64 i = max(tile, whole) + threadIdx.x; i < last; i += blockDim.x) put(y + i, v);
}

template <int BYTES>
DEVICE void copy_by(const char* x, char* y, i64 first, i64 last) {
  for (; first < last; first += PACKS * BYTES * static_cast<i64>(blockDim.x)) {
    typename Words<BYTES>::type words[PACKS];
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
      i64 i = first + (k * blockDim.x + threadIdx.x) * BYTES;
      if (i + BYTES <= last) words[k] = load_words<BYTES>(x + i);
    }
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
      i64 i = first + (k * blockDim.x + threadIdx.x) * BYTES;
      if (i + BYTES <= last) store_words<BYTES>(y + i, words[k]);
    }
  }
}

KERNEL void copy_bytes(const char* x, char* y, i64 bytes) {
  i64 tile = blockIdx.x * static_cast<i64>(blockDim.x * PACKS * 16);
  i64 last = min(bytes, tile + blockDim.x * PACKS * 16);
  u64 both = reinterpret_cast<u64>(x) | reinterpret_cast<u64>(y);
  if (both % 16 == 0) {
    copy_by<16>(x, y, tile, last);
    i64 i = bytes - bytes % 16 + threadIdx.x;
    if (blockIdx.x == gridDim.x - 1 && i < bytes) y[i] = x[i];
  } else if ((both | static_cast<u64>(bytes)) % 4 == 0) {
    copy_by<4>(x, y, tile, last);
  } else if ((both | static_cast<u64>(bytes)) % 2 == 0) {
    copy_by<2>(x, y, tile, last);
  } else {
    for (i64 i = tile + threadIdx.x; i < last; i += blockDim.x) y[i] = x[i];
  }
}

// Four elements by a load, PACKS loads in flight: 16 bytes of fp32, 8 of a half type.
template <class A, class B>
DEVICE void convert_of(const A* x, B* y, i64 n) {
  i64 tile = blockIdx.x * static_cast<i64>(blockDim.x * PACKS * 4);
  i64 whole = 0;
  if (aligned_four(x) && aligned_four(y)) {
    float v[PACKS][4];
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * 4;
      if (i + 4 <= n) load_some<4>(x + i, v[k]);
    }
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * 4;
      if (i + 4 <= n) store_some<4>(y + i, v[k]);
    }
    whole = n - n % 4;
  }
  i64 last = min(n, tile + blockDim.x * PACKS * 4);
  for (i64 i = max(tile, whole) + threadIdx.x; i < last; i += blockDim.x) put(y + i, f(x[i]));
}

template <class B>
DEVICE void convert_to(const void* x, int from, B* y, i64 n) {
  switch (from) {
    case 0: convert_of(static_cast<const float*>(x), y, n); break;
    case 1: convert_of(static_cast<const half_t*>(x), y, n); break;
    case 2: convert_of(static_cast<const bf16_t*>(x), y, n); break;
    case 3: convert_of(static_cast<const unsigned char*>(x), y, n); break;
    default: convert_of(static_cast<const int*>(x), y, n);
  }
}

KERNEL void convert(const void* x, int from, void* y, int to, i64 n) {
  switch (to) {
    case 0: convert_to(x, from, static_cast<float*>(y), n); break;
    case 1: convert_to(x, from, static_cast<half_t*>(y), n); break;
    default: convert_to(x, from, static_cast<bf16_t*>(y), n);
  }
}

// Element i of y has the index (i / s0, i % s0 / s1, …) and lies in x at the dot product of that
// index with t0, t1, …. Axes that y lacks come first, with stride 0.
KERNEL void permute(const T* x, T* y, i64 n, i64 s0, i64 s1, i64 s2, i64 s3, i64 s4, i64 t0, i64 t1, i64 t2, i64 t3,
                    i64 t4, i64 t5) {
  bool wide = t5 == 1 && s4 % Pack<T>::N == 0 && aligned(x) && aligned(y);
  auto from = [=](i64 i) {
    i64 at = 0;
    if (t0 != 0) at += split(i, s0, &i) * t0;
    if (t1 != 0) at += split(i, s1, &i) * t1;
    if (t2 != 0) at += split(i, s2, &i) * t2;
    if (t3 != 0) at += split(i, s3, &i) * t3;
    if (t4 != 0) at += split(i, s4, &i) * t4;
    return at + i * t5;
  };
  move_tile<PACKS>(wide, n, x, y, from, [](i64 i) { return i; });
}

#define TILE 32

// x (b, rows, columns), y (b, columns, rows). A block of 32 × 8 threads a tile of 32 × 32; grid.x
// tiles. Rows of the tile are one element longer than it is wide, so that a column lies in different
// banks.
KERNEL void transpose(i64 rows, i64 columns, i64 acrossRows, i64 acrossColumns, const T* x, T* y) {
  SHARED(T, tile);
  i64 tileRow, tileColumn;
  i64 b = split(split(blockIdx.x, acrossColumns, &tileColumn), acrossRows, &tileRow);
  i64 row = tileRow * TILE, column = tileColumn * TILE;
  const T* from = x + b * rows * columns;
  T* to = y + b * rows * columns;
  T v[TILE / 8];
#pragma unroll
  for (int k = 0; k < TILE / 8; k++) {
    i64 r = row + threadIdx.y + 8 * k, c = column + threadIdx.x;
    if (r < rows && c < columns) v[k] = from[r * columns + c];
  }
#pragma unroll
  for (int k = 0; k < TILE / 8; k++) tile[(threadIdx.y + 8 * k) * (TILE + 1) + threadIdx.x] = v[k];
  __syncthreads();
#pragma unroll
  for (int k = 0; k < TILE / 8; k++) {
    i64 c = column + threadIdx.y + 8 * k, r = row + threadIdx.x;
    if (r < rows && c < columns) to[c * rows + r] = tile[threadIdx.x * (TILE + 1) + threadIdx.y + 8 * k];
  }
}

KERNEL void copy_columns(const T* x, T* y, i64 n, int columns, int xOffset, int xStride, int yOffset, int yStride,
                         int accumulate) {
  const int N = Pack<T>::N;
  bool wide = (columns | xOffset | xStride | yOffset | yStride) % N == 0 && aligned(x) && aligned(y);
  auto from = [=](i64 i) {
    i64 c, r = split(i, columns, &c);
    return r * xStride + xOffset + c;
  };
  auto to = [=](i64 i) {
    i64 c, r = split(i, columns, &c);
    return r * yStride + yOffset + c;
  };
  if (!accumulate) {
    move_tile<PACKS>(wide, n, x, y, from, to);
    return;
  }
  i64 tile = blockIdx.x * static_cast<i64>(blockDim.x * PACKS * N);
  if (wide) {
#pragma unroll 1
    for (int part = 0; part < PACKS; part += 2) {
      Pack<T> p[2], q[2];
#pragma unroll
      for (int k = 0; k < 2; k++) {
        i64 i = tile + ((part + k) * blockDim.x + threadIdx.x) * N;
        if (i < n) {
          p[k] = load_pack(x + from(i));
          q[k] = load_pack(y + to(i));
        }
      }
#pragma unroll
      for (int k = 0; k < 2; k++) {
        i64 i = tile + ((part + k) * blockDim.x + threadIdx.x) * N;
        if (i < n) {
#pragma unroll
          for (int e = 0; e < N; e++) q[k].v[e] += p[k].v[e];
          store_pack(y + to(i), q[k]);
        }
      }
    }
    return;
  }
  i64 last = min(n, tile + blockDim.x * PACKS * N);
  for (i64 i = tile + threadIdx.x; i < last; i += blockDim.x) put(y + to(i), f(y[to(i)]) + f(x[from(i)]));
}

KERNEL void repeat(const T* x, T* y, i64 n, int times, i64 inner) {
  bool wide = inner % Pack<T>::N == 0 && aligned(x) && aligned(y);
  auto from = [=](i64 i) {
    i64 c, t;
    i64 o = split(split(i, inner, &c), times, &t);
    return o * inner + c;
  };
  move_tile<PACKS>(wide, n, x, y, from, [](i64 i) { return i; });
}

#define FOLD_SUM 0
#define FOLD_MEAN 1
#define FOLD_MAX 2

template <bool MAX>
DEVICE float fold(float a, float b) {
  return MAX ? fmaxf(a, b) : a + b;
}
template <bool MAX>
DEVICE float nothing() {
  return MAX ? NEGATIVE_INFINITY : 0;
}

// A thread's share of a row: W elements by a load, PACKS loads in flight.
template <bool MAX, int W>
DEVICE float fold_row(i64 axis, const T* row) {
  float v = nothing<MAX>();
  i64 step = static_cast<i64>(blockDim.x) * W, i = static_cast<i64>(threadIdx.x) * W;
  for (; i + (PACKS - 1) * step < axis; i += PACKS * step) {
    float p[PACKS][W];
#pragma unroll
    for (int k = 0; k < PACKS; k++) load_some<W>(row + i + k * step, p[k]);
#pragma unroll
    for (int k = 0; k < PACKS; k++)
#pragma unroll
      for (int e = 0; e < W; e++) v = fold<MAX>(v, p[k][e]);
  }
  for (; i < axis; i += step) {
    float p[W];
    load_some<W>(row + i, p);
#pragma unroll
    for (int e = 0; e < W; e++) v = fold<MAX>(v, p[e]);
  }
  return v;
}

// A row of `axis` elements to one value; blockDim.y rows a block when blockDim.x is one warp.
KERNEL void reduce_rows(int kind, i64 rows, i64 axis, const T* x, T* y) {
  SHARED(float, scratch);
  const int N = Pack<T>::N;
  i64 row = blockIdx.x * static_cast<i64>(blockDim.y) + threadIdx.y;
  if (row >= rows) return;
  const T* from = x + row * axis;
  bool wide = axis % N == 0 && aligned(x);
  float v;
  if (kind == FOLD_MAX) {
    v = group_max(wide ? fold_row<true, N>(axis, from) : fold_row<true, 1>(axis, from), scratch);
  } else {
    v = group_sum(wide ? fold_row<false, N>(axis, from) : fold_row<false, 1>(axis, from), scratch);
  }
  if (threadIdx.x == 0) put(y + row, kind == FOLD_MEAN ? v / axis : v);
}

// Rows first to last of (axis, inner) to one: a tile of 32·W columns a block, rows shared out to the
// rows of the block, whose sums are then added in order. The thread that has a column's result gets
// its number, the others -1.
template <bool MAX, int W, class U>
DEVICE float fold_columns(i64 tile, i64 inner, i64 first, i64 last, const U* x, float* scratch, i64* column) {
  float v[W];
#pragma unroll
  for (int e = 0; e < W; e++) v[e] = nothing<MAX>();
  i64 c = (tile * WARP + threadIdx.x) * W;
  if (c < inner) {
    i64 a = first + threadIdx.y, step = blockDim.y;
    for (; a + (PACKS - 1) * step < last; a += PACKS * step) {
      float p[PACKS][W];
#pragma unroll
      for (int k = 0; k < PACKS; k++) load_some<W>(x + (a + k * step) * inner + c, p[k]);
#pragma unroll
      for (int k = 0; k < PACKS; k++)
#pragma unroll
        for (int e = 0; e < W; e++) v[e] = fold<MAX>(v[e], p[k][e]);
    }
    for (; a < last; a += step) {
      float p[W];
      load_some<W>(x + a * inner + c, p);
#pragma unroll
      for (int e = 0; e < W; e++) v[e] = fold<MAX>(v[e], p[e]);
    }
  }
#pragma unroll
  for (int e = 0; e < W; e++) scratch[threadIdx.y * WARP * W + threadIdx.x * W + e] = v[e];
  __syncthreads();
  int mine = threadIdx.y * WARP + threadIdx.x;
  *column = -1;
  if (mine >= WARP * W || tile * WARP * W + mine >= inner) return 0;
  *column = tile * WARP * W + mine;
  float sum = nothing<MAX>();
  for (unsigned r = 0; r < blockDim.y; r++) sum = fold<MAX>(sum, scratch[r * WARP * W + mine]);
  return sum;
}

template <bool MAX>
DEVICE float fold_columns_of(int wide, i64 tile, i64 inner, i64 first, i64 last, const T* x, float* scratch,
                             i64* column) {
  return wide ? fold_columns<MAX, Pack<T>::N>(tile, inner, first, last, x, scratch, column)
              : fold_columns<MAX, 1>(tile, inner, first, last, x, scratch, column);
}

// partial[o][chunk][n] over `chunk` rows each; or y[o][n], of one chunk, where y is given. Blocks of
// 32 × 8 threads, one float of shared memory a thread and column of its pack; grid (outer · tiles,
// chunks). wide: packs of columns, which inner must be whole and x aligned for.
KERNEL void reduce_columns(int kind, int wide, i64 tiles, i64 axis, i64 inner, i64 chunk, const T* x, float* partial,
                           T* y) {
  SHARED(float, scratch);
  i64 tile, column;
  i64 o = split(blockIdx.x, tiles, &tile);
  i64 first = blockIdx.y * chunk, last = min(first + chunk, axis);
  const T* from = x + o * axis * inner;
  float v = kind == FOLD_MAX ? fold_columns_of<true>(wide, tile, inner, first, last, from, scratch, &column)
                             : fold_columns_of<false>(wide, tile, inner, first, last, from, scratch, &column);
  if (column < 0) return;
  if (y) {
    put(y + o * inner + column, kind == FOLD_MEAN ? v / axis : v);
  } else {
    partial[(o * gridDim.y + blockIdx.y) * inner + column] = v;
  }
}

// Blocks of 32 × 32 threads; grid (outer · tiles).
KERNEL void reduce_chunks(int kind, i64 tiles, i64 axis, i64 inner, int chunks, const float* partial, T* y) {
  SHARED(float, scratch);
  i64 tile, column;
  i64 o = split(blockIdx.x, tiles, &tile);
  const float* from = partial + o * chunks * inner;
  float v = kind == FOLD_MAX ? fold_columns<true, 1>(tile, inner, 0, chunks, from, scratch, &column)
                             : fold_columns<false, 1>(tile, inner, 0, chunks, from, scratch, &column);
  if (column >= 0) put(y + o * inner + column, kind == FOLD_MEAN ? v / axis : v);
}
