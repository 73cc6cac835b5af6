// Matrix products of our own, for what cuBLASLt is not at hand for: tests on the stand-in driver, and
// the oracle of the real library. C = act(alpha · op(A) op(B) + bias) + beta · C, fp32 accumulation.
//
// Launch: grid (⌈n/32⌉, ⌈m/32⌉, batch), 64 threads, each a 4×4 piece of a 32×32 tile; tiles of A and
// B of depth 16 pass through shared memory (4 KiB). 2mnk operations.
//
// im2col and col2im turn a convolution into a product: columns are (channel, row, column) of the
// kernel, as PyTorch stores the weight, so that the weight is the product's operand as it is.
#include "common.cuh"

#define TILE 32
#define DEPTH 16
#define PIECE 4

KERNEL void gemm(int m, int n, int k, int transA, int transB, float alpha, float beta, int lda, int ldb, int ldc,
                 i64 strideA, i64 strideB, i64 strideC, int activation, const T* a, const T* b, const T* bias,
                 T* preActivation, T* c) {
  SHARED(float, tiles);
  float* ta = tiles;                 // [DEPTH][TILE]
  float* tb = tiles + DEPTH * TILE;  // [DEPTH][TILE]
  a += blockIdx.z * strideA;
  b += blockIdx.z * strideB;
  c += blockIdx.z * strideC;
  if (preActivation) preActivation += blockIdx.z * strideC;
  int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
  int y = threadIdx.x / 8 * PIECE, x = threadIdx.x % 8 * PIECE;
  float sum[PIECE][PIECE] = {};
  for (int k0 = 0; k0 < k; k0 += DEPTH) {
    for (int i = threadIdx.x; i < DEPTH * TILE; i += 64) {
      // The faster index follows memory: k for an operand stored row by row, else the other one.
      int d = transA ? i / TILE : i % DEPTH, r = transA ? i % TILE : i / DEPTH;
      bool in = k0 + d < k && row0 + r < m;
      ta[d * TILE + r] = !in ? 0 : f(a[transA ? (k0 + d) * static_cast<i64>(lda) + row0 + r : (row0 + r) * static_cast<i64>(lda) + k0 + d]);
      d = transB ? i % DEPTH : i / TILE, r = transB ? i / DEPTH : i % TILE;
      in = k0 + d < k && column0 + r < n;
      tb[d * TILE + r] = !in ? 0 : f(b[transB ? (column0 + r) * static_cast<i64>(ldb) + k0 + d : (k0 + d) * static_cast<i64>(ldb) + column0 + r]);
    }
    __syncthreads();
    int depth = min(DEPTH, k - k0);
    for (int d = 0; d < depth; d++)
      for (int i = 0; i < PIECE; i++)
        for (int j = 0; j < PIECE; j++) sum[i][j] += ta[d * TILE + y + i] * tb[d * TILE + x + j];
    __syncthreads();
  }
  for (int i = 0; i < PIECE; i++)
    for (int j = 0; j < PIECE; j++) {
      int row = row0 + y + i, column = column0 + x + j;
      if (row >= m || column >= n) continue;
      i64 at = row * static_cast<i64>(ldc) + column;
      float v = alpha * sum[i][j] + (bias ? f(bias[column]) : 0);
      if (preActivation) put(preActivation + at, v);
      if (activation == 1) v = v > 0 ? v : 0;
      if (activation == 2) v = 0.5f * v * (1 + erff(v * 0.70710678118654752f));
      if (activation == 3) v = 0.5f * v * (1 + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
      put(c + at, beta == 0 ? v : v + beta * f(c[at]));
    }
}

// columns[(b, oy, ox)][(ci, ky, kx)] of pictures x (b, height, width, channels)
KERNEL void im2col(i64 n, int height, int width, int channels, int kernel, int stride, int padding, int outHeight,
                   int outWidth, const T* x, T* columns) {
  int taps = kernel * kernel;
  i64 depth = static_cast<i64>(channels) * taps;
  GRID_STRIDE(i, n) {
    i64 pixel = i / depth;
    int d = static_cast<int>(i % depth);
    int ci = d / taps, ky = d % taps / kernel, kx = d % kernel;
    int oy = static_cast<int>(pixel / outWidth % outHeight), ox = static_cast<int>(pixel % outWidth);
    i64 b = pixel / outWidth / outHeight;
    int iy = oy * stride + ky - padding, ix = ox * stride + kx - padding;
    bool in = iy >= 0 && iy < height && ix >= 0 && ix < width;
    if (in) {
      columns[i] = x[((b * height + iy) * width + ix) * channels + ci];
    } else {
      put(columns + i, 0);
    }
  }
}

// dx gathers what reaches each input element, in the order of the kernel's taps.
KERNEL void col2im(i64 n, int height, int width, int channels, int kernel, int stride, int padding, int outHeight,
                   int outWidth, const T* columns, T* dx) {
  int taps = kernel * kernel;
  i64 depth = static_cast<i64>(channels) * taps;
  GRID_STRIDE(i, n) {
    int ci = static_cast<int>(i % channels);
    i64 pixel = i / channels;
    int iy = static_cast<int>(pixel / width % height), ix = static_cast<int>(pixel % width);
    i64 b = pixel / width / height;
    float v = 0;
    for (int ky = 0; ky < kernel; ky++)
      for (int kx = 0; kx < kernel; kx++) {
        int sy = iy + padding - ky, sx = ix + padding - kx;
        if (sy < 0 || sx < 0 || sy % stride || sx % stride) continue;
        int oy = sy / stride, ox = sx / stride;
        if (oy >= outHeight || ox >= outWidth) continue;
        v += f(columns[((b * outHeight + oy) * outWidth + ox) * depth + ci * taps + ky * kernel + kx]);
      }
    put(dx + i, v);
  }
}
