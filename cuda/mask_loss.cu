// The mask's loss and its gradient in one pass over the bitmaps.
//
//   loss     mean over pixels of element(z, t) + dice·(1 − n/d), n = 2Σpt + 1, d = Σp + Σt + 1, z the logits up-sampled
//            bilinearly on the fly: neither they nor their gradients are ever stored at full resolution
//   gradient Σ over the pixels that read a logit, each with its weight, of element'/pixels + dice·(n − 2 t d)/d² p (1 − p).
//            n and d are known at the end only, so Σ element', Σ t p (1 − p) and Σ p (1 − p) are kept apart (PARTS 3,
//            or 1 without Dice) and put together at low resolution.
//   bce      with e = exp(−|z|) of several pixels, Σ log(1 + e) = log(1 + Π(1 + e) − 1): one logarithm for all, and the
//            product without its 1 keeps the digits of small e
//
// mask_bands_1, mask_bands_3, mask_bands_focal_1, mask_bands_focal_3: PARTS 1 or 3
//              grid (tiles of low columns, runs of low rows, pictures), 128 threads. Between two rows of logits lie the
//              full-resolution rows that mix both. A thread takes four columns: stretched logits of both rows once, then
//              four rows' targets in flight at a time, a load of four elements each; z by one multiply-add. What goes
//              back is summed per column over those rows, and narrowed along the row through shared memory, in order. What
//              the lower row receives waits there for its own band; at the end of a run it goes to `edges`.
//              Columns at a tile's rim are worked on by both tiles, and counted in the sums by one.
// mask_total   a thread a picture adds the blocks' sums in order: loss, n and d
// mask_send    a thread a logit
//
// Bytes: the bitmap and the logits once, 4·PARTS a logit written and read again, 4 a logit written. Operations: some 35 a
// pixel, with Dice 42, two of them exp and a quotient (counted in sm_90's instructions).
#include "loss.cuh"

#define COLUMNS 4  // of a thread at a time
#define ROWS 4     // whose targets are in flight
#define SUMS 4

#define MASK_ARGUMENTS int lowHeight, int lowWidth, int height, int width, float alpha, float gamma

DEVICE int element_bytes(int type) { return type == 3 ? 1 : type == 1 || type == 2 ? 2 : 4; }

// Four targets from element i on; with `wide` their address is a multiple of what they take, else
// those from `left` on are not there.
DEVICE void load_targets(const void* mask, int type, i64 i, int left, bool wide, float* t) {
  if (wide) {
    switch (type) {
      case 0: load_some<COLUMNS>(static_cast<const float*>(mask) + i, t); return;
      case 1: load_some<COLUMNS>(static_cast<const half_t*>(mask) + i, t); return;
      case 2: load_some<COLUMNS>(static_cast<const bf16_t*>(mask) + i, t); return;
      case 3: load_some<COLUMNS>(static_cast<const unsigned char*>(mask) + i, t); return;
      default: load_some<COLUMNS>(static_cast<const int*>(mask) + i, t); return;
    }
  }
#pragma unroll
  for (int c = 0; c < COLUMNS; c++) t[c] = c < left ? element(mask, type, i + c) : 0;
}

// What column c of the low resolution receives of a full-resolution row that begins at column x0.
DEVICE float narrowed(const float* row, int x0, int c, int lowWidth, int width) {
  float sum = 0;
  int end = last_reader(c, lowWidth, width);
  for (int x = first_reader(c, lowWidth, width); x <= end; x++) sum += tap_weight(x, c, lowWidth, width) * row[x - x0];
  return sum;
}

#define BAND_ARGUMENTS                                                                                              \
  MASK_ARGUMENTS, int rowsEach, int columnsEach, int span, const T *logits, const void *mask, int maskType, float *partial, \
      float *sent, float *edges
#define BAND_VALUES \
  lowHeight, lowWidth, height, width, alpha, gamma, rowsEach, columnsEach, span, logits, mask, maskType, partial, sent, edges

// partial[picture][run][tile][Σ element, Σ p, Σ t, Σ pt]; sent[picture][part][logit] and
// edges[picture][run][part][column] where gradients are wanted, else null. `span`: columns that shared memory has room for.
template <bool FOCAL, int PARTS>
DEVICE void bands(BAND_ARGUMENTS) {
  SHARED(float, memory);
  float* rising = memory + WARP;         // [part][column] for the upper row
  float* waiting = rising + PARTS * span;  // for the lower; a thread's own columns until a run's end
  i64 b = blockIdx.z;
  const T* z = logits + b * lowHeight * lowWidth;
  i64 picture = b * height * width;
  int c0 = blockIdx.x * columnsEach, c1 = min(c0 + columnsEach, lowWidth);
  int x0 = first_reader(c0, lowWidth, width) / COLUMNS * COLUMNS, x1 = last_reader(c1 - 1, lowWidth, width) + 1;
  int r0 = blockIdx.y * rowsEach, r1 = min(r0 + rowsEach, lowHeight);
  bool wide = width % COLUMNS == 0 && reinterpret_cast<u64>(mask) % (COLUMNS * element_bytes(maskType)) == 0;
  float sums[SUMS] = {};
  int y = first_reader(r0, lowHeight, height);
  while (y < height && tap(y, lowHeight, height).low < r0) y++;
  for (int r = r0; r < r1; r++) {
    bool last = r == lowHeight - 1;
    int next = y;
    while (next < height && tap(next, lowHeight, height).low == r) next++;
    for (int x = x0 + COLUMNS * threadIdx.x; x < x1; x += COLUMNS * blockDim.x) {
      float top[COLUMNS], step[COLUMNS], own[COLUMNS];
#pragma unroll
      for (int c = 0; c < COLUMNS; c++) {
        Tap t = tap(min(x + c, width - 1), lowWidth, width);
        const T* upper = z + static_cast<i64>(r) * lowWidth;
        const T* lower = last ? upper : upper + lowWidth;
        float left = f(upper[t.low]), bottomLeft = f(lower[t.low]);
        top[c] = left + t.share * (f(upper[t.high]) - left);
        step[c] = bottomLeft + t.share * (f(lower[t.high]) - bottomLeft) - top[c];
        own[c] = x + c < width && t.low >= c0 && t.low < c1 ? 1 : 0;
      }
      float all[PARTS][COLUMNS] = {}, low[PARTS][COLUMNS] = {}, inside[SUMS][COLUMNS] = {};
      for (int at = y; at < next; at += ROWS) {
        float t[ROWS][COLUMNS];
#pragma unroll
        for (int k = 0; k < ROWS; k++) {
          if (at + k < next)
            load_targets(mask, maskType, picture + static_cast<i64>(at + k) * width + x, width - x, wide, t[k]);
        }
        float odds[COLUMNS] = {};  // Π(1 + e) − 1
#pragma unroll
        for (int k = 0; k < ROWS; k++) {
          if (at + k >= next) continue;
          float share = tap(at + k, lowHeight, height).share;
#pragma unroll
          for (int c = 0; c < COLUMNS; c++) {
            float v = top[c] + share * step[c], target = t[k][c];
            float e = quick_exp(-fabsf(v)), inverse = quick_inverse(1 + e), rest = e * inverse;
            float slope;
            if (FOCAL) {
              inside[0][c] += element_loss(1, alpha, gamma, v, target);
              slope = element_slope(1, alpha, gamma, v, target);
            } else {
              inside[0][c] += fmaxf(v, 0) - v * target;
              odds[c] += e + odds[c] * e;
              slope = v >= 0 ? 1 - target - rest : rest - target;  // p − t with the digits of both tails
            }
            all[0][c] += slope;
            low[0][c] += share * slope;
            if (PARTS > 1) {
              float p = v >= 0 ? inverse : rest, q = rest * inverse, tq = target * q;
              inside[1][c] += p;
              inside[2][c] += target;
              inside[3][c] += p * target;
              all[PARTS / 2][c] += tq;
              low[PARTS / 2][c] += share * tq;
              all[PARTS - 1][c] += q;
              low[PARTS - 1][c] += share * q;
            }
          }
        }
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
          if (!FOCAL) inside[0][c] += log1pf(odds[c]);
        }
      }
#pragma unroll
      for (int s = 0; s < SUMS; s++) {
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) sums[s] += own[c] * inside[s][c];
      }
      if (sent) {
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
#pragma unroll
          for (int c = 0; c < COLUMNS; c++) {
            int i = part * span + x - x0 + c;
            float before = r > r0 ? waiting[i] : 0;
            rising[i] = before + (last ? all[part][c] : all[part][c] - low[part][c]);
            waiting[i] = low[part][c];
          }
        }
      }
    }
    y = next;
    if (sent) {
      __syncthreads();  // sums of all columns are there
      for (int i = threadIdx.x; i < PARTS * (c1 - c0); i += blockDim.x) {
        int part = i / (c1 - c0), c = c0 + i % (c1 - c0);
        sent[((b * PARTS + part) * lowHeight + r) * lowWidth + c] = narrowed(rising + part * span, x0, c, lowWidth, width);
      }
      __syncthreads();  // all have read them
    }
  }
  if (sent && r1 < lowHeight) {
    for (int i = threadIdx.x; i < PARTS * (c1 - c0); i += blockDim.x) {
      int part = i / (c1 - c0), c = c0 + i % (c1 - c0);
      edges[((b * gridDim.y + blockIdx.y) * PARTS + part) * lowWidth + c] =
          narrowed(waiting + part * span, x0, c, lowWidth, width);
    }
  }
  for (int s = 0; s < SUMS; s++) {
    float total = group_sum(sums[s], memory);
    if (threadIdx.x == 0) partial[((b * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * SUMS + s] = total;
  }
}

KERNEL_BOUNDS(128, 4) void mask_bands_1(BAND_ARGUMENTS) { bands<false, 1>(BAND_VALUES); }
KERNEL_BOUNDS(128, 4) void mask_bands_3(BAND_ARGUMENTS) { bands<false, 3>(BAND_VALUES); }
KERNEL_BOUNDS(128, 4) void mask_bands_focal_1(BAND_ARGUMENTS) { bands<true, 1>(BAND_VALUES); }
KERNEL_BOUNDS(128, 4) void mask_bands_focal_3(BAND_ARGUMENTS) { bands<true, 3>(BAND_VALUES); }

// factors[picture] = {numerator, denominator} of Dice's overlap
KERNEL void mask_total(int pictures, int blocks, i64 pixels, float dice, const float* partial, float* loss,
                       float* factors) {
  GRID_STRIDE(b, pictures) {
    float sums[SUMS] = {};
    for (int c = 0; c < blocks; c++)
      for (int s = 0; s < SUMS; s++) sums[s] += partial[(b * blocks + c) * SUMS + s];
    float numerator = 2 * sums[3] + 1, denominator = sums[1] + sums[2] + 1;
    loss[b] = (pixels == 0 ? 0 : sums[0] / pixels) + dice * (1 - numerator / denominator);
    factors[2 * b] = numerator;
    factors[2 * b + 1] = denominator;
  }
}

KERNEL void mask_send(i64 n, int lowHeight, int lowWidth, i64 pixels, int rowsEach, int parts, float dice,
                      const float* factors, const float* sent, const float* edges, float* dLogits) {
  int runs = (lowHeight + rowsEach - 1) / rowsEach;
  GRID_STRIDE(i, n) {
    int c = static_cast<int>(i % lowWidth), r = static_cast<int>(i / lowWidth % lowHeight);
    i64 b = i / lowWidth / lowHeight;
    float g[3] = {};
#pragma unroll
    for (int part = 0; part < 3; part++) {
      if (part >= parts) continue;
      g[part] = sent[((b * parts + part) * lowHeight + r) * lowWidth + c];
      if (r > 0 && r % rowsEach == 0)
        g[part] += edges[((b * runs + r / rowsEach - 1) * parts + part) * lowWidth + c];
    }
    float numerator = factors[2 * b], denominator = factors[2 * b + 1];
    float overlap = (numerator * g[2] - 2 * denominator * g[1]) / (denominator * denominator);
    dLogits[i] = pixels == 0 ? 0 : g[0] / pixels + dice * overlap;
  }
}
