// Functions of one or two arguments, each element by itself; dropout on Philox; the GRU's gates.
// Bound by memory: unary 2n·s bytes, unary_backward up to 4n·s, binary up to 3n·s, dropout 2n·s.
//
// Launch: grid-stride, 256 threads.
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

#define SQRT_HALF 0.70710678118654752f
#define SQRT_2_OVER_PI 0.79788456080286536f
#define INVERSE_SQRT_2PI 0.39894228040143268f
#define GELU_CUBIC 0.044715f

DEVICE float apply(int kind, float x) {
  switch (kind) {
    case GELU: return 0.5f * x * (1 + erff(x * SQRT_HALF));
    case GELU_TANH: return 0.5f * x * (1 + tanhf(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)));
    case RELU: return x > 0 ? x : 0;
    case SIGMOID: return sigmoid(x);
    case TANH: return tanhf(x);
    case EXP: return expf(x);
    default: return x * x;
  }
}

DEVICE float derivative(int kind, float x, float y) {
  switch (kind) {
    case GELU: return 0.5f * (1 + erff(x * SQRT_HALF)) + x * INVERSE_SQRT_2PI * expf(-0.5f * x * x);
    case GELU_TANH: {
      float t = tanhf(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
      return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * x * x);
    }
    case RELU: return x > 0 ? 1 : 0;
    case SIGMOID: return y * (1 - y);
    case TANH: return 1 - y * y;
    case EXP: return y;
    default: return 2 * x;
  }
}

KERNEL void unary(int kind, const T* x, T* y, i64 n) {
  GRID_STRIDE(i, n) put(y + i, apply(kind, f(x[i])));
}

KERNEL void unary_backward(int kind, const T* x, const T* y, const T* dy, T* dx, i64 n) {
  GRID_STRIDE(i, n) put(dx + i, f(dy[i]) * derivative(kind, f(x[i]), f(y[i])));
}

// b's index along an axis that it lacks is 0: its strides are given, 0 where it repeats.
KERNEL void binary(int kind, const T* a, const T* b, T* y, i64 n, i64 middle, i64 inner, i64 outerStride,
                   i64 middleStride, i64 innerStride) {
  GRID_STRIDE(i, n) {
    i64 at = i / inner / middle * outerStride + i / inner % middle * middleStride + i % inner * innerStride;
    float p = f(a[i]);
    float q = f(b[at]);
    put(y + i, kind == 0 ? p + q : kind == 1 ? p - q : kind == 2 ? p * q : p / q);
  }
}

KERNEL void axpby(float alpha, const T* x, float beta, T* y, i64 n) {
  GRID_STRIDE(i, n) put(y + i, beta == 0 ? alpha * f(x[i]) : alpha * f(x[i]) + beta * f(y[i]));
}

// ---- dropout

#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u
#define PHILOX_W1 0xBB67AE85u

// Word `word` of Philox4x32-10 (Salmon et al., 2011) at a counter.
DEVICE u32 philox(u64 seed, u64 stream, u64 counter, int word) {
  u32 c0 = static_cast<u32>(counter), c1 = static_cast<u32>(counter >> 32);
  u32 c2 = static_cast<u32>(stream), c3 = static_cast<u32>(stream >> 32);
  u32 k0 = static_cast<u32>(seed), k1 = static_cast<u32>(seed >> 32);
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
  return word == 0 ? c0 : word == 1 ? c1 : word == 2 ? c2 : c3;
}

// Kept where the draw of 24 bits is at least `threshold`; rng = {seed, stream} on the device.
KERNEL void dropout(u32 threshold, float scale, i64 block, i64 offset, const u64* rng, const T* x, T* y, i64 n) {
  u64 seed = rng[0], stream = rng[1];
  GRID_STRIDE(i, n) {
    u64 j = static_cast<u64>(offset + i / block);
    bool kept = philox(seed, stream, j >> 2, static_cast<int>(j & 3)) >> 8 >= threshold;
    put(y + i, kept ? f(x[i]) * scale : 0);
  }
}

// ---- gated recurrent unit

KERNEL void gru(i64 n, int hidden, const T* gi, const T* gh, const T* h, T* y) {
  GRID_STRIDE(i, n) {
    i64 at = i / hidden * 3 * hidden + i % hidden;
    float r = sigmoid(f(gi[at]) + f(gh[at]));
    float z = sigmoid(f(gi[at + hidden]) + f(gh[at + hidden]));
    float m = tanhf(f(gi[at + 2 * hidden]) + r * f(gh[at + 2 * hidden]));
    put(y + i, (1 - z) * m + z * f(h[i]));
  }
}

KERNEL void gru_backward(i64 n, int hidden, const T* gi, const T* gh, const T* h, const T* dy, T* dgi, T* dgh, T* dh) {
  GRID_STRIDE(i, n) {
    i64 at = i / hidden * 3 * hidden + i % hidden;
    float ghn = f(gh[at + 2 * hidden]);
    float r = sigmoid(f(gi[at]) + f(gh[at]));
    float z = sigmoid(f(gi[at + hidden]) + f(gh[at + hidden]));
    float m = tanhf(f(gi[at + 2 * hidden]) + r * ghn);
    float g = f(dy[i]);
    float dn = g * (1 - z) * (1 - m * m);
    float dz = g * (f(h[i]) - m) * z * (1 - z);
    float dr = dn * ghn * r * (1 - r);
    put(dgi + at, dr);
    put(dgh + at, dr);
    put(dgi + at + hidden, dz);
    put(dgh + at + hidden, dz);
    put(dgi + at + 2 * hidden, dn);
    put(dgh + at + 2 * hidden, dn * r);
    put(dh + i, g * z);
  }
}
