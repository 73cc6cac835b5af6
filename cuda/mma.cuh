// Warp-wide matrix products on the tensor cores, by inline PTX, each with a plain twin for the CPU
// stand-in. A fragment is what one lane holds; with g = lane / 4 and t = lane % 4, and each u32 a
// pair of halves, the lower column in the lower half (PTX ISA, "Matrix fragments for
// mma.m16n8k16"):
//   A, 16×16  a0 = (g; 2t, 2t+1)  a1 = (g+8; …)  a2 = (g; 2t+8, 2t+9)  a3 = (g+8; 2t+8, 2t+9)
//   B, 16×8   b0 = (2t, 2t+1; g)  b1 = (2t+8, 2t+9; g)
//   C, 16×8   c0, c1 = (g; 2t, 2t+1)  c2, c3 = (g+8; 2t, 2t+1), fp32
// C's layout is that of A's halves: the accumulators of one product, rounded, are the left side of
// the next.
//
// MMA is 1 where these exist: fp16 from sm_75 on (there as two products of depth 8), bf16 from
// sm_80 on, fp32 nowhere, since its products would lose thirteen bits.
#pragma once
#include "common.cuh"

#if DEIXIS_T == 0
#define MMA 0
#elif defined(__CUDA_ARCH__) && (__CUDA_ARCH__ < 750 || (__CUDA_ARCH__ < 800 && DEIXIS_T == 2))
#define MMA 0
#else
#define MMA 1
#endif

#if MMA

#ifdef DEIXIS_HOST

DEVICE float half_of(u32 word, int upper) {
  T h;
  h.bits = static_cast<unsigned short>(upper ? word >> 16 : word);
  return f(h);
}

DEVICE void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  u32 own[6] = {a0, a1, a2, a3, b0, b1};
  const deixis_host::Words* all = deixis_host::share(own, 6);
  int g = deixis_lane() / 4, t = deixis_lane() % 4;
  for (int k = 0; k < 16; k++) {
    int pair = k % 8 / 2, high = k / 8;
    float left[2], right[2];
    for (int i = 0; i < 2; i++) {
      left[i] = half_of(all[g * 4 + pair].word[2 * high + i], k & 1);
      right[i] = half_of(all[(2 * t + i) * 4 + pair].word[4 + high], k & 1);
    }
    for (int i = 0; i < 4; i++) c[i] += left[i / 2] * right[i % 2];
  }
}

DEVICE u32 shared_address(const void* p) {
  return static_cast<u32>(static_cast<const char*>(p) - deixis_host::shared);
}

template <int OFFSET>
DEVICE void load_straight(u32 (&w)[4], u32 row) {
  u32 own[1] = {row + OFFSET};
  if (own[0] & 15) __builtin_trap();  // as the device would
  const deixis_host::Words* all = deixis_host::share(own, 1);
  int g = deixis_lane() / 4, t = deixis_lane() % 4;
  for (int m = 0; m < 4; m++) memcpy(w + m, deixis_host::shared + all[m * 8 + g].word[0] + 4 * t, sizeof(w[m]));
}

template <int OFFSET>
DEVICE void load_transposed(u32 (&w)[4], u32 row) {
  u32 own[1] = {row + OFFSET};
  if (own[0] & 15) __builtin_trap();
  const deixis_host::Words* all = deixis_host::share(own, 1);
  int g = deixis_lane() / 4, t = deixis_lane() % 4;
  for (int m = 0; m < 4; m++) {
    unsigned short pair[2];
    for (int i = 0; i < 2; i++)
      memcpy(pair + i, deixis_host::shared + all[m * 8 + 2 * t + i].word[0] + 2 * g, sizeof(pair[i]));
    w[m] = pair[0] | static_cast<u32>(pair[1]) << 16;
  }
}

DEVICE u32 pack_pair(float low, float high) {
  T pair[2];
  put(pair, low);
  put(pair + 1, high);
  return pair[0].bits | static_cast<u32>(pair[1].bits) << 16;
}

DEVICE float exp2_approximate(float x) { return exp2f(x); }

DEVICE void copy_async(T* to, const T* from, bool there) {
  int4 words = {0, 0, 0, 0};
  if (there) words = load_words<16>(from);
  store_words<16>(to, words);
}
DEVICE void copy_pair_async(float* to, const float* from, bool there) {
  u64 words = 0;
  if (there) words = load_words<8>(from);
  store_words<8>(to, words);
}
DEVICE void wait_for_copies() {}

#else

// c += A B.
DEVICE void mma(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if __CUDA_ARCH__ < 800
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(b0));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a2), "r"(a3), "r"(b1));
#elif DEIXIS_T == 1
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#endif
}

DEVICE u32 shared_address(const void* p) {
  u32 at;
  asm("{ .reg .u64 p; cvta.to.shared.u64 p, %1; cvt.u32.u64 %0, p; }" : "=r"(at) : "l"(p));
  return at;
}

// Four 8×8 matrices of halves from shared memory: lane 8m + r brings the address of row r of matrix m
// (16 bytes, aligned; OFFSET is added, in the instruction and not in a register), and gets of matrix
// m columns 2t and 2t + 1 of row g.
template <int OFFSET>
DEVICE void load_straight(u32 (&w)[4], u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
               : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
               : "r"(row), "n"(OFFSET)
               : "memory");
}

// The same, transposed: rows 2t and 2t + 1 of column g. So rows of a matrix that runs over k give
// fragments of B, or of a transposed A.
template <int OFFSET>
DEVICE void load_transposed(u32 (&w)[4], u32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
               : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
               : "r"(row), "n"(OFFSET)
               : "memory");
}

// Sixteen bytes from global to shared memory, or zeros where there are none; `from` is a global
// address in either case. They are there when the lane has waited.
DEVICE void copy_async(T* to, const T* from, bool there) {
#if __CUDA_ARCH__ < 800
  *reinterpret_cast<int4*>(to) = there ? *reinterpret_cast<const int4*>(from) : int4{0, 0, 0, 0};
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(to)), "l"(from), "r"(there ? 16 : 0)
               : "memory");
#endif
}
// Two floats alike.
DEVICE void copy_pair_async(float* to, const float* from, bool there) {
#if __CUDA_ARCH__ < 800
  store_words<8>(to, there ? load_words<8>(from) : 0);
#else
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;"
               :
               : "r"(shared_address(to)), "l"(from), "r"(there ? 8 : 0)
               : "memory");
#endif
}
DEVICE void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Two floats, rounded to nearest even, as a pair of halves.
DEVICE u32 pack_pair(float low, float high) {
#if __CUDA_ARCH__ < 800
  T pair[2];
  put(pair, low);
  put(pair + 1, high);
  return pair[0].bits | static_cast<u32>(pair[1].bits) << 16;
#else
  u32 w;
#if DEIXIS_T == 1
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(high), "f"(low));
#else
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(high), "f"(low));
#endif
  return w;
#endif
}

// 2^x to two units in the last place.
DEVICE float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

#endif

DEVICE float lower(u32 pair) {
  T h;
  h.bits = static_cast<unsigned short>(pair);
  return f(h);
}
DEVICE float upper(u32 pair) {
  T h;
  h.bits = static_cast<unsigned short>(pair >> 16);
  return f(h);
}

// Over the four lanes that share a row of C.
DEVICE float quad_sum(float v) {
  v += __shfl_xor_sync(ALL_LANES, v, 1);
  return v + __shfl_xor_sync(ALL_LANES, v, 2);
}
DEVICE float quad_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, 1));
  return fmaxf(v, __shfl_xor_sync(ALL_LANES, v, 2));
}

// Lane t of a quad brings word t of four rows of 16 bytes, w[j] of row j, and gets row t whole: what
// C holds of a row becomes sixteen bytes a lane.
DEVICE void quad_transpose(u32 (&w)[4], int t) {
  bool odd = t & 1, high = t & 2;
#pragma unroll
  for (int j = 0; j < 4; j += 2) {
    u32 got = __shfl_xor_sync(ALL_LANES, odd ? w[j] : w[j + 1], 1);
    w[j] = odd ? got : w[j];
    w[j + 1] = odd ? w[j + 1] : got;
  }
#pragma unroll
  for (int j = 0; j < 2; j++) {
    u32 got = __shfl_xor_sync(ALL_LANES, high ? w[j] : w[j + 2], 2);
    w[j] = high ? got : w[j];
    w[j + 2] = high ? w[j + 2] : got;
  }
}

#endif
