// What every kernel file shares: the element type T, conversions, and sums over a group of threads.
//
// A file is compiled once for each element type: DEIXIS_T is 0 for fp32, 1 for fp16, 2 for bf16.
// Arithmetic is always in fp32; fp16 and bf16 are storage. The conversions are our own, so that a
// machine needs no CUDA headers beside NVRTC.
//
// Rules that let the same text run on the CPU stand-in (cuda/host): kernels are declared
// `KERNEL void name(...)`, take only scalars and pointers, and get shared memory through SHARED.
#pragma once

#ifdef DEIXIS_HOST
#include "host/host.h"
#else
#define KERNEL extern "C" __global__
// The same, compiled for so many threads a block and blocks a multiprocessor.
#define KERNEL_BOUNDS(threads, blocks) extern "C" __global__ __launch_bounds__(threads, blocks)
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define SHARED(type, name) \
  extern __shared__ __align__(16) char deixis_shared[]; \
  type* name = reinterpret_cast<type*>(deixis_shared)
#endif

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;

struct half_t {
  unsigned short bits;
};
struct bf16_t {
  unsigned short bits;
};

#ifdef DEIXIS_HOST
DEVICE float f(half_t h) { return deixis_host::half_to_float(h.bits); }
DEVICE void put(half_t* to, float v) { to->bits = deixis_host::float_to_half(v); }
#else
DEVICE float f(half_t h) {
  float v;
  asm("{ cvt.f32.f16 %0, %1; }" : "=f"(v) : "h"(h.bits));
  return v;
}
DEVICE void put(half_t* to, float v) {
  asm("{ cvt.rn.f16.f32 %0, %1; }" : "=h"(to->bits) : "f"(v));
}
#endif
DEVICE float f(float v) { return v; }
DEVICE float f(bf16_t b) { return __uint_as_float(static_cast<u32>(b.bits) << 16); }
DEVICE void put(float* to, float v) { *to = v; }
// Rounds to nearest even; a NaN stays one.
DEVICE void put(bf16_t* to, float v) {
  u32 bits = __float_as_uint(v);
  to->bits = (bits & 0x7fffffffu) > 0x7f800000u ? static_cast<unsigned short>(bits >> 16 | 0x40)
                                                : static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

#if DEIXIS_T == 1
typedef half_t T;
#elif DEIXIS_T == 2
typedef bf16_t T;
#else
typedef float T;
#endif

// ---- sixteen bytes at a time: what one load or store instruction moves at most. Pointers must be
// aligned to 16 bytes; `aligned` says whether they are.

template <class U>
struct Pack {
  static const int N = 16 / sizeof(U);
  float v[16 / sizeof(U)];
};

template <class U>
DEVICE Pack<U> load_pack(const U* from) {
  int4 words = *reinterpret_cast<const int4*>(from);
  U raw[Pack<U>::N];
  memcpy(raw, &words, sizeof(words));
  Pack<U> p;
#pragma unroll
  for (int i = 0; i < Pack<U>::N; i++) p.v[i] = f(raw[i]);
  return p;
}

template <class U>
DEVICE void store_pack(U* to, const Pack<U>& p) {
  U raw[Pack<U>::N];
#pragma unroll
  for (int i = 0; i < Pack<U>::N; i++) put(raw + i, p.v[i]);
  int4 words;
  memcpy(&words, raw, sizeof(words));
  *reinterpret_cast<int4*>(to) = words;
}

DEVICE bool aligned(const void* p) { return (reinterpret_cast<u64>(p) & 15) == 0; }

#define NEGATIVE_INFINITY __uint_as_float(0xff800000u)
#define WARP 32
#define ALL_LANES 0xffffffffu

// Element i of an array whose type is known at run time: 0 fp32, 1 fp16, 2 bf16, 3 u8, 4 i32.
DEVICE float element(const void* x, int type, i64 i) {
  switch (type) {
    case 0: return static_cast<const float*>(x)[i];
    case 1: return f(static_cast<const half_t*>(x)[i]);
    case 2: return f(static_cast<const bf16_t*>(x)[i]);
    case 3: return static_cast<const unsigned char*>(x)[i];
    default: return static_cast<float>(static_cast<const int*>(x)[i]);
  }
}
DEVICE void put_element(void* y, int type, i64 i, float v) {
  switch (type) {
    case 0: static_cast<float*>(y)[i] = v; break;
    case 1: put(static_cast<half_t*>(y) + i, v); break;
    default: put(static_cast<bf16_t*>(y) + i, v);
  }
}

#define GRID_STRIDE(i, n) \
  for (i64 i = blockIdx.x * static_cast<i64>(blockDim.x) + threadIdx.x; i < (n); \
       i += static_cast<i64>(gridDim.x) * blockDim.x)

DEVICE float warp_sum(float v) {
  for (int d = WARP / 2; d > 0; d >>= 1) v += __shfl_xor_sync(ALL_LANES, v, d);
  return v;
}
DEVICE float warp_max(float v) {
  for (int d = WARP / 2; d > 0; d >>= 1) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, d));
  return v;
}

// Rows are shared out to groups of blockDim.x threads: either one warp a row and several rows a
// block, or a whole block of several warps for a row. The sum is the same for every thread of the
// group; `scratch` holds one float a warp, and is free again when the call returns.
DEVICE float group_sum(float v, float* scratch) {
  v = warp_sum(v);
  int warps = blockDim.x / WARP;
  if (warps == 1) return v;
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = v;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < warps; w++) sum += scratch[w];
  __syncthreads();
  return sum;
}
DEVICE float group_max(float v, float* scratch) {
  v = warp_max(v);
  int warps = blockDim.x / WARP;
  if (warps == 1) return v;
  if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = v;
  __syncthreads();
  float best = NEGATIVE_INFINITY;
  for (int w = 0; w < warps; w++) best = fmaxf(best, scratch[w]);
  __syncthreads();
  return best;
}

DEVICE float sigmoid(float x) { return x >= 0 ? 1 / (1 + expf(-x)) : expf(x) / (1 + expf(x)); }

// ---- bilinear sampling along one axis: output o of `to` reads two of `from` sources
// (align_corners = false), and which outputs may read a source

struct Tap {
  int low, high;
  float share;
};

DEVICE Tap tap(int o, int from, int to) {
  float at = (o + 0.5f) * from / to - 0.5f;
  if (at < 0) at = 0;
  Tap t;
  t.low = min(static_cast<int>(at), from - 1);
  t.high = min(t.low + 1, from - 1);
  t.share = at - t.low;
  return t;
}

// Weight with which output o reads source s.
DEVICE float tap_weight(int o, int s, int from, int to) {
  Tap t = tap(o, from, to);
  return (t.low == s ? 1 - t.share : 0) + (t.high == s ? t.share : 0);
}

// First and last output that can read source s.
DEVICE int first_reader(int s, int from, int to) {
  return s == 0 ? 0 : max(0, static_cast<int>((s - 0.5f) * to / from - 0.5f) - 1);
}
DEVICE int last_reader(int s, int from, int to) {
  return s == from - 1 ? to - 1 : min(to - 1, static_cast<int>((s + 1.5f) * to / from - 0.5f) + 1);
}
