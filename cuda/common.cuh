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
DEVICE float f(unsigned char v) { return v; }
DEVICE float f(int v) { return static_cast<float>(v); }
DEVICE float f(bf16_t b) { return __uint_as_float(static_cast<u32>(b.bits) << 16); }
DEVICE void put(float* to, float v) { *to = v; }
// Rounds to nearest even; a NaN stays one.
DEVICE void put(bf16_t* to, float v) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("{ cvt.rn.bf16.f32 %0, %1; }" : "=h"(to->bits) : "f"(v));
#else
  u32 bits = __float_as_uint(v);
  to->bits = (bits & 0x7fffffffu) > 0x7f800000u ? static_cast<unsigned short>(bits >> 16 | 0x40)
                                                : static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
#endif
}

#if DEIXIS_T == 1
typedef half_t T;
#elif DEIXIS_T == 2
typedef bf16_t T;
#else
typedef float T;
#endif

// ---- several elements by one instruction: sixteen bytes are what one load or store moves at most.
// Addresses must be multiples of what is moved; `aligned` says whether they are.

template <int BYTES>
struct Words;
template <>
struct Words<2> {
  typedef unsigned short type;
};
template <>
struct Words<4> {
  typedef u32 type;
};
template <>
struct Words<8> {
  typedef u64 type;
};
template <>
struct Words<16> {
  typedef int4 type;
};

#ifdef DEIXIS_HOST
// The stand-in reports an address that the device would trap on.
template <int BYTES>
DEVICE typename Words<BYTES>::type load_words(const void* from) {
  deixis_host::check_aligned(from, BYTES);
  typename Words<BYTES>::type words;
  memcpy(&words, from, BYTES);
  return words;
}
template <int BYTES>
DEVICE void store_words(void* to, typename Words<BYTES>::type words) {
  deixis_host::check_aligned(to, BYTES);
  memcpy(to, &words, BYTES);
}
#else
template <int BYTES>
DEVICE typename Words<BYTES>::type load_words(const void* from) {
  return *static_cast<const typename Words<BYTES>::type*>(from);
}
template <int BYTES>
DEVICE void store_words(void* to, typename Words<BYTES>::type words) {
  *static_cast<typename Words<BYTES>::type*>(to) = words;
}
#endif

// Sixteen bytes that no block reads again and none writes: they do not push others out of the
// multiprocessor's cache.
DEVICE int4 load_once(const void* from) {
#ifdef DEIXIS_HOST
  return load_words<16>(from);
#else
  int4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
#endif
}

template <int COUNT, class U>
DEVICE void load_some(const U* from, float* v) {
  typename Words<COUNT * sizeof(U)>::type words = load_words<COUNT * sizeof(U)>(from);
  U raw[COUNT];
  memcpy(raw, &words, sizeof(words));
#pragma unroll
  for (int i = 0; i < COUNT; i++) v[i] = f(raw[i]);
}

template <int COUNT, class U>
DEVICE void store_some(U* to, const float* v) {
  U raw[COUNT];
#pragma unroll
  for (int i = 0; i < COUNT; i++) put(raw + i, v[i]);
  typename Words<COUNT * sizeof(U)>::type words;
  memcpy(&words, raw, sizeof(words));
  store_words<COUNT * sizeof(U)>(to, words);
}

template <class U>
struct Pack {
  static const int N = 16 / sizeof(U);
  float v[16 / sizeof(U)];
};

template <class U>
DEVICE Pack<U> load_pack(const U* from) {
  Pack<U> p;
  load_some<Pack<U>::N>(from, p.v);
  return p;
}

template <class U>
DEVICE void store_pack(U* to, const Pack<U>& p) {
  store_some<Pack<U>::N>(to, p.v);
}

DEVICE bool aligned(const void* p) { return (reinterpret_cast<u64>(p) & 15) == 0; }

// Whether four elements from here on can be moved at once.
template <class U>
DEVICE bool aligned_four(const U* p) {
  return (reinterpret_cast<u64>(p) & (4 * sizeof(U) - 1)) == 0;
}

// N elements from `at` on, a multiple of four, of an aligned array whose type is known at run time:
// 0 fp32, 1 fp16, 2 bf16.
template <int N>
DEVICE void load_typed(const void* from, int type, int at, float* v) {
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    switch (type) {
      case 0: load_some<4>(static_cast<const float*>(from) + at + i, v + i); break;
      case 1: load_some<4>(static_cast<const half_t*>(from) + at + i, v + i); break;
      default: load_some<4>(static_cast<const bf16_t*>(from) + at + i, v + i);
    }
  }
}

// i / by, and what remains, for i >= 0 and by > 0: in 32 bits where they do, a quarter of the work.
DEVICE i64 split(i64 i, i64 by, i64* rest) {
  i64 q = ((i | by) >> 32) == 0 ? static_cast<i64>(static_cast<u32>(i) / static_cast<u32>(by)) : i / by;
  *rest = i - q * by;
  return q;
}

// Elements from `from(i)` of x to `to(i)` of y, as bits; zeros where `from` is negative. A block's
// tile is K packs a thread, all loads before the first store. `wide`: n is whole packs, and both
// indices go on by 1 within one and begin at multiples of one.
template <int K, class U, class From, class To>
DEVICE void move_tile(bool wide, i64 n, const U* x, U* y, From from, To to) {
  const int N = Pack<U>::N;
  i64 tile = blockIdx.x * static_cast<i64>(blockDim.x * K * N);
  if (wide) {
    int4 words[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * N;
      i64 at = i < n ? from(i) : -1;
      if (at >= 0) {
        words[k] = load_words<16>(x + at);
      } else {
        words[k].x = words[k].y = words[k].z = words[k].w = 0;
      }
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
      i64 i = tile + (k * blockDim.x + threadIdx.x) * N;
      if (i < n) store_words<16>(y + to(i), words[k]);
    }
    return;
  }
  for (int part = 0; part < N; part++) {
    U element[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
      i64 i = tile + (part * K + k) * blockDim.x + threadIdx.x;
      i64 at = i < n ? from(i) : -1;
      if (at >= 0) {
        element[k] = x[at];
      } else {
        put(element + k, 0);
      }
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
      i64 i = tile + (part * K + k) * blockDim.x + threadIdx.x;
      if (i < n) y[to(i)] = element[k];
    }
  }
}

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

DEVICE float sigmoid(float x) {
  float e = expf(-fabsf(x));
  return (x >= 0 ? 1 : e) / (1 + e);
}

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
