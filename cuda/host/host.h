// CUDA's language on the CPU: enough of it for the kernels of this folder. Included instead of the
// compiler's own built-ins when DEIXIS_HOST is defined, with DEIXIS_HOST_ORDER. One fiber stands for one CUDA thread; the
// scheduler is in driver.cpp.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

#define KERNEL extern "C"
#define KERNEL_BOUNDS(threads, blocks) extern "C"  // CudaHost reads the bounds from the file
#define DEVICE static inline
#define DEVICE_MEMBER inline
#define __align__(n) alignas(n)
#define __restrict__ __restrict
#define SHARED(type, name) type* name = reinterpret_cast<type*>(deixis_host::shared)

struct deixis_dim3 {
  unsigned x, y, z;
};

namespace deixis_host {
extern deixis_dim3 block_index, block_size, grid_size;
extern deixis_dim3* thread_index;  // of the fiber that runs
extern char* shared;               // the block's dynamic shared memory

void barrier();
// Gives each lane of the warp the 32 bits that lane `source` brought.
uint32_t exchange(uint32_t value, int source);
// A bit for each lane of the warp: whether it brought anything but 0.
uint32_t ballot(uint32_t value);
// Makes the launch fail when an address is no multiple of the bytes that it is to move at once.
void check_aligned(const void* address, size_t bytes);
// Gives each lane of the warp what all 32 brought, `count` words each, until its next exchange but one.
struct Words {
  uint32_t word[6];
};
const Words* share(const uint32_t* own, int count);

using Entry = void (*)(const char* arguments);
// `bytes` of its parameters, the most threads of a block that it was compiled for, and the order in which they run:
// forward, reverse, or a number that seeds a shuffle.
struct Registration {
  Registration(const char* name, Entry entry, size_t bytes, unsigned threads, const char* order);
};

// Where the last parameter ends: what a launch's buffer must hold, without padding at its tail.
template <class... A>
constexpr size_t parameter_bytes(void (*)(A...)) {
  size_t sizes[] = {sizeof(A)..., 1}, at = 0;
  for (size_t i = 0; i < sizeof...(A); i++) at = (at + sizes[i] - 1) / sizes[i] * sizes[i] + sizes[i];
  return at;
}

// Unpacks arguments laid out as a launch's parameter buffer, each at a multiple of its size.
template <class... A, size_t... I>
void unpack(void (*kernel)(A...), const char* buffer, std::index_sequence<I...>) {
  size_t offsets[sizeof...(A) + 1] = {};
  size_t sizes[] = {sizeof(A)..., 1};
  size_t at = 0;
  for (size_t i = 0; i < sizeof...(A); i++) {
    at = (at + sizes[i] - 1) / sizes[i] * sizes[i];
    offsets[i] = at;
    at += sizes[i];
  }
  std::tuple<A...> values;
  (std::memcpy(&std::get<I>(values), buffer + offsets[I], sizeof(A)), ...);
  kernel(std::get<I>(values)...);
}
template <class... A>
void call(void (*kernel)(A...), const char* buffer) {
  unpack(kernel, buffer, std::index_sequence_for<A...>());
}

inline float half_to_float(uint16_t h) {
  uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | mantissa << 13;
  } else if (exponent != 0) {
    bits = sign | (exponent + 112) << 23 | mantissa << 13;
  } else {
    float v = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -v : v;
  }
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}
inline uint16_t float_to_half(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  uint16_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return sign | 0x7e00;
  if (bits >= 0x477ff000u) return sign | 0x7c00;  // rounds to infinity
  if (bits < 0x38800000u) {                         // subnormal: the addition rounds to even
    float a;
    std::memcpy(&a, &bits, 4);
    a += 0.5f;
    std::memcpy(&bits, &a, 4);
    return sign | static_cast<uint16_t>(bits - 0x3f000000u);
  }
  bits += 0xfffu + (bits >> 13 & 1) - (112u << 23);
  return sign | static_cast<uint16_t>(bits >> 13);
}
}  // namespace deixis_host

#define DEIXIS_EXPORT(name, threads) \
  static void name##_entry(const char* a) { deixis_host::call(name, a); } \
  static deixis_host::Registration name##_registration(#name, name##_entry, deixis_host::parameter_bytes(name), threads, \
                                                        DEIXIS_HOST_ORDER);

struct alignas(16) int4 {
  int x, y, z, w;
};

#define threadIdx (*deixis_host::thread_index)
#define blockIdx deixis_host::block_index
#define blockDim deixis_host::block_size
#define gridDim deixis_host::grid_size
#define __syncthreads deixis_host::barrier

static inline uint32_t __float_as_uint(float v) {
  uint32_t b;
  std::memcpy(&b, &v, 4);
  return b;
}
static inline float __uint_as_float(uint32_t b) {
  float v;
  std::memcpy(&v, &b, 4);
  return v;
}
static inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint64_t>(a) * b >> 32; }
static inline int deixis_lane() { return deixis_host::thread_index->x % 32; }
static inline float __shfl_xor_sync(unsigned, float v, int mask) {
  return __uint_as_float(deixis_host::exchange(__float_as_uint(v), deixis_lane() ^ mask));
}
static inline uint32_t __shfl_xor_sync(unsigned, uint32_t v, int mask) {
  return deixis_host::exchange(v, deixis_lane() ^ mask);
}
static inline float __shfl_sync(unsigned, float v, int lane) {
  return __uint_as_float(deixis_host::exchange(__float_as_uint(v), lane));
}
static inline int __shfl_sync(unsigned, int v, int lane) {
  return static_cast<int>(deixis_host::exchange(static_cast<uint32_t>(v), lane));
}
static inline uint32_t __ballot_sync(unsigned, int v) { return deixis_host::ballot(v != 0); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline void __syncwarp() { deixis_host::exchange(0, 0); }
static inline float rsqrtf(float v) { return 1 / std::sqrt(v); }
using std::abs;
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline long long min(long long a, long long b) { return a < b ? a : b; }
static inline long long max(long long a, long long b) { return a > b ? a : b; }
