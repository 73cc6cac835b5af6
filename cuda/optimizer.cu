// The gradient's norm and AdamW over all parameters at once, with unscaling, overflow check, clipping
// and the half-precision copy in the same pass; learning rate, step and loss scale are read from the
// control array on the device (slots: org.deixis.backend.AdamW), so that nothing waits for them.
//
// A table in device memory lists the arrays; each block takes one piece of `PIECE` elements of one of
// them: pieces[block] = {array, first element}. Launch: as many blocks as pieces, 256 threads.
//
//   m ← β1 m + (1 − β1) g,  v ← β2 v + (1 − β2) g²,  g = CLIP · gradient
//   p ← p − rate·decay·p;  p ← p − rate · (m/(1 − β1ᵗ)) / (√(v/(1 − β2ᵗ)) + ε)
//
// Four elements by a load (16 bytes of fp32, 8 of a half type), 4 or 8 loads in flight a thread; what
// is left of an array, and arrays that are not aligned so far, go element by element.
//
// Bytes a parameter: norm 4 (2 for half gradients); step 28 (p, m, v in and out, g in; 26 for half
// gradients), and 2 for the half copy.
#include "common.cuh"

#define LR 0
#define STEP 1
#define SCALE 2
#define GOOD 3
#define OVERFLOW 4
#define NORM 5
#define CLIP 6
#define SKIPPED 7

struct Gradient {
  const void* data;
  i64 size;
  i64 type;
};
struct Slot {
  float* parameter;
  const void* gradient;
  float* m;
  float* v;
  void* half;
  i64 size;
  int gradientType, halfType;
  float rateFactor, weightDecay;
};
struct Piece {
  i64 array, first;
};

// Sum of the squares of a thread's share of [first, last): four elements by a load, four loads in
// flight.
template <class G>
DEVICE float squares(const G* g, i64 first, i64 last) {
  float sum = 0;
  i64 at = first;
  if (aligned_four(g + first)) {
    i64 stride = 4 * static_cast<i64>(blockDim.x);
    for (; at + 4 * stride <= last; at += 4 * stride) {
      float v[4][4];
#pragma unroll
      for (int k = 0; k < 4; k++) load_some<4>(g + at + k * stride + 4 * threadIdx.x, v[k]);
#pragma unroll
      for (int k = 0; k < 4; k++) sum += v[k][0] * v[k][0] + v[k][1] * v[k][1] + v[k][2] * v[k][2] + v[k][3] * v[k][3];
    }
  }
  for (i64 i = at + threadIdx.x; i < last; i += blockDim.x) {
    float v = f(g[i]);
    sum += v * v;
  }
  return sum;
}

KERNEL void gradient_squares(const Gradient* table, const Piece* pieces, int length, float* partial) {
  SHARED(float, scratch);
  Piece p = pieces[blockIdx.x];
  Gradient g = table[p.array];
  i64 last = min(p.first + length, g.size);
  float sum = g.type == 0   ? squares(static_cast<const float*>(g.data), p.first, last)
              : g.type == 1 ? squares(static_cast<const half_t*>(g.data), p.first, last)
                            : squares(static_cast<const bf16_t*>(g.data), p.first, last);
  sum = group_sum(sum, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// One block.
KERNEL void gradient_norm(int pieces, const float* partial, float maxNorm, float* control) {
  SHARED(float, scratch);
  float sum = 0;
  for (int i = threadIdx.x; i < pieces; i += blockDim.x) sum += partial[i];
  sum = group_sum(sum, scratch);
  if (threadIdx.x == 0) {
    float norm = sqrtf(sum) / control[SCALE];
    control[NORM] = norm;
    control[OVERFLOW] = norm - norm == 0 ? 0 : 1;  // not for infinities and NaN
    control[CLIP] = (maxNorm > 0 ? fminf(1, maxNorm / (norm + 1e-6f)) : 1) / control[SCALE];
  }
}

// What is the same for all elements of a slot.
struct Rule {
  float beta1, beta2, eps, clip, rate, decay, unbias1, unbias2;
};

DEVICE void update(const Rule& r, float gradient, float& w, float& m, float& v) {
  float g = r.clip * gradient;
  m = r.beta1 * m + (1 - r.beta1) * g;
  v = r.beta2 * v + (1 - r.beta2) * g * g;
  w -= r.decay * w;
  w -= r.rate * (m * r.unbias1) / (sqrtf(v * r.unbias2) + r.eps);
}

// Four elements by a load, eight loads in flight. H is the type of the half copy, float for none.
template <class G, class H>
DEVICE void step(const Rule& r, const Slot& s, i64 first, i64 last) {
  const G* gradient = static_cast<const G*>(s.gradient);
  H* half = static_cast<H*>(s.half);
  i64 at = first;
  if (aligned_four(s.parameter + first) && aligned_four(s.m + first) && aligned_four(s.v + first) &&
      aligned_four(gradient + first) && aligned_four(half + first)) {
    i64 stride = 4 * static_cast<i64>(blockDim.x);
    for (; at + 2 * stride <= last; at += 2 * stride) {
      float w[2][4], m[2][4], v[2][4], g[2][4];
#pragma unroll
      for (int k = 0; k < 2; k++) {
        i64 i = at + k * stride + 4 * threadIdx.x;
        load_some<4>(gradient + i, g[k]);
        load_some<4>(s.m + i, m[k]);
        load_some<4>(s.v + i, v[k]);
        load_some<4>(s.parameter + i, w[k]);
      }
#pragma unroll
      for (int k = 0; k < 2; k++) {
        i64 i = at + k * stride + 4 * threadIdx.x;
#pragma unroll
        for (int e = 0; e < 4; e++) update(r, g[k][e], w[k][e], m[k][e], v[k][e]);
        store_some<4>(s.m + i, m[k]);
        store_some<4>(s.v + i, v[k]);
        store_some<4>(s.parameter + i, w[k]);
        if (half) store_some<4>(half + i, w[k]);
      }
    }
  }
  for (i64 i = at + threadIdx.x; i < last; i += blockDim.x) {
    float w = s.parameter[i], m = s.m[i], v = s.v[i];
    update(r, f(gradient[i]), w, m, v);
    s.m[i] = m;
    s.v[i] = v;
    s.parameter[i] = w;
    if (half) put(half + i, w);
  }
}

template <class G>
DEVICE void step_of(const Rule& r, const Slot& s, i64 first, i64 last) {
  switch (s.half ? s.halfType : 0) {
    case 0: step<G, float>(r, s, first, last); break;
    case 1: step<G, half_t>(r, s, first, last); break;
    default: step<G, bf16_t>(r, s, first, last);
  }
}

KERNEL void adamw(const Slot* table, const Piece* pieces, int length, float beta1, float beta2, float eps,
                  const float* control) {
  if (control[OVERFLOW] != 0) return;
  Piece p = pieces[blockIdx.x];
  Slot s = table[p.array];
  i64 last = min(p.first + length, s.size);
  float t = control[STEP] + 1, rate = control[LR] * s.rateFactor;
  Rule r = {beta1, beta2, eps, control[CLIP], rate, rate * s.weightDecay, 1 / (1 - powf(beta1, t)), 1 / (1 - powf(beta2, t))};
  switch (s.gradientType) {
    case 0: step_of<float>(r, s, p.first, last); break;
    case 1: step_of<half_t>(r, s, p.first, last); break;
    default: step_of<bf16_t>(r, s, p.first, last);
  }
}

// One thread.
KERNEL void advance(int growthInterval, float* control) {
  if (control[OVERFLOW] != 0) {
    control[SCALE] = fmaxf(1, control[SCALE] / 2);
    control[GOOD] = 0;
    control[SKIPPED] += 1;
    return;
  }
  control[STEP] += 1;
  control[GOOD] += 1;
  if (growthInterval > 0 && control[GOOD] >= growthInterval) {
    control[SCALE] *= 2;
    control[GOOD] = 0;
  }
}
