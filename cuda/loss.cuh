// The loss of one element and its slope, for loss.cu and mask_loss.cu.
//
//   bce(z, t) = max(z, 0) − z t + log(1 + exp(−|z|));  focal: α u^γ bce, u = 1 − exp(−bce)
#pragma once
#include "common.cuh"

DEVICE float bce(float z, float t) { return fmaxf(z, 0) - z * t + log1pf(expf(-fabsf(z))); }

// e^x for x ≤ 0, and 1 / x for x in (1, 2], by the special function units: to two units in the last place beside 0
// and |x| of them at most further out.
#ifdef DEIXIS_HOST
DEVICE float quick_exp(float x) { return expf(x); }
DEVICE float quick_inverse(float x) { return 1 / x; }
#else
DEVICE float quick_exp(float x) { return __expf(x); }
DEVICE float quick_inverse(float x) { return __fdividef(1.0f, x); }
#endif

DEVICE float element_loss(int focal, float alpha, float gamma, float z, float t) {
  float e = bce(z, t);
  return focal ? alpha * powf(-expm1f(-e), gamma) * e : e;
}

// d/dz; where u is 0 the inner term vanishes with bce.
DEVICE float element_slope(int focal, float alpha, float gamma, float z, float t) {
  float slope = sigmoid(z) - t;
  if (!focal) return slope;
  float e = bce(z, t), u = -expm1f(-e);
  float inner = u == 0 ? 0 : gamma * powf(u, gamma - 1) * (1 - u) * e;
  return alpha * (inner + powf(u, gamma)) * slope;
}
