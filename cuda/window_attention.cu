// Attention within the windows of a map (Swin, section 3.2), with cyclic shift, padding, window
// partition, relative-position bias, mask and reversal folded into the indexing: the permuted
// tensors never exist. Shapes, frame positions and the mask's sides are those of the record
// org.deixis.backend.WindowAttention.
//
// A block takes one (window, head, picture): grid (windows, heads, batch), 128 threads. N = window
// area (≤ 144), d = head width (≤ 64). Keys and values (in the second pass of backward: queries and
// dy) wait in shared memory, rows of d + 1 floats against bank conflicts; a warp takes a query, its
// lanes the keys.
//
//   forward   s_ij = q_i·k_j/√d + table[rel(i,j)] + mask,  p = softmax(s),  y_i = Σ_j p_ij v_j
//   backward  dp_ij = dy_i·v_j,  D_i = Σ_j p_ij dp_ij,  ds = p (dp − D)
//             dq_i = Σ_j ds_ij k_j/√d,  dk_j = Σ_i ds_ij q_i/√d,  dv_j = Σ_i p_ij dy_i
//             dtable[r] = Σ over pairs with rel(i,j) = r of ds_ij
//   Pass 1 goes by queries (dq, D, dtable), pass 2 by keys (dk, dv); p is recomputed from the
//   log-sum-exp, so that no N×N matrix is kept. Each warp has a table of its own in shared memory (the
//   pairs of one query have different rel), added in order; each block writes its part of dtable and
//   of the padded positions' gradients, which a second kernel adds in order.
//
// Bytes: forward 4·B·H·W·C·s, backward 8·B·H·W·C·s (qkv, y, dy in; dqkv out). Operations: 4·N²·d a
// block forward, 14·N²·d backward.
#include "window.cuh"

#define WARPS 4
// Element c of part (0 q, 1 k, 2 v) of a position: a padded one has the projection's bias, or zeros without one.
DEVICE float packed(const T* qkv, const T* bias, i64 picture, int source, int channels, int part, int c) {
  if (source < 0) return bias ? f(bias[part * channels + c]) : 0;
  return f(qkv[(picture + source) * 3 * channels + part * channels + c]);
}

// Loads part `part` of all positions of the window into rows of d + 1.
DEVICE void load_rows(float* rows, const Window& w, const T* qkv, const T* bias, i64 picture, int channels, int part,
                      int head, int d, int n) {
  for (int i = threadIdx.x; i < n * d; i += blockDim.x) {
    int row = i / d, c = i % d;
    rows[row * (d + 1) + c] = packed(qkv, bias, picture, w.source(row), channels, part, head * d + c);
  }
}

KERNEL void window_attention(MAP_ARGUMENTS, const T* qkv, const T* bias, const T* table, T* y, float* lse) {
  SHARED(float, memory);
  int n = windowH * windowW, channels = heads * d, head = blockIdx.y;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  float* keys = memory;
  float* values = keys + n * (d + 1);
  float* query = values + n * (d + 1) + warp * (d + n);
  float* p = query + d;
  Window w = window_of_block(MAP_VALUES);
  i64 picture = blockIdx.z * static_cast<i64>(height) * width;
  load_rows(keys, w, qkv, bias, picture, channels, 1, head, d, n);
  load_rows(values, w, qkv, bias, picture, channels, 2, head, d, n);
  __syncthreads();
  float scale = rsqrtf(static_cast<float>(d));
  i64 first = ((blockIdx.z * static_cast<i64>(gridDim.x) + blockIdx.x) * heads + head) * n;
  for (int i = warp; i < n; i += WARPS) {
    int source = w.source(i);
    if (source < 0) {
      if (lse && lane == 0) lse[first + i] = 0;
      continue;
    }
    for (int c = lane; c < d; c += WARP) query[c] = scale * packed(qkv, bias, picture, source, channels, 0, head * d + c);
    __syncwarp();
    int side = w.side(i);
    float top = NEGATIVE_INFINITY;
    for (int j = lane; j < n; j += WARP) {
      float s = f(table[w.relative(i, j) * heads + head]) + (w.side(j) == side ? 0 : MASKED);
      for (int c = 0; c < d; c++) s += query[c] * keys[j * (d + 1) + c];
      p[j] = s;
      top = fmaxf(top, s);
    }
    top = warp_max(top);
    float sum = 0;
    for (int j = lane; j < n; j += WARP) {
      p[j] = expf(p[j] - top);
      sum += p[j];
    }
    sum = warp_sum(sum);
    __syncwarp();
    for (int c = lane; c < d; c += WARP) {
      float v = 0;
      for (int j = 0; j < n; j++) v += p[j] * values[j * (d + 1) + c];
      put(y + (picture + source) * channels + head * d + c, v / sum);
    }
    if (lse && lane == 0) lse[first + i] = top + logf(sum);
    __syncwarp();
  }
}

// dBiasPart[(block)][3C of this head's columns] and dTablePart[(picture, window)][row][head]; both
// are written whole by each block. dBiasPart may be null, together with bias.
KERNEL void window_attention_backward(MAP_ARGUMENTS, const T* qkv, const T* bias, const T* table, const float* lse,
                                      const T* dy, T* dqkv, float* dBiasPart, float* dTablePart) {
  SHARED(float, memory);
  int n = windowH * windowW, channels = heads * d, head = blockIdx.y;
  int relatives = (2 * windowH - 1) * (2 * windowW - 1);
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  float* left = memory;                   // keys, then queries
  float* right = left + n * (d + 1);      // values, then dy
  float* dots = right + n * (d + 1);      // D of each query
  float* tables = dots + n;               // a table a warp
  float* padded = tables + WARPS * relatives;  // dk and dv of the padded positions, a row a warp
  float* own = padded + WARPS * 2 * d + warp * (2 * d + n);
  float* a = own;      // this warp's query (or key)
  float* b = own + d;  // its dy (or value)
  float* ds = b + d;
  Window w = window_of_block(MAP_VALUES);
  i64 picture = blockIdx.z * static_cast<i64>(height) * width;
  i64 block = blockIdx.z * static_cast<i64>(gridDim.x) + blockIdx.x;
  const float* own_lse = lse + (block * heads + head) * n;
  float scale = rsqrtf(static_cast<float>(d));
  load_rows(left, w, qkv, bias, picture, channels, 1, head, d, n);
  load_rows(right, w, qkv, bias, picture, channels, 2, head, d, n);
  for (int r = threadIdx.x; r < WARPS * relatives; r += blockDim.x) tables[r] = 0;
  for (int c = threadIdx.x; c < WARPS * 2 * d; c += blockDim.x) padded[c] = 0;
  __syncthreads();
  for (int i = warp; i < n; i += WARPS) {
    int source = w.source(i);
    if (source < 0) continue;  // its output is dropped
    for (int c = lane; c < d; c += WARP) {
      a[c] = scale * packed(qkv, bias, picture, source, channels, 0, head * d + c);
      b[c] = f(dy[(picture + source) * channels + head * d + c]);
    }
    __syncwarp();
    int side = w.side(i);
    float dot = 0;
    for (int j = lane; j < n; j += WARP) {
      float s = f(table[w.relative(i, j) * heads + head]) + (w.side(j) == side ? 0 : MASKED);
      float dp = 0;
      for (int c = 0; c < d; c++) {
        s += a[c] * left[j * (d + 1) + c];
        dp += b[c] * right[j * (d + 1) + c];
      }
      dot += expf(s - own_lse[i]) * dp;
    }
    dot = warp_sum(dot);
    if (lane == 0) dots[i] = dot;
    for (int j = lane; j < n; j += WARP) {
      float s = f(table[w.relative(i, j) * heads + head]) + (w.side(j) == side ? 0 : MASKED);
      float dp = 0;
      for (int c = 0; c < d; c++) {
        s += a[c] * left[j * (d + 1) + c];
        dp += b[c] * right[j * (d + 1) + c];
      }
      ds[j] = expf(s - own_lse[i]) * (dp - dot);
      tables[warp * relatives + w.relative(i, j)] += ds[j];
    }
    __syncwarp();
    for (int c = lane; c < d; c += WARP) {
      float v = 0;
      for (int j = 0; j < n; j++) v += ds[j] * left[j * (d + 1) + c];
      put(dqkv + (picture + source) * 3 * channels + head * d + c, scale * v);
    }
    __syncwarp();
  }
  __syncthreads();
  for (int r = threadIdx.x; r < relatives; r += blockDim.x) {
    float v = 0;
    for (int k = 0; k < WARPS; k++) v += tables[k * relatives + r];
    dTablePart[(block * relatives + r) * heads + head] = v;
  }
  load_rows(left, w, qkv, bias, picture, channels, 0, head, d, n);
  for (int i = threadIdx.x; i < n * d; i += blockDim.x) {
    int source = w.source(i / d);
    right[i / d * (d + 1) + i % d] = source < 0 ? 0 : f(dy[(picture + source) * channels + head * d + i % d]);
  }
  __syncthreads();
  float* p = ds;
  for (int j = warp; j < n; j += WARPS) {
    int source = w.source(j);
    for (int c = lane; c < d; c += WARP) {
      a[c] = scale * packed(qkv, bias, picture, source, channels, 1, head * d + c);
      b[c] = packed(qkv, bias, picture, source, channels, 2, head * d + c);
    }
    __syncwarp();
    int side = w.side(j);
    // Lanes keep p and ds of their own queries; both are needed for all columns, one after the other.
    for (int i = lane; i < n; i += WARP) {
      if (w.source(i) < 0) {
        p[i] = 0;
        continue;
      }
      float s = f(table[w.relative(i, j) * heads + head]) + (w.side(i) == side ? 0 : MASKED);
      for (int c = 0; c < d; c++) s += a[c] * left[i * (d + 1) + c];
      p[i] = expf(s - own_lse[i]);
    }
    __syncwarp();
    for (int c = lane; c < d; c += WARP) {
      float v = 0;
      for (int i = 0; i < n; i++) v += p[i] * right[i * (d + 1) + c];
      if (source >= 0) {
        put(dqkv + (picture + source) * 3 * channels + 2 * channels + head * d + c, v);
      } else {
        padded[(warp * 2 + 1) * d + c] += v;
      }
    }
    __syncwarp();
    for (int i = lane; i < n; i += WARP) {
      if (w.source(i) < 0) continue;
      float dp = 0;
      for (int c = 0; c < d; c++) dp += right[i * (d + 1) + c] * b[c];
      p[i] *= dp - dots[i];
    }
    __syncwarp();
    for (int c = lane; c < d; c += WARP) {
      float v = 0;
      for (int i = 0; i < n; i++) v += p[i] * left[i * (d + 1) + c];
      if (source >= 0) {
        put(dqkv + (picture + source) * 3 * channels + channels + head * d + c, scale * v);
      } else {
        padded[warp * 2 * d + c] += scale * v;
      }
    }
    __syncwarp();
  }
  if (!dBiasPart) return;
  __syncthreads();
  for (int c = threadIdx.x; c < 3 * d; c += blockDim.x) {
    float v = 0;  // a padded query's gradient is 0
    if (c >= d)
      for (int k = 0; k < WARPS; k++) v += padded[k * 2 * d + c - d];
    dBiasPart[block * 3 * channels + c / d * channels + head * d + c % d] = v;
  }
}
