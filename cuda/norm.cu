// Softmax and LayerNorm, forward and backward. Statistics in fp32; γ and β have a type of
// their own, since norms keep fp32 parameters beside half activations.
//
// Rows of up to 1,024 columns are read once and stay in registers: LayerNorm's by packs of sixteen
// bytes, 16 or 32 lanes a row, where rows are whole packs and aligned (`layer_norm_1x16` and so on: packs
// a lane × lanes); softmax's element by element, a warp a row. Its backward takes one pass too: a block
// walks over rows and keeps its part of dγ and dβ in registers, which `add_chunks` adds in order. Other
// rows go to the kernels without a number: a warp a row below 2,048 columns, else a block, the row read
// again from cache. Bound by memory: softmax 2n·s bytes, its backward 3n·s; LayerNorm 2n·s (4n·s with
// the residual), its backward 3n·s (and 2n·s more in a pass of its own for other rows) and 16 bytes a
// column and block.
//
//   softmax            y = exp(x − max) / Σ exp(x − max)          dx = y (dy − Σ dy·y)
//   LayerNorm          y = (x − μ) r γ + β,  r = 1/√(σ² + ε)
//     dx = r (g − mean(g) − x̂ mean(g·x̂)),  g = dy·γ,  x̂ = (x − μ) r;   dγ = Σ dy·x̂,  dβ = Σ dy
#include "common.cuh"

#define ROW_OF_GROUP(row, rows) \
  i64 row = blockIdx.x * static_cast<i64>(blockDim.y) + threadIdx.y; \
  if (row >= (rows)) return
#define COLUMNS(c, n) for (int c = threadIdx.x; c < (n); c += blockDim.x)

// The columns of a row that fits a warp's registers: K a lane.
#define OWN_COLUMNS(k, c, n) \
  _Pragma("unroll") for (int k = 0, c = threadIdx.x; k < K; k++, c += WARP) if (c < (n))

template <int K>
DEVICE void softmax_row(i64 rows, int columns, const T* x, T* y) {
  ROW_OF_GROUP(row, rows);
  x += row * columns;
  y += row * columns;
  float v[K], top = NEGATIVE_INFINITY, sum = 0;
  OWN_COLUMNS(k, c, columns) v[k] = f(x[c]);
  OWN_COLUMNS(k, c, columns) top = fmaxf(top, v[k]);
  top = warp_max(top);
  OWN_COLUMNS(k, c, columns) sum += v[k] = expf(v[k] - top);
  float scale = 1 / warp_sum(sum);
  OWN_COLUMNS(k, c, columns) put(y + c, v[k] * scale);
}

template <int K>
DEVICE void softmax_backward_row(i64 rows, int columns, const T* y, const T* dy, T* dx, float scale) {
  ROW_OF_GROUP(row, rows);
  y += row * columns;
  dy += row * columns;
  dx += row * columns;
  float p[K], g[K], sum = 0;
  OWN_COLUMNS(k, c, columns) {
    p[k] = f(y[c]);
    g[k] = f(dy[c]);
  }
  OWN_COLUMNS(k, c, columns) sum += p[k] * g[k];
  sum = warp_sum(sum);
  OWN_COLUMNS(k, c, columns) put(dx + c, scale * p[k] * (g[k] - sum));
}

// Rows of at most 64, 256 and 1,024 columns.
KERNEL void softmax_2(i64 rows, int columns, const T* x, T* y) { softmax_row<2>(rows, columns, x, y); }
KERNEL void softmax_8(i64 rows, int columns, const T* x, T* y) { softmax_row<8>(rows, columns, x, y); }
KERNEL void softmax_32(i64 rows, int columns, const T* x, T* y) { softmax_row<32>(rows, columns, x, y); }
KERNEL void softmax_backward_2(i64 rows, int columns, const T* y, const T* dy, T* dx, float scale) {
  softmax_backward_row<2>(rows, columns, y, dy, dx, scale);
}
KERNEL void softmax_backward_8(i64 rows, int columns, const T* y, const T* dy, T* dx, float scale) {
  softmax_backward_row<8>(rows, columns, y, dy, dx, scale);
}
KERNEL void softmax_backward_32(i64 rows, int columns, const T* y, const T* dy, T* dx, float scale) {
  softmax_backward_row<32>(rows, columns, y, dy, dx, scale);
}

KERNEL void softmax(i64 rows, int columns, const T* x, T* y) {
  SHARED(float, scratch);
  ROW_OF_GROUP(row, rows);
  x += row * columns;
  y += row * columns;
  float top = NEGATIVE_INFINITY;
  COLUMNS(c, columns) top = fmaxf(top, f(x[c]));
  top = group_max(top, scratch);
  float sum = 0;
  COLUMNS(c, columns) sum += expf(f(x[c]) - top);
  sum = group_sum(sum, scratch);
  COLUMNS(c, columns) put(y + c, expf(f(x[c]) - top) / sum);
}

KERNEL void softmax_backward(i64 rows, int columns, const T* y, const T* dy, T* dx, float scale) {
  SHARED(float, scratch);
  ROW_OF_GROUP(row, rows);
  y += row * columns;
  dy += row * columns;
  dx += row * columns;
  float sum = 0;
  COLUMNS(c, columns) sum += f(y[c]) * f(dy[c]);
  sum = group_sum(sum, scratch);
  COLUMNS(c, columns) put(dx + c, scale * f(y[c]) * (f(dy[c]) - sum));
}

// ---- LayerNorm in registers: K packs a lane, L lanes a row. All lanes of a warp go through the same
// steps, with or without a row.

template <int L>
DEVICE float lanes_sum(float v) {
#pragma unroll
  for (int d = L / 2; d > 0; d >>= 1) v += __shfl_xor_sync(ALL_LANES, v, d);
  return v;
}

DEVICE float rounded(float v) {
  T t;
  put(&t, v);
  return f(t);
}

// 32 floats of a row are what a lane keeps: eight packs of fp32, four of the half types.
#define MOST_PACKS (32 / Pack<T>::N)

#define LAYER_NORM_ARGUMENTS \
  i64 rows, int columns, float eps, const T* x, const T* residual, const void* gamma, const void* beta, int type, \
      T* total, T* y, float* stats
#define LAYER_NORM_VALUES rows, columns, eps, x, residual, gamma, beta, type, total, y, stats

template <int K, int L>
DEVICE void layer_norm_row(LAYER_NORM_ARGUMENTS) {
  const int N = Pack<T>::N;
  int lane = threadIdx.x % L;
  i64 row = blockIdx.x * static_cast<i64>(blockDim.x / L) + threadIdx.x / L;
  int own = row < rows ? columns : 0;  // columns that are there for this lane
  x += row * columns;
  y += row * columns;
  float v[K][N], r[K][N];
#pragma unroll
  for (int k = 0; k < K; k++) {
    int c = (k * L + lane) * N;
    if (c < own) load_some<N>(x + c, v[k]);
    if (residual && c < own) load_some<N>(residual + row * columns + c, r[k]);
  }
  float sum = 0;
#pragma unroll
  for (int k = 0; k < K; k++) {
    int c = (k * L + lane) * N;
    if (c >= own) continue;
    if (residual) {
#pragma unroll
      for (int e = 0; e < N; e++) v[k][e] = rounded(v[k][e] + r[k][e]);
      store_some<N>(total + row * columns + c, v[k]);
    }
#pragma unroll
    for (int e = 0; e < N; e++) sum += v[k][e];
  }
  float mean = lanes_sum<L>(sum) / columns;
  float squares = 0;
#pragma unroll
  for (int k = 0; k < K; k++) {
    if ((k * L + lane) * N >= own) continue;
#pragma unroll
    for (int e = 0; e < N; e++) {
      v[k][e] -= mean;
      squares += v[k][e] * v[k][e];
    }
  }
  float rstd = rsqrtf(lanes_sum<L>(squares) / columns + eps);
#pragma unroll
  for (int k = 0; k < K; k++) {
    int c = (k * L + lane) * N;
    if (c >= own) continue;
    float scale[N], shift[N];
    if (gamma) {
      load_typed<N>(gamma, type, c, scale);
      load_typed<N>(beta, type, c, shift);
    }
#pragma unroll
    for (int e = 0; e < N; e++) v[k][e] = gamma ? v[k][e] * rstd * scale[e] + shift[e] : v[k][e] * rstd;
    store_some<N>(y + c, v[k]);
  }
  if (lane == 0 && own > 0) {
    stats[2 * row] = mean;
    stats[2 * row + 1] = rstd;
  }
}

KERNEL void layer_norm_1x16(LAYER_NORM_ARGUMENTS) { layer_norm_row<1, 16>(LAYER_NORM_VALUES); }
KERNEL void layer_norm_1x32(LAYER_NORM_ARGUMENTS) { layer_norm_row<1, 32>(LAYER_NORM_VALUES); }
KERNEL void layer_norm_2x32(LAYER_NORM_ARGUMENTS) { layer_norm_row<2, 32>(LAYER_NORM_VALUES); }
KERNEL void layer_norm_4x32(LAYER_NORM_ARGUMENTS) { layer_norm_row<4, 32>(LAYER_NORM_VALUES); }
KERNEL void layer_norm_8x32(LAYER_NORM_ARGUMENTS) { layer_norm_row<MOST_PACKS, 32>(LAYER_NORM_VALUES); }

// Each block takes rows a grid apart, and writes partial[block][0: dγ, 1: dβ][column] unless it is null.
// Shared memory: 2 floats a column.
#define LAYER_NORM_BACKWARD_ARGUMENTS \
  i64 rows, int columns, const T* x, const void* gamma, int type, const float* stats, const T* dy, const T* extra, \
      T* dx, float* partial
#define LAYER_NORM_BACKWARD_VALUES rows, columns, x, gamma, type, stats, dy, extra, dx, partial

template <int K, int L>
DEVICE void layer_norm_backward_rows(LAYER_NORM_BACKWARD_ARGUMENTS) {
  SHARED(float, sums);
  const int N = Pack<T>::N;
  int lane = threadIdx.x % L, group = threadIdx.x / L, groups = blockDim.x / L;
  float weight[K][N], scale[K][N], shift[K][N];
#pragma unroll
  for (int k = 0; k < K; k++) {
    int c = (k * L + lane) * N;
#pragma unroll
    for (int e = 0; e < N; e++) {
      weight[k][e] = 1;
      scale[k][e] = shift[k][e] = 0;
    }
    if (gamma && c < columns) load_typed<N>(gamma, type, c, weight[k]);
  }
  // The first row of the warp, so that its two halves leave the loop together.
  i64 first = blockIdx.x * static_cast<i64>(groups) + threadIdx.x / WARP * (WARP / L);
  for (; first < rows; first += gridDim.x * static_cast<i64>(groups)) {
    i64 row = first + threadIdx.x % WARP / L;
    int own = row < rows ? columns : 0;
    i64 at = row * columns;
    float mean = own ? stats[2 * row] : 0, rstd = own ? stats[2 * row + 1] : 0;
    float h[K][N], g[K][N], sum = 0, dot = 0;
#pragma unroll
    for (int k = 0; k < K; k++) {
      int c = (k * L + lane) * N;
      if (c < own) load_some<N>(x + at + c, h[k]);
      if (c < own) load_some<N>(dy + at + c, g[k]);
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
      if ((k * L + lane) * N >= own) continue;
#pragma unroll
      for (int e = 0; e < N; e++) {
        h[k][e] = (h[k][e] - mean) * rstd;
        scale[k][e] += g[k][e] * h[k][e];
        shift[k][e] += g[k][e];
        g[k][e] *= weight[k][e];
        sum += g[k][e];
        dot += g[k][e] * h[k][e];
      }
    }
    sum = lanes_sum<L>(sum) / columns;
    dot = lanes_sum<L>(dot) / columns;
#pragma unroll
    for (int k = 0; k < K; k++) {
      int c = (k * L + lane) * N;
      if (c >= own) continue;
      float more[N];
      if (extra) load_some<N>(extra + at + c, more);
#pragma unroll
      for (int e = 0; e < N; e++) {
        float v = rstd * (g[k][e] - sum - h[k][e] * dot);
        g[k][e] = extra ? v + more[e] : v;
      }
      store_some<N>(dx + at + c, g[k]);
    }
  }
  if (!partial) return;
  for (int turn = 0; turn < groups; turn++) {
    if (turn == group) {
#pragma unroll
      for (int k = 0; k < K; k++) {
        int c = (k * L + lane) * N;
        if (c >= columns) continue;
#pragma unroll
        for (int e = 0; e < N; e++) {
          sums[c + e] = turn == 0 ? scale[k][e] : sums[c + e] + scale[k][e];
          sums[columns + c + e] = turn == 0 ? shift[k][e] : sums[columns + c + e] + shift[k][e];
        }
      }
    }
    __syncthreads();
  }
  for (int c = threadIdx.x; c < 2 * columns; c += blockDim.x) partial[2 * blockIdx.x * static_cast<i64>(columns) + c] = sums[c];
}

KERNEL void layer_norm_backward_1x16(LAYER_NORM_BACKWARD_ARGUMENTS) {
  layer_norm_backward_rows<1, 16>(LAYER_NORM_BACKWARD_VALUES);
}
KERNEL void layer_norm_backward_1x32(LAYER_NORM_BACKWARD_ARGUMENTS) {
  layer_norm_backward_rows<1, 32>(LAYER_NORM_BACKWARD_VALUES);
}
KERNEL void layer_norm_backward_2x32(LAYER_NORM_BACKWARD_ARGUMENTS) {
  layer_norm_backward_rows<2, 32>(LAYER_NORM_BACKWARD_VALUES);
}
KERNEL void layer_norm_backward_4x32(LAYER_NORM_BACKWARD_ARGUMENTS) {
  layer_norm_backward_rows<4, 32>(LAYER_NORM_BACKWARD_VALUES);
}
KERNEL void layer_norm_backward_8x32(LAYER_NORM_BACKWARD_ARGUMENTS) {
  layer_norm_backward_rows<MOST_PACKS, 32>(LAYER_NORM_BACKWARD_VALUES);
}

// ---- LayerNorm of any row

KERNEL void layer_norm(i64 rows, int columns, float eps, const T* x, const T* residual, const void* gamma, const void* beta, int type,
                       T* total, T* y, float* stats) {
  SHARED(float, scratch);
  ROW_OF_GROUP(row, rows);
  x += row * columns;
  y += row * columns;
  if (residual) {
    residual += row * columns;
    total += row * columns;
    // Each thread reads back only what it wrote itself.
    COLUMNS(c, columns) put(total + c, f(x[c]) + f(residual[c]));
    x = total;
  }
  float sum = 0;
  COLUMNS(c, columns) sum += f(x[c]);
  float mean = group_sum(sum, scratch) / columns;
  float squares = 0;
  COLUMNS(c, columns) {
    float d = f(x[c]) - mean;
    squares += d * d;
  }
  float rstd = rsqrtf(group_sum(squares, scratch) / columns + eps);
  COLUMNS(c, columns) {
    float v = (f(x[c]) - mean) * rstd;
    put(y + c, gamma ? v * element(gamma, type, c) + element(beta, type, c) : v);
  }
  if (threadIdx.x == 0) {
    stats[2 * row] = mean;
    stats[2 * row + 1] = rstd;
  }
}

KERNEL void layer_norm_backward(i64 rows, int columns, const T* x, const void* gamma, int type, const float* stats, const T* dy,
                                const T* extra, T* dx) {
  SHARED(float, scratch);
  ROW_OF_GROUP(row, rows);
  x += row * columns;
  dy += row * columns;
  dx += row * columns;
  float mean = stats[2 * row], rstd = stats[2 * row + 1];
  float sum = 0, dot = 0;
  COLUMNS(c, columns) {
    float g = f(dy[c]) * (gamma ? element(gamma, type, c) : 1);
    sum += g;
    dot += g * (f(x[c]) - mean) * rstd;
  }
  sum = group_sum(sum, scratch) / columns;
  dot = group_sum(dot, scratch) / columns;
  COLUMNS(c, columns) {
    float g = f(dy[c]) * (gamma ? element(gamma, type, c) : 1);
    float v = rstd * (g - sum - (f(x[c]) - mean) * rstd * dot);
    put(dx + c, extra ? v + f(extra[row * columns + c]) : v);
  }
}

// partial[chunk][0: dγ, 1: dβ][column] over the chunk's rows; grid (⌈columns/256⌉, chunks).
KERNEL void layer_norm_columns(i64 rows, int columns, i64 chunk, const T* x, const float* stats, const T* dy,
                               float* partial) {
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= columns) return;
  i64 first = blockIdx.y * chunk, last = min(first + chunk, rows);
  float scale = 0, shift = 0;
  for (i64 r = first; r < last; r++) {
    float g = f(dy[r * columns + c]);
    scale += g * (f(x[r * columns + c]) - stats[2 * r]) * stats[2 * r + 1];
    shift += g;
  }
  partial[2 * blockIdx.y * static_cast<i64>(columns) + c] = scale;
  partial[(2 * blockIdx.y + 1) * static_cast<i64>(columns) + c] = shift;
}

// Adds the chunks, each thread its own of a column in order and then theirs in order; pairs of rows of
// `partial` are dγ and dβ. Launch: a block of 32 columns × 16 threads a column.
KERNEL void add_chunks(int columns, int chunks, const float* partial, void* dGamma, void* dBeta, int type) {
  SHARED(float, sums);
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  float scale = 0, shift = 0;
  if (c < columns) {
    for (int k = threadIdx.y; k < chunks; k += blockDim.y) {
      scale += partial[2 * k * static_cast<i64>(columns) + c];
      shift += partial[(2 * k + 1) * static_cast<i64>(columns) + c];
    }
  }
  int at = 2 * (threadIdx.y * blockDim.x + threadIdx.x);
  sums[at] = scale;
  sums[at + 1] = shift;
  __syncthreads();
  if (threadIdx.y > 0 || c >= columns) return;
  for (unsigned k = 1; k < blockDim.y; k++) {
    scale += sums[2 * (k * blockDim.x + threadIdx.x)];
    shift += sums[2 * (k * blockDim.x + threadIdx.x) + 1];
  }
  put_element(dGamma, type, c, scale);
  put_element(dBeta, type, c, shift);
}
