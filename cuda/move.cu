// Filling, converting, permuting, copying and folding. Bound by memory: every element is read and
// written once, neighbours by neighbouring threads.
//
//   fill          y[i] = v                                          bytes: n·s
//   convert       y[i] = x[i], between floating types               bytes: n·(sx + sy)
//   permute       y[p(i)] = x[i]; writes are coalesced              bytes: 2n·s
//   copy_columns  y[r·yStride + c] (+)= x[r·xStride + c]            bytes: 2 or 3 n·s
//   repeat        y[o][t][n] = x[o][n]                              bytes: n·s (1 + times)
//   reduce_rows   fold of the last axis: a warp a row, or a block for long rows
//   reduce_columns fold of a middle axis in chunks, chunk by chunk in fp32; a second pass adds the
//                 chunks in order, so that the sum does not depend on scheduling
//
// Launch: grid-stride, 256 threads; the folds as said at each.
#include "common.cuh"

KERNEL void fill(T* y, i64 n, float v) {
  GRID_STRIDE(i, n) put(y + i, v);
}

KERNEL void convert(const void* x, int from, void* y, int to, i64 n) {
  GRID_STRIDE(i, n) put_element(y, to, i, element(x, from, i));
}

// Element i of y has the index (i / ySpan[0], i % ySpan[0] / ySpan[1], …) and lies in x at the dot
// product of that index with xStride. Unused axes have span 1 at the end and stride 0.
KERNEL void permute(const T* x, T* y, i64 n, i64 s0, i64 s1, i64 s2, i64 s3, i64 s4, i64 t0, i64 t1, i64 t2, i64 t3,
                    i64 t4, i64 t5) {
  GRID_STRIDE(i, n) {
    i64 rest = i;
    i64 at = rest / s0 * t0;
    rest %= s0;
    at += rest / s1 * t1;
    rest %= s1;
    at += rest / s2 * t2;
    rest %= s2;
    at += rest / s3 * t3;
    rest %= s3;
    at += rest / s4 * t4 + rest % s4 * t5;
    y[i] = x[at];
  }
}

KERNEL void copy_columns(const T* x, T* y, i64 n, int columns, int xOffset, int xStride, int yOffset, int yStride,
                         int accumulate) {
  GRID_STRIDE(i, n) {
    i64 row = i / columns;
    int column = static_cast<int>(i % columns);
    T v = x[row * xStride + xOffset + column];
    T* to = y + row * yStride + yOffset + column;
    if (accumulate) {
      put(to, f(*to) + f(v));
    } else {
      *to = v;
    }
  }
}

KERNEL void repeat(const T* x, T* y, i64 n, int times, i64 inner) {
  GRID_STRIDE(i, n) y[i] = x[i / inner / times * inner + i % inner];
}

#define FOLD_SUM 0
#define FOLD_MEAN 1
#define FOLD_MAX 2

// A row of `axis` elements to one value; blockDim.y rows a block when blockDim.x is one warp.
KERNEL void reduce_rows(int kind, i64 rows, i64 axis, const T* x, T* y) {
  SHARED(float, scratch);
  i64 row = blockIdx.x * static_cast<i64>(blockDim.y) + threadIdx.y;
  if (row >= rows) return;
  const T* from = x + row * axis;
  float v = kind == FOLD_MAX ? NEGATIVE_INFINITY : 0;
  for (i64 i = threadIdx.x; i < axis; i += blockDim.x) v = kind == FOLD_MAX ? fmaxf(v, f(from[i])) : v + f(from[i]);
  v = kind == FOLD_MAX ? group_max(v, scratch) : group_sum(v, scratch);
  if (threadIdx.x == 0) put(y + row, kind == FOLD_MEAN ? v / axis : v);
}

// partial[o][chunk][n] over `chunk` elements of the axis each; grid.y chunks.
KERNEL void reduce_columns(int kind, i64 outer, i64 axis, i64 inner, i64 chunk, const T* x, float* partial) {
  i64 first = blockIdx.y * chunk;
  i64 last = min(first + chunk, axis);
  GRID_STRIDE(i, outer * inner) {
    i64 o = i / inner;
    i64 n = i % inner;
    float v = kind == FOLD_MAX ? NEGATIVE_INFINITY : 0;
    for (i64 a = first; a < last; a++) {
      float e = f(x[(o * axis + a) * inner + n]);
      v = kind == FOLD_MAX ? fmaxf(v, e) : v + e;
    }
    partial[(o * gridDim.y + blockIdx.y) * inner + n] = v;
  }
}

KERNEL void reduce_chunks(int kind, i64 outer, i64 axis, i64 inner, int chunks, const float* partial, T* y) {
  GRID_STRIDE(i, outer * inner) {
    i64 o = i / inner;
    i64 n = i % inner;
    float v = kind == FOLD_MAX ? NEGATIVE_INFINITY : 0;
    for (int c = 0; c < chunks; c++) {
      float e = partial[(o * chunks + c) * inner + n];
      v = kind == FOLD_MAX ? fmaxf(v, e) : v + e;
    }
    put(y + i, kind == FOLD_MEAN && axis > 0 ? v / axis : v);
  }
}
