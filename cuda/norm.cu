// Softmax, LayerNorm and GroupNorm, forward and backward. Statistics in fp32; γ and β have a type of
// their own, since norms keep fp32 parameters beside half activations.
//
// Rows: a group of threads a row (one warp below 2,048 columns, else a block), each row read from
// memory once or twice and from cache after that. Bound by memory: softmax 2n·s bytes, its backward
// 3n·s; LayerNorm 2n·s (4n·s with the residual), its backward 3n·s and 8 bytes a column and chunk.
//
//   softmax            y = exp(x − max) / Σ exp(x − max)          dx = y (dy − Σ dy·y)
//   LayerNorm          y = (x − μ) r γ + β,  r = 1/√(σ² + ε)
//     dx = r (g − mean(g) − x̂ mean(g·x̂)),  g = dy·γ,  x̂ = (x − μ) r;   dγ = Σ dy·x̂,  dβ = Σ dy
//   GroupNorm          the same over a group of channels of a picture
#include "common.cuh"

#define ROW_OF_GROUP(row, rows) \
  i64 row = blockIdx.x * static_cast<i64>(blockDim.y) + threadIdx.y; \
  if (row >= (rows)) return
#define COLUMNS(c, n) for (int c = threadIdx.x; c < (n); c += blockDim.x)

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

// Adds the chunks in order; pairs of rows of `partial` are dγ and dβ.
KERNEL void add_chunks(int columns, int chunks, const float* partial, void* dGamma, void* dBeta,
                       int type) {
  GRID_STRIDE(c, columns) {
    float scale = 0, shift = 0;
    for (int k = 0; k < chunks; k++) {
      scale += partial[2 * k * static_cast<i64>(columns) + c];
      shift += partial[(2 * k + 1) * static_cast<i64>(columns) + c];
    }
    put_element(dGamma, type, c, scale);
    put_element(dBeta, type, c, shift);
  }
}

// ---- GroupNorm: a block for each (group, picture); x is (batch, pixels, channels)

KERNEL void group_norm(i64 pixels, int channels, int groups, float eps, const T* x, const void* gamma, const void* beta, int type,
                       T* y, float* stats) {
  SHARED(float, scratch);
  int width = channels / groups;
  i64 n = pixels * width;
  i64 base = blockIdx.y * pixels * channels + blockIdx.x * width;
  float sum = 0;
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) sum += f(x[base + i / width * channels + i % width]);
  float mean = group_sum(sum, scratch) / n;
  float squares = 0;
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    float d = f(x[base + i / width * channels + i % width]) - mean;
    squares += d * d;
  }
  float rstd = rsqrtf(group_sum(squares, scratch) / n + eps);
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    i64 at = base + i / width * channels + i % width;
    int c = static_cast<int>(blockIdx.x * width + i % width);
    float v = (f(x[at]) - mean) * rstd;
    put(y + at, gamma ? v * element(gamma, type, c) + element(beta, type, c) : v);
  }
  if (threadIdx.x == 0) {
    i64 at = 2 * (blockIdx.y * static_cast<i64>(groups) + blockIdx.x);
    stats[at] = mean;
    stats[at + 1] = rstd;
  }
}

KERNEL void group_norm_backward(i64 pixels, int channels, int groups, const T* x, const void* gamma, int type, const float* stats,
                                const T* dy, T* dx) {
  SHARED(float, scratch);
  int width = channels / groups;
  i64 n = pixels * width;
  i64 base = blockIdx.y * pixels * channels + blockIdx.x * width;
  i64 s = 2 * (blockIdx.y * static_cast<i64>(groups) + blockIdx.x);
  float mean = stats[s], rstd = stats[s + 1];
  float sum = 0, dot = 0;
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    i64 at = base + i / width * channels + i % width;
    float g = f(dy[at]) * (gamma ? element(gamma, type, blockIdx.x * width + i % width) : 1);
    sum += g;
    dot += g * (f(x[at]) - mean) * rstd;
  }
  sum = group_sum(sum, scratch) / n;
  dot = group_sum(dot, scratch) / n;
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    i64 at = base + i / width * channels + i % width;
    float g = f(dy[at]) * (gamma ? element(gamma, type, blockIdx.x * width + i % width) : 1);
    put(dx + at, rstd * (g - sum - (f(x[at]) - mean) * rstd * dot));
  }
}

// As layer_norm_columns, with the statistics of each column's group; grid (⌈channels/256⌉, chunks of
// pixels, batch), partial[(batch, chunk)].
KERNEL void group_norm_columns(i64 pixels, int channels, int groups, i64 chunk, const T* x, const float* stats,
                               const T* dy, float* partial) {
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  const float* own = stats + 2 * (blockIdx.z * static_cast<i64>(groups) + c / (channels / groups));
  i64 first = blockIdx.y * chunk, last = min(first + chunk, pixels);
  float scale = 0, shift = 0;
  for (i64 p = first; p < last; p++) {
    i64 at = (blockIdx.z * pixels + p) * channels + c;
    float g = f(dy[at]);
    scale += g * (f(x[at]) - own[0]) * own[1];
    shift += g;
  }
  i64 k = blockIdx.z * static_cast<i64>(gridDim.y) + blockIdx.y;
  partial[2 * k * channels + c] = scale;
  partial[(2 * k + 1) * channels + c] = shift;
}
