// What the attentions on the tensor cores share: rows of a head in shared memory, products over them, and
// softmax on a product's accumulators. window_attention_mma.cu says how rows are laid out and why.
#pragma once
#include "mma.cuh"

#if MMA

#define LOG2E 1.44269504f
#define LN2 0.69314718f

#define POSITIVE_INFINITY __uint_as_float(0x7f800000u)

template <int TILES, int PLANES>
struct Sizes {
  static const int WARPS_ = (TILES + 1) / 2;
  static const int ROWS = 16 * WARPS_;
  static const int THREADS = 32 * WARPS_;
  static const int PLANE = 32 * ROWS;         // elements
  static const int PART = PLANES * PLANE;     // q, k, v or dy
};

DEVICE char* block_memory() {
  SHARED(char, memory);
  return memory;
}

// ---- sixteen bytes of a row of a head

DEVICE int4 get_chunk(const T* row, int c, int d) {
  if (!row || 8 * c >= d) return int4{0, 0, 0, 0};
  return load_words<16>(row + 8 * c);
}

DEVICE void put_chunk(T* row, int c, int d, const u32 (&w)[4]) {
  if (!row || 8 * c >= d) return;
  *reinterpret_cast<int4*>(row + 8 * c) =
      int4{static_cast<int>(w[0]), static_cast<int>(w[1]), static_cast<int>(w[2]), static_cast<int>(w[3])};
}

// Chunk c (8 elements) of a row of a plane.
DEVICE T* cell(T* plane, int row, int c) { return plane + 32 * row + ((c ^ (row >> 1 & 3)) << 3); }
DEVICE int4* words_at(T* plane, int row, int c) { return reinterpret_cast<int4*>(cell(plane, row, c)); }

DEVICE float pair_dot(u32 a, u32 b) { return lower(a) * lower(b) + upper(a) * upper(b); }
DEVICE float chunk_dot(int4 a, int4 b) {
  return pair_dot(a.x, b.x) + pair_dot(a.y, b.y) + pair_dot(a.z, b.z) + pair_dot(a.w, b.w);
}

// ---- products

// Sixteen rows as the left side of a product over their columns: of rows g and g + 8 the chunks t.
template <int PLANES>
struct Left {
  int4 top[PLANES], low[PLANES];
};

// c = left · (rows 8·tile to 8·tile + 7)ᵀ.
template <int PLANES>
DEVICE void outer(float (&c)[4], const Left<PLANES>& a, T* right, int plane, int tile) {
  int lane = threadIdx.x % WARP;
  c[0] = c[1] = c[2] = c[3] = 0;
#pragma unroll
  for (int p = 0; p < PLANES; p++) {
    int4 b = *words_at(right + p * plane, 8 * tile + lane / 4, lane % 4);
    mma(c, a.top[p].x, a.low[p].x, a.top[p].y, a.low[p].y, b.x, b.y);
    mma(c, a.top[p].z, a.low[p].z, a.top[p].w, a.low[p].w, b.z, b.w);
  }
}

// Where this lane points at sixteen rows of a part, for transposed reads of columns 0 to 15 and 16 to
// 31 of a plane.
struct Lanes {
  u32 first, second;
};
DEVICE Lanes lanes_of(T* part) {
  int lane = threadIdx.x % WARP;
  return Lanes{shared_address(cell(part, lane % 16, lane / 16)), shared_address(cell(part, lane % 16, 2 + lane / 16))};
}

// c += a · (16 rows that lie OFFSET bytes behind `right`), PLANE bytes a plane.
template <int PLANES, int PLANE, int OFFSET, int P = 0>
DEVICE void inner(float (&c)[4 * PLANES][4], u32 a0, u32 a1, u32 a2, u32 a3, Lanes right) {
  u32 b[4];
  load_transposed<OFFSET + P * PLANE>(b, right.first);
  mma(c[4 * P], a0, a1, a2, a3, b[0], b[1]);
  mma(c[4 * P + 1], a0, a1, a2, a3, b[2], b[3]);
  load_transposed<OFFSET + P * PLANE>(b, right.second);
  mma(c[4 * P + 2], a0, a1, a2, a3, b[0], b[1]);
  mma(c[4 * P + 3], a0, a1, a2, a3, b[2], b[3]);
  if constexpr (P + 1 < PLANES) inner<PLANES, PLANE, OFFSET, P + 1>(c, a0, a1, a2, a3, right);
}

template <int PLANES>
DEVICE void clear(float (&c)[4 * PLANES][4]) {
#pragma unroll
  for (int i = 0; i < 4 * PLANES; i++) c[i][0] = c[i][1] = c[i][2] = c[i][3] = 0;
}

// c += a · all keys from step K of 16 on; of a, each lane holds its pairs.
template <int TILES, int PLANES, int K = 0>
DEVICE void over_keys(float (&c)[4 * PLANES][4], const u32 (&a)[TILES][2], Lanes right) {
  using S = Sizes<TILES, PLANES>;
  if constexpr (2 * K + 1 < TILES) {
    inner<PLANES, 2 * S::PLANE, 1024 * K>(c, a[2 * K][0], a[2 * K][1], a[2 * K + 1][0], a[2 * K + 1][1], right);
    over_keys<TILES, PLANES, K + 1>(c, a, right);
  } else if constexpr (2 * K < TILES) {
    inner<PLANES, 2 * S::PLANE, 1024 * K>(c, a[2 * K][0], a[2 * K][1], 0, 0, right);
  }
}

// Writes rows g (times a) and g + 8 (times b) of an accumulator; a null row is left out.
template <int PLANES>
DEVICE void store_rows(T* top, T* low, const float (&c)[4 * PLANES][4], float a, float b, int d) {
  int t = threadIdx.x % 4;
#pragma unroll
  for (int p = 0; p < PLANES; p++) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      u32 w[4];
      float by = h ? b : a;
#pragma unroll
      for (int j = 0; j < 4; j++) w[j] = pack_pair(by * c[4 * p + j][2 * h], by * c[4 * p + j][2 * h + 1]);
      quad_transpose(w, t);
      put_chunk(h ? low : top, 4 * p + t, d, w);
    }
  }
}

// ---- softmax

// Of rows g and g + 8 the highest score, in powers of two, and Σ 2^(score − highest).
struct Softmax {
  float top, low, topSum, lowSum;

  // What the rows' log-sum-exp is.
  DEVICE_MEMBER float top_lse() const { return LN2 * (top + log2f(topSum)); }
  DEVICE_MEMBER float low_lse() const { return LN2 * (low + log2f(lowSum)); }
};

// Raises the highest to those of these scores.
template <int TILES>
DEVICE void raise(Softmax& x, const float (&s)[TILES][4]) {
#pragma unroll
  for (int tile = 0; tile < TILES; tile++) {
    x.top = fmaxf(x.top, fmaxf(s[tile][0], s[tile][1]));
    x.low = fmaxf(x.low, fmaxf(s[tile][2], s[tile][3]));
  }
  x.top = quad_max(x.top);
  x.low = quad_max(x.low);
}

// p = 2^(s − top, low) as pairs of halves; the sums get what this lane has of them.
template <int TILES>
DEVICE void weigh(Softmax& x, const float (&s)[TILES][4], float top, float low, u32 (&p)[TILES][2]) {
#pragma unroll
  for (int tile = 0; tile < TILES; tile++) {
    float a = exp2_approximate(s[tile][0] - top), b = exp2_approximate(s[tile][1] - top);
    float c = exp2_approximate(s[tile][2] - low), e = exp2_approximate(s[tile][3] - low);
    x.topSum += a + b;
    x.lowSum += c + e;
    p[tile][0] = pack_pair(a, b);
    p[tile][1] = pack_pair(c, e);
  }
}

// p = 2^(s − highest) as pairs of halves, from scores in powers of two.
template <int TILES>
DEVICE Softmax soften(const float (&s)[TILES][4], u32 (&p)[TILES][2]) {
  Softmax x = {NEGATIVE_INFINITY, NEGATIVE_INFINITY, 0, 0};
  raise(x, s);
  weigh(x, s, x.top, x.low, p);
  x.topSum = quad_sum(x.topSum);
  x.lowSum = quad_sum(x.lowSum);
  return x;
}

#endif
