// Windowed attention on the tensor cores for windows of 65 to 144 positions, at most 12 on a side; the
// mathematics, types, sides and rows in shared memory are those of window_attention_mma.cu, but fragments are
// loaded whole, so the depth of Q Kᵀ is not permuted. Variants 18x1 (d ≤ 32) and 18x2 (d ≤ 64).
//
// A block takes one head and a run of windows: grid (heads, groups). What binds a multiprocessor here is its
// shared memory: every warp reads all keys and values. So a warp takes not 16 but 32 positions, two tiles of
// 16, and reads once for both: 144 positions are 9 tiles, 5 warps, of which the last has one tile.
// With d > 32, where registers do not suffice, 9 warps of one tile. Tiles beyond N are left out.
//
//   forward   a warp's queries stay in registers; keys go by sixteen at a time, p = 2^(s − reference), the
//             reference a highest score so far: where scores pass it by more than 4, it follows,
//             and what was added up is multiplied by 2^(old − new). The table, times √d, is what the
//             accumulators of Q Kᵀ start from.
//   backward  (window_attention_large_backward.cu) a warp owns 32 keys, so that K, V and the sums for dK and dV
//             stay in registers. For 16 queries at a time: Sᵀ = K Qᵀ, dPᵀ = V dYᵀ − D, both with keys along
//             the rows, so that Pᵀ and dSᵀ, rounded to halves, are as they are the left sides of dV = Pᵀ dY
//             and dK = dSᵀ Q. Only dSᵀ goes to shared memory, where dQ = dS K, by queries, takes it, and
//             the table's gradient.
//
// Rounded to halves: p before P V and Pᵀ dY, dS before its products and before its sum; everything else is
// fp32. The sum of dS over a block's windows is in fp32, each thread its own elements, in a fixed order; at its end
// a block folds them into the table's rows, and a second kernel adds the blocks' parts in order.
//
// Bytes as in window_attention_mma.cu. Operations on the tensor cores, N rounded up to 16 for R: forward
// 4·R²·d a window and head, backward 10·R²·d.
#include "window_large.cuh"

#if MMA

// Scores may pass the reference by 2^4 before it follows: p of 16 does no harm in half types, and what was added up
// under a lower reference need seldom be touched.
#define SLACK 4.0f

// Of rows g and g + 8 the reference, before `scale`: a score that was a row's highest, and Σ 2^(scale (score −
// reference)) of this lane's columns.
struct Running {
  float top, low, topSum, lowSum;
};

// Turns scores with 16 keys into p, in halves, and where a row of the warp has passed its reference too far
// moves the references to the highest scores.
template <int OWN, int PLANES>
DEVICE void go_on(Running (&x)[OWN], float (&s)[OWN][2][4], float (&out)[OWN][4 * PLANES][4], u32 (&p)[OWN][4],
                  float scale) {
  float top[OWN], low[OWN];
  bool passed = false;
#pragma unroll
  for (int m = 0; m < OWN; m++) {
    top[m] = fmaxf(fmaxf(s[m][0][0], s[m][0][1]), fmaxf(s[m][1][0], s[m][1][1]));
    low[m] = fmaxf(fmaxf(s[m][0][2], s[m][0][3]), fmaxf(s[m][1][2], s[m][1][3]));
    passed |= scale * (top[m] - x[m].top) > SLACK || scale * (low[m] - x[m].low) > SLACK;
  }
  if (__ballot_sync(ALL_LANES, passed) != 0) {
#pragma unroll
    for (int m = 0; m < OWN; m++) {
      top[m] = fmaxf(x[m].top, quad_max(top[m]));
      low[m] = fmaxf(x[m].low, quad_max(low[m]));
      float a = exp2_approximate(scale * (x[m].top - top[m])), b = exp2_approximate(scale * (x[m].low - low[m]));
      x[m] = Running{top[m], low[m], x[m].topSum * a, x[m].lowSum * b};
#pragma unroll
      for (int i = 0; i < 4 * PLANES; i++) {
        out[m][i][0] *= a;
        out[m][i][1] *= a;
        out[m][i][2] *= b;
        out[m][i][3] *= b;
      }
    }
  }
#pragma unroll
  for (int m = 0; m < OWN; m++) {
    float a = scale * x[m].top, b = scale * x[m].low;
#pragma unroll
    for (int tile = 0; tile < 2; tile++) {
      float(&v)[4] = s[m][tile];
#pragma unroll
      for (int e = 0; e < 4; e++) v[e] = exp2_approximate(v[e] * scale - (e < 2 ? a : b));
      x[m].topSum += v[0] + v[1];
      x[m].lowSum += v[2] + v[3];
      p[m][2 * tile] = pack_pair(v[0], v[1]);
      p[m][2 * tile + 1] = pack_pair(v[2], v[3]);
    }
  }
}

#define FORWARD_ARGUMENTS \
  MAP_ARGUMENTS, int batch, const T *qkv, const T *bias, const T *table, T *y, float *lse
#define FORWARD_VALUES MAP_VALUES, batch, qkv, bias, table, y, lse

template <int PLANES>
DEVICE void attend(FORWARD_ARGUMENTS) {
  using S = Large<PLANES>;
  T* keys = reinterpret_cast<T*>(block_memory());
  T* values = keys + S::PART;
  T* queries = values + S::PART;  // each warp's its own
  int n = windowH * windowW, used = (n + 15) / 16, channels = heads * d, head = blockIdx.x;
  int lane = threadIdx.x % WARP, t = lane % 4;
  int i0 = threadIdx.x / WARP * 16 * S::TILES + lane / 4;  // this lane's rows are i0 + 8 k
  Window w = window_of_block(MAP_VALUES);
  float shrink = rsqrtf(static_cast<float>(d)), scale = LOG2E * shrink, root = shrink * d;
  Places own = prepare_table<S::ROWS>(reinterpret_cast<char*>(queries + S::PART), w, table, head, heads, root);
  for (int i = threadIdx.x; i < S::ROWS; i += S::THREADS) own.offsets[i] = 4 * key_offset(w, i, n);
  int offsets[2 * S::TILES];  // of these rows, in bytes as those of keys
#pragma unroll
  for (int k = 0; k < 2 * S::TILES; k++) offsets[k] = i0 + 8 * k < n ? 4 * offset_of(w, i0 + 8 * k) : 0;
  Rows rows = {qkv, bias ? bias + head * d : bias, channels, d};
  Range at = range_of_block(w, batch);
  Step* steps = reinterpret_cast<Step*>(behind(own, w));
  begin_steps(steps, w, at);
  for (; at.index < at.last; at.index++) {
    const Step& now = steps[at.index & 1];
    int* places = own.places + (at.index & 1) * S::ROWS;
    write_places(now.window, places, S::ROWS, n, bias != nullptr);
    i64 first = static_cast<i64>(now.picture) * height * width;
    rows.qkv = qkv + first * 3 * channels + head * d;
    __syncthreads();  // places are there, and all have left the last window
    if (threadIdx.x == 0) next_step(steps, at.index);
    for_brought_rows<PLANES>([&](int row) {
      Origin o = origin(rows, places[row]);
      bring<PLANES>(keys, row, o.q + channels, o.there, d);
      bring<PLANES>(values, row, o.q + 2 * channels, o.there, d);
      bring<PLANES>(queries, row, o.q, o.inside, d);  // a padded query's output is dropped
    });
    const int* own_places = places + i0;
    wait_for_copies();
    __syncthreads();  // the window is there
    bool seam = seamed(now.window);
    for_own_tiles<S::TILES>(used, [&](auto count) {
      const int OWN = decltype(count)::N;
      float out[OWN][4 * PLANES][4];
      Running x[OWN];
      Side<PLANES> query[OWN];
      Lanes rows_of = sixteen_on(lanes_of(queries), threadIdx.x / WARP * S::TILES);
#pragma unroll
      for (int m = 0; m < OWN; m++) {
        get_side<PLANES, 2 * S::PLANE>(query[m], rows_of.first + 1024 * m, rows_of.second + 1024 * m);
        clear<PLANES>(out[m]);
        x[m] = Running{NEGATIVE_INFINITY, NEGATIVE_INFINITY, 0, 0};
      }
      Lanes right = lanes_of(values);
      u32 key_rows = eight_of(keys);
#pragma unroll 1
      for (int k = 0; k < used; k++) {  // the first of sixteen is a key: no row is −∞ alone
        float s[OWN][2][4];
        Right<PLANES> key[2];
        get_right<PLANES, 0>(key[0], key_rows + 1024 * k);
        get_right<PLANES, 512>(key[1], key_rows + 1024 * k);
#pragma unroll
        for (int tile = 0; tile < 2; tile++) {
          int j = 16 * k + 8 * tile + 2 * t;
          Offsets o = *reinterpret_cast<const Offsets*>(own.offsets + j);
#pragma unroll
          for (int m = 0; m < OWN; m++) {
            start_scores(s[m][tile], own.table, offsets[2 * m], offsets[2 * m + 1], o);
            if (seam) mask_scores(s[m][tile], places + j, own_places + 16 * m, MASKED * root);
            add_outer(s[m][tile], query[m], key[tile]);
          }
        }
        u32 p[OWN][4];
        go_on<OWN, PLANES>(x, s, out, p, scale);
        multiply<OWN, PLANES>(out, p, sixteen_on(right, k));
      }
      T* to = y + static_cast<i64>(now.picture) * height * width * channels + head * d;
#pragma unroll
      for (int m = 0; m < OWN; m++) {
        float topSum = quad_sum(x[m].topSum), lowSum = quad_sum(x[m].lowSum);
        int i = i0 + 16 * m, s0 = source_at(own_places[16 * m]), s1 = source_at(own_places[16 * m + 8]);
        store_rows<PLANES>(s0 < 0 ? nullptr : to + static_cast<i64>(s0) * channels,
                           s1 < 0 ? nullptr : to + static_cast<i64>(s1) * channels, out[m], 1 / topSum, 1 / lowSum, d);
        if (lse && t == 0) {
          float* into = lse + (static_cast<i64>(at.index) * heads + head) * n;
          if (i < n) into[i] = s0 < 0 ? 0 : LN2 * (scale * x[m].top + log2f(topSum));
          if (i + 8 < n) into[i + 8] = s1 < 0 ? 0 : LN2 * (scale * x[m].low + log2f(lowSum));
        }
      }
    });
  }
}

KERNEL_BOUNDS(160, 3) void window_attention_18x1(FORWARD_ARGUMENTS) { attend<1>(FORWARD_VALUES); }
KERNEL_BOUNDS(288, 2) void window_attention_18x2(FORWARD_ARGUMENTS) { attend<2>(FORWARD_VALUES); }

#endif
