// Functions of one or two arguments, each element by itself; dropout on Philox; the GRU's gates.
// Bound by memory: unary 2n·s bytes, unary_backward 3n·s (x or y is read, whichever the derivative
// needs), binary 3n·s (2n·s where b repeats), axpby 2 or 3n·s, dropout 2n·s, gru 8n·s, its backward 14n·s.
//
// Launch: a block of 256 threads takes one tile: sixteen bytes a load, ONE packs a thread of one
// array or TWO of each of two, all loads before the first use; the last block also takes what is no
// whole pack. Arrays that do not begin at a multiple of sixteen bytes go element by element.
//
//   gelu       x Φ(x), Φ(x) = (1 + erf(x/√2))/2           d: Φ(x) + x φ(x)
//   gelu_tanh  x (1 + tanh u)/2, u = √(2/π)(x + 0.044715 x³)
//   gru        r = σ(gi_r + gh_r), z = σ(gi_z + gh_z), n = tanh(gi_n + r gh_n), y = (1 − z) n + z h
#include "common.cuh"

#define GELU 0
#define GELU_TANH 1
#define RELU 2
#define SIGMOID 3
#define TANH 4
#define EXP 5
#define SQUARE 6

#define SQRT_HALF 0.70710678118654752f
#define SQRT_2_OVER_PI 0.79788456080286536f
#define INVERSE_SQRT_2PI 0.39894228040143268f
#define GELU_CUBIC 0.044715f

// Packs a thread; CudaElementwise has them too.
#define ONE 4
#define TWO 2

template <int KIND>
DEVICE float apply(float x) {
  switch (KIND) {
    case GELU: return 0.5f * x * (1 + erff(x * SQRT_HALF));
    case GELU_TANH: return 0.5f * x * (1 + tanhf(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)));
    case RELU: return x > 0 ? x : 0;
    case SIGMOID: return sigmoid(x);
    case TANH: return tanhf(x);
    case EXP: return expf(x);
    default: return x * x;
  }
}

// At x, or at y = f(x) for those whose derivative y gives.
template <int KIND>
DEVICE float derivative(float x) {
  switch (KIND) {
    case GELU: return 0.5f * (1 + erff(x * SQRT_HALF)) + x * INVERSE_SQRT_2PI * expf(-0.5f * x * x);
    case GELU_TANH: {
      float t = tanhf(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
      return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x);
    }
    case RELU: return x > 0 ? 1 : 0;
    case SIGMOID: return x * (1 - x);
    case TANH: return 1 - x * x;
    case EXP: return x;
    default: return 2 * x;
  }
}

// y[i] = op(a[i], b[i]); b is not read where INPUTS is 1.
template <int INPUTS, int K, class Op>
DEVICE void map(i64 n, const T* a, const T* b, T* y, Op op) {
  const int N = Pack<T>::N;
  i64 tile = blockIdx.x * static_cast<i64>(blockDim.x * K * N);
  if (aligned(a) && aligned(b) && aligned(y)) {
    Pack<T> p[K], q[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * N;
      if (i + N <= n) {
        p[k] = load_pack(a + i);
        if (INPUTS > 1) q[k] = load_pack(b + i);
      }
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * N;
      if (i + N <= n) {
#pragma unroll
        for (int e = 0; e < N; e++) p[k].v[e] = op(p[k].v[e], INPUTS > 1 ? q[k].v[e] : 0);
        store_pack(y + i, p[k]);
      }
    }
    i64 i = n - n % N + threadIdx.x;
    if (blockIdx.x == gridDim.x - 1 && i < n) put(y + i, op(f(a[i]), INPUTS > 1 ? f(b[i]) : 0));
    return;
  }
  for (int part = 0; part < N; part++) {
    float p[K], q[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
      i64 i = tile + (part * K + k) * blockDim.x + threadIdx.x;
      if (i < n) {
        p[k] = f(a[i]);
        if (INPUTS > 1) q[k] = f(b[i]);
      }
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
      i64 i = tile + (part * K + k) * blockDim.x + threadIdx.x;
      if (i < n) put(y + i, op(p[k], INPUTS > 1 ? q[k] : 0));
    }
  }
}

template <int KIND>
DEVICE void unary_of(const T* x, T* y, i64 n) {
  map<1, ONE>(n, x, static_cast<const T*>(nullptr), y, [](float v, float) { return apply<KIND>(v); });
}

KERNEL void unary(int kind, const T* x, T* y, i64 n) {
  switch (kind) {
    case GELU: unary_of<GELU>(x, y, n); break;
    case GELU_TANH: unary_of<GELU_TANH>(x, y, n); break;
    case RELU: unary_of<RELU>(x, y, n); break;
    case SIGMOID: unary_of<SIGMOID>(x, y, n); break;
    case TANH: unary_of<TANH>(x, y, n); break;
    case EXP: unary_of<EXP>(x, y, n); break;
    default: unary_of<SQUARE>(x, y, n);
  }
}

template <int KIND>
DEVICE void unary_backward_of(const T* x, const T* dy, T* dx, i64 n) {
  map<2, TWO>(n, x, dy, dx, [](float v, float g) { return g * derivative<KIND>(v); });
}

KERNEL void unary_backward(int kind, const T* x, const T* y, const T* dy, T* dx, i64 n) {
  switch (kind) {
    case GELU: unary_backward_of<GELU>(x, dy, dx, n); break;
    case GELU_TANH: unary_backward_of<GELU_TANH>(x, dy, dx, n); break;
    case RELU: unary_backward_of<RELU>(x, dy, dx, n); break;
    case SIGMOID: unary_backward_of<SIGMOID>(y, dy, dx, n); break;
    case TANH: unary_backward_of<TANH>(y, dy, dx, n); break;
    case EXP: unary_backward_of<EXP>(y, dy, dx, n); break;
    default: unary_backward_of<SQUARE>(x, dy, dx, n);
  }
}

#define ADD 0
#define SUB 1
#define MUL 2
#define DIV 3

template <int KIND>
DEVICE float combine(float p, float q) {
  return KIND == ADD ? p + q : KIND == SUB ? p - q : KIND == MUL ? p * q : p / q;
}

// b's index along an axis that it lacks is 0: its strides are given, 0 where it repeats.
struct Broadcast {
  i64 middle, inner, outerStride, middleStride, innerStride;
};

DEVICE i64 at(const Broadcast& s, i64 i) {
  i64 column, row;
  i64 rows = split(i, s.inner, &column);
  i64 index = column * s.innerStride;
  if ((s.outerStride | s.middleStride) != 0) {
    i64 outer = split(rows, s.middle, &row);
    index += outer * s.outerStride + row * s.middleStride;
  }
  return index;
}

// Where rows are whole packs, so is what each pack of `a` meets: a pack of b, or one value.
template <int KIND>
DEVICE void broadcast(i64 n, const Broadcast& s, const T* a, const T* b, T* y) {
  const int N = Pack<T>::N;
  i64 tile = blockIdx.x * static_cast<i64>(blockDim.x * TWO * N);
  bool one = (s.outerStride | s.middleStride | s.innerStride) == 0;
  if (one && aligned(a) && aligned(y)) {
    float q = f(*b);
    map<1, TWO>(n, a, b, y, [q](float p, float) { return combine<KIND>(p, q); });
    return;
  }
  if (aligned(a) && aligned(y) && s.inner % N == 0 && (s.innerStride == 0 || aligned(b))) {
    Pack<T> p[TWO], q[TWO];
#pragma unroll
    for (int k = 0; k < TWO; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * N;
      if (i < n) {
        p[k] = load_pack(a + i);
        const T* from = b + at(s, i);
        if (s.innerStride != 0) {
          q[k] = load_pack(from);
        } else {
          float v = f(*from);
#pragma unroll
          for (int e = 0; e < N; e++) q[k].v[e] = v;
        }
      }
    }
#pragma unroll
    for (int k = 0; k < TWO; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * N;
      if (i < n) {
#pragma unroll
        for (int e = 0; e < N; e++) p[k].v[e] = combine<KIND>(p[k].v[e], q[k].v[e]);
        store_pack(y + i, p[k]);
      }
    }
    return;
  }
  for (int part = 0; part < N; part++) {
    float p[TWO], q[TWO];
#pragma unroll
    for (int k = 0; k < TWO; k++) {
      i64 i = tile + (part * TWO + k) * blockDim.x + threadIdx.x;
      if (i < n) {
        p[k] = f(a[i]);
        q[k] = f(b[at(s, i)]);
      }
    }
#pragma unroll
    for (int k = 0; k < TWO; k++) {
      i64 i = tile + (part * TWO + k) * blockDim.x + threadIdx.x;
      if (i < n) put(y + i, combine<KIND>(p[k], q[k]));
    }
  }
}

// `same`: b has a's shape.
template <int KIND>
DEVICE void binary_of(bool same, i64 n, const Broadcast& s, const T* a, const T* b, T* y) {
  if (same) {
    map<2, TWO>(n, a, b, y, [](float p, float q) { return combine<KIND>(p, q); });
  } else {
    broadcast<KIND>(n, s, a, b, y);
  }
}

KERNEL void binary(int kind, int same, const T* a, const T* b, T* y, i64 n, i64 middle, i64 inner, i64 outerStride,
                   i64 middleStride, i64 innerStride) {
  Broadcast s = {middle, inner, outerStride, middleStride, innerStride};
  switch (kind) {
    case ADD: binary_of<ADD>(same, n, s, a, b, y); break;
    case SUB: binary_of<SUB>(same, n, s, a, b, y); break;
    case MUL: binary_of<MUL>(same, n, s, a, b, y); break;
    default: binary_of<DIV>(same, n, s, a, b, y);
  }
}

// What y held before is not read where beta is 0.
KERNEL void axpby(float alpha, const T* x, float beta, T* y, i64 n) {
  if (beta == 0) {
    map<1, TWO>(n, x, x, y, [alpha](float p, float) { return alpha * p; });
  } else {
    map<2, TWO>(n, x, y, y, [alpha, beta](float p, float q) { return alpha * p + beta * q; });
  }
}

// ---- dropout

#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u
#define PHILOX_W1 0xBB67AE85u

// The four words of Philox4x32-10 (Salmon et al., 2011) at a counter.
DEVICE void philox(u64 seed, u64 stream, u64 counter, u32* words) {
  u32 c0 = static_cast<u32>(counter), c1 = static_cast<u32>(counter >> 32);
  u32 c2 = static_cast<u32>(stream), c3 = static_cast<u32>(stream >> 32);
  u32 k0 = static_cast<u32>(seed), k1 = static_cast<u32>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    u32 h0 = __umulhi(PHILOX_M0, c0), l0 = PHILOX_M0 * c0;
    u32 h1 = __umulhi(PHILOX_M1, c2), l1 = PHILOX_M1 * c2;
    c0 = h1 ^ c1 ^ k0;
    c1 = l1;
    c2 = h0 ^ c3 ^ k1;
    c3 = l0;
    k0 += PHILOX_W0;
    k1 += PHILOX_W1;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// Draw j of a stream: word j % 4 at counter j / 4.
DEVICE u32 draw(u64 seed, u64 stream, u64 j) {
  u32 w[4];
  philox(seed, stream, j >> 2, w);
  u32 word = static_cast<u32>(j & 3);
  return word == 0 ? w[0] : word == 1 ? w[1] : word == 2 ? w[2] : w[3];
}

// N draws from j on: four a counter, moved into place where j is none of a counter's first.
template <int N>
DEVICE void draws(u64 seed, u64 stream, u64 j, u32* w) {
  u32 all[N + 4];
  u32 skip = static_cast<u32>(j & 3);
#pragma unroll
  for (int c = 0; c < N; c += 4) philox(seed, stream, (j + c) >> 2, all + c);
  if (skip != 0) {
    philox(seed, stream, (j + N) >> 2, all + N);
    if (skip & 1) {
#pragma unroll
      for (int e = 0; e < N + 3; e++) all[e] = all[e + 1];
    }
    if (skip & 2) {
#pragma unroll
      for (int e = 0; e < N + 2; e++) all[e] = all[e + 2];
    }
  }
#pragma unroll
  for (int e = 0; e < N; e++) w[e] = all[e];
}

// Kept where the draw of 24 bits is at least `threshold`; rng = {seed, stream} on the device.
// `block` elements share a draw: packs do, where a block is whole packs.
KERNEL void dropout(u32 threshold, float scale, i64 block, i64 offset, const u64* rng, const T* x, T* y, i64 n) {
  const int N = Pack<T>::N;
  u64 seed = rng[0], stream = rng[1];
  i64 tile = blockIdx.x * static_cast<i64>(blockDim.x * TWO * N);
  i64 whole = 0;
  if (aligned(x) && aligned(y) && (block == 1 || block % N == 0)) {
    Pack<T> p[TWO];
#pragma unroll
    for (int k = 0; k < TWO; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * N;
      if (i + N <= n) p[k] = load_pack(x + i);
    }
#pragma unroll
    for (int k = 0; k < TWO; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * N;
      if (i + N > n) continue;
      if (block == 1) {
        u32 w[N];
        draws<N>(seed, stream, static_cast<u64>(offset + i), w);
#pragma unroll
        for (int e = 0; e < N; e++) p[k].v[e] = w[e] >> 8 >= threshold ? p[k].v[e] * scale : 0;
      } else {
        i64 rest;
        bool kept = draw(seed, stream, static_cast<u64>(offset + split(i, block, &rest))) >> 8 >= threshold;
#pragma unroll
        for (int e = 0; e < N; e++) p[k].v[e] = kept ? p[k].v[e] * scale : 0;
      }
      store_pack(y + i, p[k]);
    }
    whole = n - n % N;
  }
  i64 last = min(n, tile + blockDim.x * TWO * N);
  for (i64 i = max(tile, whole) + threadIdx.x; i < last; i += blockDim.x) {
    i64 rest;
    u32 w = draw(seed, stream, static_cast<u64>(offset + split(i, block, &rest)));
    put(y + i, w >> 8 >= threshold ? f(x[i]) * scale : 0);
  }
}

// ---- gated recurrent unit: a pack of hidden units a thread, where rows are whole packs

struct Gates {
  float r, z, m;
};

DEVICE Gates gates(float ir, float iz, float in, float hr, float hz, float hn) {
  Gates g;
  g.r = sigmoid(ir + hr);
  g.z = sigmoid(iz + hz);
  g.m = tanhf(in + g.r * hn);
  return g;
}

// W hidden units from i on.
template <int W>
DEVICE void gru_of(i64 i, i64 n, int hidden, const T* gi, const T* gh, const T* h, T* y) {
  if (i >= n) return;
  i64 column;
  i64 at = split(i, hidden, &column) * 3 * hidden + column;
  float in[3][W], from[3][W], state[W];
#pragma unroll
  for (int g = 0; g < 3; g++) {
    load_some<W>(gi + at + g * hidden, in[g]);
    load_some<W>(gh + at + g * hidden, from[g]);
  }
  load_some<W>(h + i, state);
#pragma unroll
  for (int e = 0; e < W; e++) {
    Gates g = gates(in[0][e], in[1][e], in[2][e], from[0][e], from[1][e], from[2][e]);
    state[e] = (1 - g.z) * g.m + g.z * state[e];
  }
  store_some<W>(y + i, state);
}

KERNEL void gru(i64 n, int hidden, const T* gi, const T* gh, const T* h, T* y) {
  const int N = Pack<T>::N;
  i64 thread = blockIdx.x * static_cast<i64>(blockDim.x) + threadIdx.x;
  if (hidden % N == 0 && aligned(gi) && aligned(gh) && aligned(h) && aligned(y)) {
    gru_of<N>(thread * N, n, hidden, gi, gh, h, y);
  } else {
    for (int e = 0; e < N; e++) gru_of<1>(thread + e * static_cast<i64>(gridDim.x * blockDim.x), n, hidden, gi, gh, h, y);
  }
}

template <int W>
DEVICE void gru_backward_of(i64 i, i64 n, int hidden, const T* gi, const T* gh, const T* h, const T* dy, T* dgi, T* dgh,
                            T* dh) {
  if (i >= n) return;
  i64 column;
  i64 at = split(i, hidden, &column) * 3 * hidden + column;
  float in[3][W], from[3][W], state[W], up[W], last[W];
#pragma unroll
  for (int g = 0; g < 3; g++) {
    load_some<W>(gi + at + g * hidden, in[g]);
    load_some<W>(gh + at + g * hidden, from[g]);
  }
  load_some<W>(h + i, state);
  load_some<W>(dy + i, up);
#pragma unroll
  for (int e = 0; e < W; e++) {
    float reset = from[2][e];
    Gates g = gates(in[0][e], in[1][e], in[2][e], from[0][e], from[1][e], reset);
    float dn = up[e] * (1 - g.z) * (1 - g.m * g.m);
    in[0][e] = dn * reset * g.r * (1 - g.r);
    in[1][e] = up[e] * (state[e] - g.m) * g.z * (1 - g.z);
    in[2][e] = dn;
    last[e] = dn * g.r;
    state[e] = up[e] * g.z;
  }
#pragma unroll
  for (int g = 0; g < 3; g++) {
    store_some<W>(dgi + at + g * hidden, in[g]);
    store_some<W>(dgh + at + g * hidden, g == 2 ? last : in[g]);
  }
  store_some<W>(dh + i, state);
}

KERNEL void gru_backward(i64 n, int hidden, const T* gi, const T* gh, const T* h, const T* dy, T* dgi, T* dgh, T* dh) {
  const int N = Pack<T>::N;
  i64 thread = blockIdx.x * static_cast<i64>(blockDim.x) + threadIdx.x;
  if (hidden % N == 0 && aligned(gi) && aligned(gh) && aligned(h) && aligned(dy) && aligned(dgi) && aligned(dgh) &&
      aligned(dh)) {
    gru_backward_of<N>(thread * N, n, hidden, gi, gh, h, dy, dgi, dgh, dh);
  } else {
    for (int e = 0; e < N; e++)
      gru_backward_of<1>(thread + e * static_cast<i64>(gridDim.x * blockDim.x), n, hidden, gi, gh, h, dy, dgi, dgh, dh);
  }
}
