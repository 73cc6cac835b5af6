// The backward of windowed attention on the tensor cores for windows of 65 to 144 positions;
// window_attention_large.cu has the mathematics, launch, layouts, bytes and operations of both.
#include "window_large.cuh"

#if MMA

// Halves from one row of dSᵀ to the next: eight rows' chunks lie in different banks.
#define STRIDE 152

// The most sums of dS that a thread has: 2W − 1.
#define SUMS 23

// This lane's chunk of a plane of a row of y, behind the row's values in its row of dS.
template <int PLANES>
DEVICE T* output_at(T* slopes, int row, int plane) {
  return slopes + row * STRIDE + 32 * (PLANES + plane) + threadIdx.x % 4 * 8;
}

// dS as rounded, added up: a thread takes one row of the window's keys and one of its queries, and adds what lies
// equally far to the right, in fp32; its 2W − 1 sums lie a THREADS apart.
template <int WIDTH, int THREADS>
DEVICE void add_rows(float* sums, const T* slopes, int windowH) {
  const int PACK = WIDTH % 4 == 0 ? 4 : WIDTH % 2 == 0 ? 2 : 1;  // halves of a load that rows allow
  int key = threadIdx.x / windowH, query = threadIdx.x % windowH;
  if (key >= windowH) return;
  const T* from = slopes + key * WIDTH * STRIDE + query * WIDTH;
  float sum[2 * WIDTH - 1];
#pragma unroll
  for (int i = 0; i < 2 * WIDTH - 1; i++) sum[i] = sums[i * THREADS];
#pragma unroll
  for (int j = 0; j < WIDTH; j++) {
#pragma unroll
    for (int i = 0; i < WIDTH; i += PACK) {
      float v[PACK];
      load_some<PACK>(from + j * STRIDE + i, v);
#pragma unroll
      for (int k = 0; k < PACK; k++) sum[i + k - j + WIDTH - 1] += v[k];
    }
  }
#pragma unroll
  for (int i = 0; i < 2 * WIDTH - 1; i++) sums[i * THREADS] = sum[i];
}
template <int THREADS>
DEVICE void add_window(float* sums, const T* slopes, int windowH, int windowW) {
  switch (windowW) {  // of at most 12 by 12 and at least 65 positions
    case 6: return add_rows<6, THREADS>(sums, slopes, windowH);
    case 7: return add_rows<7, THREADS>(sums, slopes, windowH);
    case 8: return add_rows<8, THREADS>(sums, slopes, windowH);
    case 9: return add_rows<9, THREADS>(sums, slopes, windowH);
    case 10: return add_rows<10, THREADS>(sums, slopes, windowH);
    case 11: return add_rows<11, THREADS>(sums, slopes, windowH);
    case 12: return add_rows<12, THREADS>(sums, slopes, windowH);
  }
}

// Adds the threads' sums up, by rows of a head's table; `sums` are thread 0's.
template <int THREADS>
DEVICE void put_table_part(float* part, const float* sums, int windowH, int windowW, int heads) {
  int relatives = (2 * windowH - 1) * (2 * windowW - 1);
  for (int r = threadIdx.x; r < relatives; r += THREADS) {
    int down = r / (2 * windowW - 1) - windowH + 1, right = r % (2 * windowW - 1);
    float v = 0;
    for (int query = max(0, down); query < windowH + min(0, down); query++)
      v += sums[right * THREADS + (query - down) * windowH + query];
    part[static_cast<i64>(r) * heads] = v;
  }
}

#define BACKWARD_ARGUMENTS                                                                                       \
  MAP_ARGUMENTS, int batch, const T *qkv, const T *bias, const T *table, const T *y, const float *lse, const T *dy, \
      T *dqkv, float *parts
#define BACKWARD_VALUES MAP_VALUES, batch, qkv, bias, table, y, lse, dy, dqkv, parts

// parts[blockIdx.y]: of the table [row][head], behind it, where there is a bias, its [3C].
template <int PLANES>
DEVICE void attend_backward(BACKWARD_ARGUMENTS) {
  using S = Large<PLANES>;
  T* keys = reinterpret_cast<T*>(block_memory());
  T* queries = keys + S::PART;
  T* rises = queries + S::PART;  // dy
  T* slopes = rises + S::PART;   // dSᵀ
  float* sums = reinterpret_cast<float*>(slopes + S::ROWS * STRIDE);  // of dS, a column a thread
  float* logs = sums + SUMS * S::THREADS;                             // log-sum-exps of queries, times log₂e
  float* dots = logs + S::ROWS;                                       // −dy·y
  int n = windowH * windowW, used = (n + 15) / 16, channels = heads * d, head = blockIdx.x;
  int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, t = lane % 4;
  int i0 = warp * 16 * S::TILES + lane / 4;  // this lane's keys, and then queries, are i0 + 8 k
  Window w = window_of_block(MAP_VALUES);
  int relatives = (2 * windowH - 1) * (2 * windowW - 1);
  bool padding = w.frameH != height || w.frameW != width;
  float shrink = rsqrtf(static_cast<float>(d)), scale = LOG2E * shrink, root = shrink * d;
  Places own = prepare_table<S::ROWS>(reinterpret_cast<char*>(dots + S::ROWS), w, table, head, heads, root);
  for (int i = threadIdx.x; i < S::ROWS; i += S::THREADS) own.offsets[i] = i < n ? 4 * offset_of(w, i) : 0;
  int offsets[2 * S::TILES];  // of these keys, in bytes as those of queries
#pragma unroll
  for (int k = 0; k < 2 * S::TILES; k++) offsets[k] = 4 * key_offset(w, i0 + 8 * k, n);
  // dk and dv of the padded positions, a row a warp.
  float* padded = behind(own, w);
  float* warp_padded = padded + warp * 64 * PLANES;
  for (int i = 0; i < 2 * windowW - 1; i++) sums[i * S::THREADS + threadIdx.x] = 0;
  if (padding)
    for (int c = lane; c < 64 * PLANES; c += WARP) warp_padded[c] = 0;
  Rows rows = {qkv, bias ? bias + head * d : bias, channels, d};
  Range at = range_of_block(w, batch);
  Step* steps = reinterpret_cast<Step*>(padded + (padding ? S::WARPS_ * 64 * PLANES : 0));  // of windows in turn
  begin_steps(steps, w, at);
  for (int index = at.index; index < at.last; index++) {
    const Step& now = steps[index & 1];
    int* places = own.places + (index & 1) * S::ROWS;
    const int* own_places = places + i0;
    write_places(now.window, places, S::ROWS, n, bias != nullptr);
    i64 first = static_cast<i64>(now.picture) * height * width;
    rows.qkv = qkv + first * 3 * channels + head * d;
    const T* dy_head = dy + first * channels + head * d;
    const T* y_head = y + first * channels + head * d;
    __syncthreads();  // places are there, and all have left the last window
    if (threadIdx.x == 0) next_step(steps, index);
    const float* own_lse = lse + (static_cast<i64>(index) * heads + head) * n;
    for_brought_rows<PLANES>([&](int row) {
      Origin o = origin(rows, places[row]);
      i64 pixel = static_cast<i64>(max(source_at(places[row]), 0)) * channels;
      bring<PLANES>(keys, row, o.q + channels, o.there, d);
      bring<PLANES>(queries, row, o.q, o.inside, d);  // a padded query's output is dropped
      bring<PLANES>(rises, row, dy_head + pixel, o.inside, d);
      // Values and outputs wait where their warp will put dS.
      bring_chunks<PLANES, 32>(slopes + row * STRIDE + 8 * t, o.q + 2 * channels, o.there, d);
      bring_chunks<PLANES, 32>(output_at<PLANES>(slopes, row, 0), y_head + pixel, o.inside, d);
      if (t == 0) logs[row] = o.inside ? LOG2E * own_lse[row] : POSITIVE_INFINITY;
    });
    wait_for_copies();
    for_brought_rows<PLANES>([&](int row) {  // chunks that this lane has brought
      float dot = 0;
#pragma unroll
      for (int p = 0; p < PLANES; p++) {
        const int4* output = reinterpret_cast<const int4*>(output_at<PLANES>(slopes, row, p));
        dot += chunk_dot(*words_at(rises + p * S::PLANE, row, t), *output);
      }
      dot = quad_sum(dot);
      if (t == 0) dots[row] = -dot;
    });
    __syncthreads();  // the window is there
    bool seam = seamed(now.window);
    for_own_tiles<S::TILES>(used, [&](auto count) {
      const int OWN = decltype(count)::N;
      float dk[OWN][4 * PLANES][4], dv[OWN][4 * PLANES][4];
      Side<PLANES> key[OWN], value[OWN];
      Lanes rows_of = sixteen_on(lanes_of(keys), warp * S::TILES);
#pragma unroll
      for (int m = 0; m < OWN; m++) {
        clear<PLANES>(dk[m]);
        clear<PLANES>(dv[m]);
        get_side<PLANES, 2 * S::PLANE>(key[m], rows_of.first + 1024 * m, rows_of.second + 1024 * m);
        u32 at = shared_address(slopes + (warp * 16 * S::TILES + 16 * m + lane % 16) * STRIDE + lane / 16 * 8);
        get_side<PLANES, 64>(value[m], at, at + 32);
      }
      __syncwarp();  // values are read
      Lanes query_rows = lanes_of(queries);  // those of dy are a part behind
      u32 eights = eight_of(queries);
      T* to_slopes = slopes + i0 * STRIDE + 2 * t;
#pragma unroll 1
      for (int k = 0; k < used; k++) {
        u32 p[OWN][4], ds[OWN][4];
#pragma unroll
        for (int half = 0; half < 2; half++) {
          int i = 16 * k + 8 * half, j = i + 2 * t;
          Offsets o = *reinterpret_cast<const Offsets*>(own.offsets + j);
          Pair log = *reinterpret_cast<const Pair*>(logs + j), dot = *reinterpret_cast<const Pair*>(dots + j);
          Right<PLANES> query, rise;
          get_right<PLANES, 0>(query, eights + 512 * (2 * k + half));
          get_right<PLANES, 2 * S::PART>(rise, eights + 512 * (2 * k + half));
#pragma unroll
          for (int m = 0; m < OWN; m++) {
            float s[4], dp[4] = {dot.first, dot.second, dot.first, dot.second};
            start_scores(s, own.table, offsets[2 * m], offsets[2 * m + 1], o);
            if (seam) mask_scores(s, places + j, own_places + 16 * m, MASKED * root);
            add_outer(s, key[m], query);
            add_outer(dp, value[m], rise);
#pragma unroll
            for (int e = 0; e < 4; e++) {
              s[e] = exp2_approximate(s[e] * scale - (e % 2 ? log.second : log.first));
              dp[e] *= s[e];
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
              p[m][2 * half + h] = pack_pair(s[2 * h], s[2 * h + 1]);
              ds[m][2 * half + h] = pack_pair(dp[2 * h], dp[2 * h + 1]);
              *reinterpret_cast<u32*>(to_slopes + (16 * m + 8 * h) * STRIDE + i) = ds[m][2 * half + h];
            }
          }
        }
        Lanes right = sixteen_on(query_rows, k);
        multiply<OWN, PLANES, 2 * S::PART>(dv, p, right);
        multiply<OWN, PLANES>(dk, ds, right);
      }
      T* to = dqkv + static_cast<i64>(now.picture) * height * width * 3 * channels + head * d;
#pragma unroll
      for (int m = 0; m < OWN; m++) {
        int s0 = source_at(own_places[16 * m]), s1 = source_at(own_places[16 * m + 8]);
        T* to0 = s0 < 0 ? nullptr : to + (s0 * 3 + 1) * channels;
        T* to1 = s1 < 0 ? nullptr : to + (s1 * 3 + 1) * channels;
        store_rows<PLANES>(to0, to1, dk[m], shrink, shrink, d);
        store_rows<PLANES>(to0 ? to0 + channels : nullptr, to1 ? to1 + channels : nullptr, dv[m], 1, 1, d);
        if (padding) {
          add_padded<PLANES>(warp_padded, dk[m], s0 == -1, s1 == -1, shrink);
          add_padded<PLANES>(warp_padded + 32 * PLANES, dv[m], s0 == -1, s1 == -1, 1);
        }
      }
    });
    __syncthreads();  // ds is there
    for_own_tiles<S::TILES>(used, [&](auto count) {
      const int OWN = decltype(count)::N;
      float dq[OWN][4 * PLANES][4];
#pragma unroll
      for (int m = 0; m < OWN; m++) clear<PLANES>(dq[m]);
      Lanes right = lanes_of(keys);
      u32 left = shared_address(slopes + (lane / 16 * 8 + lane % 8) * STRIDE + warp * 16 * S::TILES + lane / 8 % 2 * 8);
#pragma unroll 1
      for (int k = 0; k < used; k++) {
        u32 ds[OWN][4];
        load_transposed<0>(ds[0], left + 32 * STRIDE * k);
        if constexpr (OWN == 2) load_transposed<32>(ds[1], left + 32 * STRIDE * k);
        multiply<OWN, PLANES>(dq, ds, sixteen_on(right, k));
      }
      T* to = dqkv + static_cast<i64>(now.picture) * height * width * 3 * channels + head * d;
#pragma unroll
      for (int m = 0; m < OWN; m++) {
        int s0 = source_at(own_places[16 * m]), s1 = source_at(own_places[16 * m + 8]);
        store_rows<PLANES>(s0 < 0 ? nullptr : to + s0 * 3 * channels, s1 < 0 ? nullptr : to + s1 * 3 * channels, dq[m],
                           shrink, shrink, d);
      }
    });
    add_window<S::THREADS>(sums + threadIdx.x, slopes, windowH, windowW);
  }
  __syncthreads();  // sums of all threads are there
  float* part = parts + blockIdx.y * (static_cast<i64>(relatives) * heads + (bias ? 3 * channels : 0));
  put_table_part<S::THREADS>(part + head, sums, windowH, windowW, heads);
  part += static_cast<i64>(relatives) * heads + head * d;
  if (bias) put_bias_part<PLANES, S::WARPS_>(part, padded, padding, channels, d);
}

KERNEL_BOUNDS(160, 2) void window_attention_backward_18x1(BACKWARD_ARGUMENTS) { attend_backward<1>(BACKWARD_VALUES); }
KERNEL_BOUNDS(288, 1) void window_attention_backward_18x2(BACKWARD_ARGUMENTS) { attend_backward<2>(BACKWARD_VALUES); }

#endif
