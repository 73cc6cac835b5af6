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
// Bytes a parameter: norm 4; step 28 (p, m, v in and out, g in), and 2 for the half copy.
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

KERNEL void gradient_squares(const Gradient* table, const Piece* pieces, int length, float* partial) {
  SHARED(float, scratch);
  Piece p = pieces[blockIdx.x];
  Gradient g = table[p.array];
  i64 last = min(p.first + length, g.size);
  float sum = 0;
  for (i64 i = p.first + threadIdx.x; i < last; i += blockDim.x) {
    float v = element(g.data, static_cast<int>(g.type), i);
    sum += v * v;
  }
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

KERNEL void adamw(const Slot* table, const Piece* pieces, int length, float beta1, float beta2, float eps,
                  const float* control) {
  if (control[OVERFLOW] != 0) return;
  Piece p = pieces[blockIdx.x];
  Slot s = table[p.array];
  i64 last = min(p.first + length, s.size);
  float t = control[STEP] + 1, clip = control[CLIP], rate = control[LR] * s.rateFactor;
  float unbias1 = 1 - powf(beta1, t), unbias2 = 1 - powf(beta2, t);
  for (i64 i = p.first + threadIdx.x; i < last; i += blockDim.x) {
    float g = clip * element(s.gradient, s.gradientType, i);
    float m = beta1 * s.m[i] + (1 - beta1) * g, v = beta2 * s.v[i] + (1 - beta2) * g * g;
    float w = s.parameter[i];
    w -= rate * s.weightDecay * w;
    w -= rate * (m / unbias1) / (sqrtf(v / unbias2) + eps);
    s.m[i] = m;
    s.v[i] = v;
    s.parameter[i] = w;
    if (s.half) put_element(s.half, s.halfType, i, w);
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
