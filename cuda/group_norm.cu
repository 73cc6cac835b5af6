// GroupNorm, forward and backward: x is (batch, pixels, channels), a group is `channels / groups`
// channels of all pixels of a picture. Statistics in fp32; γ and β have a type of their own.
//
//   y = (x − μ) r γ + β,  r = 1/√(σ² + ε)
//   dx = r (g − mean(g) − x̂ mean(g·x̂)),  g = dy·γ,  x̂ = (x − μ) r;   dγ = Σ dy·x̂,  dβ = Σ dy
//
// Groups of whole packs of sixteen bytes: a block takes a run of whole groups and a chunk of pixels. A
// thread keeps one pack of the run's channels and takes pixels `rows` apart, so that consecutive
// threads read consecutive memory across neighbouring groups. Three steps each way: sums of a chunk,
// chunks folded in order, the map written. Nothing depends on the order of blocks. Launch: grid
// (runs, chunks, batch), 256 threads; bound by memory: 3n·s bytes forward, 5n·s backward.
//
// Variance is never E[x²] − E[x]²: a thread takes the mean of the packs in its registers and the
// squares about it, and merges them with what it has (Chan, Golub and LeVeque, 1979).
//
// Other groups, and addresses that are no multiples of sixteen: a block for each (group, picture).
#include "common.cuh"

#define FORWARD_LOADS 4
#define BACKWARD_LOADS 2  // of x and of dy

#define RUN_ARGUMENTS i64 pixels, int channels, int groups, int most, i64 chunk

// A block's run of at most `most` groups and its chunk of pixels, and a thread's share of them.
struct Run {
  int own;          // groups in the run
  int group;        // the first of them
  int packs;        // of a group
  int lanes, rows;  // of threads: packs of a full run, pixels at once
  int lane, row;
  int channel;      // first of the thread's pack
  i64 first, last;  // the thread's pixels, `rows` apart; none where it has no pack

  DEVICE_MEMBER Run(RUN_ARGUMENTS) {
    packs = channels / groups / Pack<T>::N;
    group = blockIdx.x * most;
    own = min(most, groups - group);
    lanes = most * packs;
    rows = blockDim.x / lanes;
    row = threadIdx.x / lanes;
    lane = threadIdx.x - row * lanes;
    channel = (group * packs + lane) * Pack<T>::N;
    i64 start = blockIdx.y * chunk;
    first = start + row;
    last = row < rows && lane < own * packs ? min(start + chunk, pixels) : start;
  }

  // Group of the thread, for one that has a pack.
  DEVICE_MEMBER int its() { return group + lane / packs; }
};

struct Moments {
  float mean, squares, count;
};

// Of parts 0 to `parts` − 1, `at(i)` each, by a warp.
template <class At>
DEVICE Moments merged(int parts, At at) {
  int lane = threadIdx.x % WARP;
  float count = 0, sum = 0, squares = 0;
  for (int i = lane; i < parts; i += WARP) {
    Moments m = at(i);
    count += m.count;
    sum += m.count * m.mean;
  }
  count = warp_sum(count);
  float mean = warp_sum(sum) / count;
  for (int i = lane; i < parts; i += WARP) {
    Moments m = at(i);
    float d = m.mean - mean;
    squares += m.squares + m.count * d * d;
  }
  Moments all = {mean, warp_sum(squares), count};
  return all;
}

// partial[(picture, group, chunk)][0: mean, 1: Σ (x − mean)²]. Shared memory: three floats a thread.
KERNEL_BOUNDS(256, 4) void group_norm_moments(RUN_ARGUMENTS, const T* x, float* partial) {
  SHARED(float, moments);
  const int N = Pack<T>::N, K = FORWARD_LOADS;
  Run run(pixels, channels, groups, most, chunk);
  x += blockIdx.z * pixels * channels + run.channel;
  float mean = 0, squares = 0, count = 0;
  for (i64 p = run.first; p < run.last; p += K * run.rows) {
    Pack<T> v[K];
    float sum = 0, more = 0, here = 0;
#pragma unroll
    for (int k = 0; k < K; k++) {
      if (p + k * run.rows < run.last) v[k] = load_pack(x + (p + k * run.rows) * channels);
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
      if (p + k * run.rows >= run.last) continue;
      here += N;
#pragma unroll
      for (int e = 0; e < N; e++) sum += v[k].v[e];
    }
    sum /= here;
#pragma unroll
    for (int k = 0; k < K; k++) {
      if (p + k * run.rows >= run.last) continue;
#pragma unroll
      for (int e = 0; e < N; e++) {
        float d = v[k].v[e] - sum;
        more += d * d;
      }
    }
    float d = sum - mean, share = here / (count + here);
    mean += d * share;
    squares += more + d * d * count * share;
    count += here;
  }
  moments[3 * threadIdx.x] = mean;
  moments[3 * threadIdx.x + 1] = squares;
  moments[3 * threadIdx.x + 2] = count;
  __syncthreads();  // moments of all threads are there
  for (int g = threadIdx.x / WARP; g < run.own; g += blockDim.x / WARP) {
    Moments all = merged(run.rows * run.packs, [&](int i) {
      int row = i / run.packs;
      const float* from = moments + 3 * (row * run.lanes + g * run.packs + i - row * run.packs);
      Moments m = {from[0], from[1], from[2]};
      return m;
    });
    if (threadIdx.x % WARP == 0) {
      i64 at = (blockIdx.z * static_cast<i64>(groups) + run.group + g) * gridDim.y + blockIdx.y;
      partial[2 * at] = all.mean;
      partial[2 * at + 1] = all.squares;
    }
  }
}

// stats[(picture, group)][0: μ, 1: r] of the chunks' moments; a warp a row (picture, group).
KERNEL void group_norm_fold(i64 rows, i64 pixels, int width, i64 chunk, int chunks, float eps, const float* partial,
                            float* stats) {
  i64 row = blockIdx.x * static_cast<i64>(blockDim.y) + threadIdx.y;
  if (row >= rows) return;
  partial += 2 * row * chunks;
  Moments all = merged(chunks, [&](int k) {
    Moments m = {partial[2 * k], partial[2 * k + 1], static_cast<float>(min(chunk, pixels - k * chunk) * width)};
    return m;
  });
  if (threadIdx.x == 0) {
    stats[2 * row] = all.mean;
    stats[2 * row + 1] = rsqrtf(all.squares / all.count + eps);
  }
}

KERNEL_BOUNDS(256, 3) void group_norm_apply(RUN_ARGUMENTS, const T* x, const void* gamma, const void* beta, int type,
                                            const float* stats, T* y) {
  const int N = Pack<T>::N, K = FORWARD_LOADS;
  Run run(pixels, channels, groups, most, chunk);
  if (run.first >= run.last) return;
  const float* own = stats + 2 * (blockIdx.z * static_cast<i64>(groups) + run.its());
  float mean = own[0], rstd = own[1], scale[N], shift[N];
#pragma unroll
  for (int e = 0; e < N; e++) {
    scale[e] = 1;
    shift[e] = 0;
  }
  if (gamma) {
    load_typed<N>(gamma, type, run.channel, scale);
    load_typed<N>(beta, type, run.channel, shift);
  }
#pragma unroll
  for (int e = 0; e < N; e++) scale[e] *= rstd;
  i64 base = blockIdx.z * pixels * channels + run.channel;
  for (i64 p = run.first; p < run.last; p += K * run.rows) {
    Pack<T> v[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
      if (p + k * run.rows < run.last) v[k] = load_pack(x + base + (p + k * run.rows) * channels);
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
      if (p + k * run.rows >= run.last) continue;
#pragma unroll
      for (int e = 0; e < N; e++) v[k].v[e] = (v[k].v[e] - mean) * scale[e] + shift[e];
      store_pack(y + base + (p + k * run.rows) * channels, v[k]);
    }
  }
}

// Adds what the rows of threads have, in order: sums[0: dγ, 1: dβ][channel of the run], and to[0, 1][channel].
// `sums` holds 2·N floats a thread; all threads may read it when the call returns.
DEVICE void add_rows(Run& run, int channels, const float* scale, const float* shift, float* sums, float* to) {
  const int N = Pack<T>::N;
  int width = run.lanes * N;
  if (run.row < run.rows) {
#pragma unroll
    for (int e = 0; e < N; e += 4) {
      store_some<4>(sums + 2 * run.row * width + run.lane * N + e, scale + e);
      store_some<4>(sums + (2 * run.row + 1) * width + run.lane * N + e, shift + e);
    }
  }
  __syncthreads();  // sums of all rows are there
  for (int i = threadIdx.x; i < 2 * width; i += blockDim.x) {
    float sum = sums[i];
    for (int r = 1; r < run.rows; r++) sum += sums[2 * r * width + i];
    sums[i] = sum;
    int which = i >= width, c = i - which * width;
    if (c < run.own * run.packs * N) to[which * static_cast<i64>(channels) + run.group * run.packs * N + c] = sum;
  }
  __syncthreads();
}

// partial[(picture, chunk)][0: dγ, 1: dβ][channel]. Shared memory: 2·N floats a thread.
KERNEL_BOUNDS(256, 3) void group_norm_gradient_sums(RUN_ARGUMENTS, const T* x, const float* stats, const T* dy,
                                                    float* partial) {
  SHARED(float, sums);
  const int N = Pack<T>::N, K = BACKWARD_LOADS;
  Run run(pixels, channels, groups, most, chunk);
  float mean = 0, rstd = 0, scale[N], shift[N];
#pragma unroll
  for (int e = 0; e < N; e++) scale[e] = shift[e] = 0;
  if (run.first < run.last) {
    const float* own = stats + 2 * (blockIdx.z * static_cast<i64>(groups) + run.its());
    mean = own[0];
    rstd = own[1];
  }
  i64 base = blockIdx.z * pixels * channels + run.channel;
  for (i64 p = run.first; p < run.last; p += K * run.rows) {
    Pack<T> v[K], g[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
      i64 at = base + (p + k * run.rows) * channels;
      if (p + k * run.rows < run.last) v[k] = load_pack(x + at);
      if (p + k * run.rows < run.last) g[k] = load_pack(dy + at);
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
      if (p + k * run.rows >= run.last) continue;
#pragma unroll
      for (int e = 0; e < N; e++) {
        scale[e] += g[k].v[e] * ((v[k].v[e] - mean) * rstd);
        shift[e] += g[k].v[e];
      }
    }
  }
  add_rows(run, channels, scale, shift, sums, partial + 2 * (blockIdx.z * static_cast<i64>(gridDim.y) + blockIdx.y) * channels);
}

// Of a picture's chunks: pictures[picture][0: dγ, 1: dβ][channel], and means[(picture, group)][0: of g, 1: of
// g·x̂]. Launch: grid (runs, 1, batch), with one chunk a block; shared memory as above.
KERNEL_BOUNDS(256, 4) void group_norm_gradient_fold(RUN_ARGUMENTS, int chunks, const float* partial, const void* gamma,
                                                    int type, float* pictures, float* means) {
  SHARED(float, sums);
  const int N = Pack<T>::N;
  Run run(pixels, channels, groups, most, chunk);
  float scale[N], shift[N];
#pragma unroll
  for (int e = 0; e < N; e++) scale[e] = shift[e] = 0;
  if (run.row < run.rows && run.lane < run.own * run.packs) {
    for (int k = run.row; k < chunks; k += run.rows) {
      const float* from = partial + 2 * (blockIdx.z * static_cast<i64>(chunks) + k) * channels + run.channel;
      float more[N], further[N];
#pragma unroll
      for (int e = 0; e < N; e += 4) load_some<4>(from + e, more + e);
#pragma unroll
      for (int e = 0; e < N; e += 4) load_some<4>(from + channels + e, further + e);
#pragma unroll
      for (int e = 0; e < N; e++) {
        scale[e] += more[e];
        shift[e] += further[e];
      }
    }
  }
  add_rows(run, channels, scale, shift, sums, pictures + 2 * blockIdx.z * static_cast<i64>(channels));
  int width = run.packs * N;
  for (int g = threadIdx.x / WARP; g < run.own; g += blockDim.x / WARP) {
    float sum = 0, dot = 0;
    for (int c = threadIdx.x % WARP; c < width; c += WARP) {
      float weight = gamma ? element(gamma, type, (run.group + g) * width + c) : 1;
      dot += weight * sums[g * width + c];
      sum += weight * sums[run.lanes * N + g * width + c];
    }
    sum = warp_sum(sum);
    dot = warp_sum(dot);
    if (threadIdx.x % WARP == 0) {
      i64 at = 2 * (blockIdx.z * static_cast<i64>(groups) + run.group + g);
      float count = static_cast<float>(pixels * width);
      means[at] = sum / count;
      means[at + 1] = dot / count;
    }
  }
}

// dx may lie over dy: a thread reads its packs before it writes them.
KERNEL_BOUNDS(256, 3) void group_norm_gradient(RUN_ARGUMENTS, const T* x, const void* gamma, int type, const float* stats,
                                               const float* means, const T* dy, T* dx) {
  const int N = Pack<T>::N, K = BACKWARD_LOADS;
  Run run(pixels, channels, groups, most, chunk);
  if (run.first >= run.last) return;
  i64 row = 2 * (blockIdx.z * static_cast<i64>(groups) + run.its());
  float mean = stats[row], rstd = stats[row + 1], sum = means[row], dot = means[row + 1], weight[N];
#pragma unroll
  for (int e = 0; e < N; e++) weight[e] = 1;
  if (gamma) load_typed<N>(gamma, type, run.channel, weight);
  i64 base = blockIdx.z * pixels * channels + run.channel;
  for (i64 p = run.first; p < run.last; p += K * run.rows) {
    Pack<T> v[K], g[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
      i64 at = base + (p + k * run.rows) * channels;
      if (p + k * run.rows < run.last) v[k] = load_pack(x + at);
      if (p + k * run.rows < run.last) g[k] = load_pack(dy + at);
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
      if (p + k * run.rows >= run.last) continue;
#pragma unroll
      for (int e = 0; e < N; e++) {
        v[k].v[e] = rstd * (g[k].v[e] * weight[e] - sum - (v[k].v[e] - mean) * rstd * dot);
      }
      store_pack(dx + base + (p + k * run.rows) * channels, v[k]);
    }
  }
}

// ---- any group: a block for each (group, picture)

KERNEL void group_norm(i64 pixels, int channels, int groups, float eps, const T* x, const void* gamma, const void* beta, int type,
                       T* y, float* stats) {
  SHARED(float, scratch);
  int width = channels / groups;
  i64 n = pixels * width;
  i64 base = blockIdx.y * pixels * channels + blockIdx.x * width;
  float sum = 0;
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) sum += f(x[base + i / width * channels + i % width]);
  float mean = group_sum(sum, scratch) / n;
  float squares = 0;
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    float d = f(x[base + i / width * channels + i % width]) - mean;
    squares += d * d;
  }
  float rstd = rsqrtf(group_sum(squares, scratch) / n + eps);
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    i64 at = base + i / width * channels + i % width;
    int c = static_cast<int>(blockIdx.x * width + i % width);
    float v = (f(x[at]) - mean) * rstd;
    put(y + at, gamma ? v * element(gamma, type, c) + element(beta, type, c) : v);
  }
  if (threadIdx.x == 0) {
    i64 at = 2 * (blockIdx.y * static_cast<i64>(groups) + blockIdx.x);
    stats[at] = mean;
    stats[at + 1] = rstd;
  }
}

KERNEL void group_norm_backward(i64 pixels, int channels, int groups, const T* x, const void* gamma, int type, const float* stats,
                                const T* dy, T* dx) {
  SHARED(float, scratch);
  int width = channels / groups;
  i64 n = pixels * width;
  i64 base = blockIdx.y * pixels * channels + blockIdx.x * width;
  i64 s = 2 * (blockIdx.y * static_cast<i64>(groups) + blockIdx.x);
  float mean = stats[s], rstd = stats[s + 1];
  float sum = 0, dot = 0;
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    i64 at = base + i / width * channels + i % width;
    float g = f(dy[at]) * (gamma ? element(gamma, type, blockIdx.x * width + i % width) : 1);
    sum += g;
    dot += g * (f(x[at]) - mean) * rstd;
  }
  sum = group_sum(sum, scratch) / n;
  dot = group_sum(dot, scratch) / n;
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
    i64 at = base + i / width * channels + i % width;
    float g = f(dy[at]) * (gamma ? element(gamma, type, blockIdx.x * width + i % width) : 1);
    put(dx + at, rstd * (g - sum - (f(x[at]) - mean) * rstd * dot));
  }
}

// partial[(picture, chunk)][0: dγ, 1: dβ][channel]; grid (⌈channels/256⌉, chunks of pixels, batch).
KERNEL void group_norm_columns(i64 pixels, int channels, int groups, i64 chunk, const T* x, const float* stats,
                               const T* dy, float* partial) {
  int c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  const float* own = stats + 2 * (blockIdx.z * static_cast<i64>(groups) + c / (channels / groups));
  i64 first = blockIdx.y * chunk, last = min(first + chunk, pixels);
  float scale = 0, shift = 0;
  for (i64 p = first; p < last; p++) {
    i64 at = (blockIdx.z * pixels + p) * channels + c;
    float g = f(dy[at]);
    scale += g * (f(x[at]) - own[0]) * own[1];
    shift += g;
  }
  i64 k = blockIdx.z * static_cast<i64>(gridDim.y) + blockIdx.y;
  partial[2 * k * channels + c] = scale;
  partial[(2 * k + 1) * channels + c] = shift;
}
