// Region-image attention on the tensor cores, for fp16 and bf16; the mathematics, passes, grid and
// finish are those of region_attention.cu. `…_1`, `…_2` and `…_4` fold sets of 8, 16 and 32 regions.
//
// K and V go from global memory to the tensor cores' fragments without shared memory between, 16
// bytes a lane: D is a multiple of 8 and addresses are of 16. With g = lane / 4 and t = lane % 4:
//   outer   S(pixels × regions): a warp takes 16 pixels; a lane reads chunk t (8 columns) of 32 of
//           rows g and g + 8, which are its fragment of two steps when depth is permuted alike on
//           both sides, as in window_attention_mma.cu. 8 loads in flight.
//   fold    (columns × regions) += rowsᵀ · weightsᵀ: a warp takes 64 columns; of 16 pixels a lane reads
//           chunk g of rows 4t to 4t + 3. Halves of two rows exchanged are pairs over depth, and
//           columns 8g + 2j and 8g + 2j + 1 are rows g and g + 8 of product j. 16 loads in flight; what
//           a lane holds of a region is 8 columns side by side.
//   spread  (columns × pixels) = smallᵀ · weights, the same with regions for pixels: a lane holds 8
//           columns of a pixel and writes 16 bytes.
//
// Operations on the tensor cores: 4·P·pixels·D forward with P rounded up to 8, 8·P·pixels·D backward, half
// of them with P rounded up to 16.
#include "mma.cuh"
#include "region.cuh"

#if MMA

// Of two rows' words the lower halves, then the upper ones, first row below.
DEVICE void pair_rows(u32& a, u32& b) {
  u32 low = (a & 0xffffu) | b << 16, high = a >> 16 | (b & 0xffff0000u);
  a = low;
  b = high;
}

// Four rows' chunks of 8 columns as the left sides of four products 16 columns × 16 rows.
struct Columns {
  u32 words[4][4];  // row, word

  DEVICE_MEMBER void set(int row, int4 v) {
    words[row][0] = v.x;
    words[row][1] = v.y;
    words[row][2] = v.z;
    words[row][3] = v.w;
  }
  DEVICE_MEMBER void pair() {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      pair_rows(words[0][j], words[1][j]);
      pair_rows(words[2][j], words[3][j]);
    }
  }
  DEVICE_MEMBER void multiply(float (&c)[4][4], u32 b0, u32 b1) const {
#pragma unroll
    for (int j = 0; j < 4; j++) mma(c[j], words[0][j], words[1][j], words[2][j], words[3][j], b0, b1);
  }
};

template <int G>
struct Tensor {
  static const int SET = 8 * G;
  static const int STRIDE = TILE + 8;
  static const int DEPTH = 16;  // regions of a product's step
  typedef T Weight;             // weights[region][pixel]

  static DEVICE_MEMBER int padded(int regions) {
    const int to = SET < DEPTH ? DEPTH : SET;
    return (regions + to - 1) / to * to;
  }
  static DEVICE_MEMBER int weights(int regions) { return regions * STRIDE; }
  static DEVICE_MEMBER void weigh(T* w, int region, int pixel, const float (&v)[2]) {
    store_some<2>(w + region * STRIDE + pixel, v);
  }

  static DEVICE_MEMBER void outer(const T* rows, int left, int dim, const T* small, int count, float* scores) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    int n = 16 * warp + g;
    const T* top = rows + inside(n, left) * dim;
    const T* low = rows + inside(n + 8, left) * dim;
    const int4 none = {0, 0, 0, 0};
    float c[G][4] = {};
#pragma unroll 1
    for (int first = 8 * t; first < dim + 8 * t; first += 128) {  // all lanes of a warp make each product
      int4 a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        bool there = first + 32 * i < dim;
        a[i] = there ? load_once(top + first + 32 * i) : none;
        b[i] = there ? load_once(low + first + 32 * i) : none;
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        bool there = first + 32 * i < dim;
#pragma unroll
        for (int r = 0; r < G; r++) {
          int4 s = there ? load_words<16>(small + inside(8 * r + g, count) * dim + first + 32 * i) : none;
          mma(c[r], a[i].x, b[i].x, a[i].y, b[i].y, s.x, s.y);
          mma(c[r], a[i].z, b[i].z, a[i].w, b[i].w, s.z, s.w);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < G; r++) {
      float* to = scores + (8 * r + 2 * t) * SCORES + n;
      to[0] = c[r][0];
      to[SCORES] = c[r][1];
      to[8] = c[r][2];
      to[SCORES + 8] = c[r][3];
    }
  }

  static DEVICE_MEMBER void fold(const T* rows, int left, int dim, const T* weights, int count, const float* factor,
                                 bool first, bool last, float* sums, float* part) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const int STEPS = TILE / 16;
#pragma unroll 1
    for (int slice = warp; 64 * slice < dim; slice += WARPS) {
      int column = 64 * slice + 8 * g;
      bool there = column < dim;
      const T* from = rows + (there ? column : 0);
      Columns x[STEPS];
#pragma unroll
      for (int s = 0; s < STEPS; s++) {
#pragma unroll
        for (int i = 0; i < 4; i++) x[s].set(i, load_once(from + inside(16 * s + 4 * t + i, left) * dim));
      }
#pragma unroll
      for (int s = 0; s < STEPS; s++) x[s].pair();
#pragma unroll 1
      for (int r = 0; r < G; r++) {
        float* kept = sums + ((slice * G + r) * 4 * WARP + lane) * 4;
        float c[4][4] = {};
        int region = 8 * r + 2 * t;
        if (!first) {
          float even = factor ? factor[region] : 1, odd = factor ? factor[region + 1] : 1;
#pragma unroll
          for (int j = 0; j < 4; j++) {
            load_some<4>(kept + j * 4 * WARP, c[j]);
            c[j][0] *= even;
            c[j][1] *= odd;
            c[j][2] *= even;
            c[j][3] *= odd;
          }
        }
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
          u64 w = load_words<8>(weights + (8 * r + g) * STRIDE + 16 * s + 4 * t);
          x[s].multiply(c, static_cast<u32>(w), static_cast<u32>(w >> 32));
        }
        if (!last) {
#pragma unroll
          for (int j = 0; j < 4; j++) store_some<4>(kept + j * 4 * WARP, c[j]);
          continue;
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
          if (!there || region + i >= count) continue;
          float v[8];
#pragma unroll
          for (int j = 0; j < 4; j++) {
            v[2 * j] = c[j][i];
            v[2 * j + 1] = c[j][2 + i];
          }
          float* to = part + (region + i) * static_cast<i64>(dim) + column;
          store_some<4>(to, v);
          store_some<4>(to + 4, v + 4);
        }
      }
    }
  }

  static DEVICE_MEMBER void spread(const T* w, int left, int dim, const T* small, int regions, float scale, T* rows,
                                   int begin, int step) {
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    // Rows of the four 8×8 matrices that a lane points at: regions 0 and 8, pixels 0; the same, pixels 8.
    const T* mine = w + (lane / 8 % 2 * 8 + lane % 8) * STRIDE + lane / 16 * 8;
#pragma unroll 1
    for (int slice = begin * WARPS + warp; 64 * slice < dim; slice += step * WARPS) {
      int column = 64 * slice + 8 * g;
      bool there = column < dim;
      const T* from = small + (there ? column : 0);
#pragma unroll 1
      for (int n = 0; n < left; n += 32) {
        float c[4][4][4] = {};
#pragma unroll 1
        for (int r = 0; r < regions; r += DEPTH) {
          Columns x;
#pragma unroll
          for (int i = 0; i < 4; i++)
            x.set(i, load_words<16>(from + inside(r + 2 * t + i % 2 + i / 2 * 8, regions) * dim));
          x.pair();
          u32 b[4];
          u32 at = shared_address(mine + weights(r) + n);
          load_transposed<0>(b, at);
          x.multiply(c[0], b[0], b[1]);
          x.multiply(c[1], b[2], b[3]);
          load_transposed<16 * sizeof(T)>(b, at);
          x.multiply(c[2], b[0], b[1]);
          x.multiply(c[3], b[2], b[3]);
        }
        if (!there) continue;
#pragma unroll
        for (int k = 0; k < 4; k++) {
#pragma unroll
          for (int i = 0; i < 2; i++) {
            int pixel = n + 8 * k + 2 * t + i;
            if (pixel >= left) continue;
            float v[8];
#pragma unroll
            for (int j = 0; j < 4; j++) {
              v[2 * j] = scale * c[k][j][i];
              v[2 * j + 1] = scale * c[k][j][2 + i];
            }
            store_some<8>(rows + pixel * dim + column, v);
          }
        }
      }
    }
  }
};

KERNEL_BOUNDS(128, 3) void region_forward_mma_1(REGION_FORWARD) { region_forward<Tensor<1>>(REGION_FORWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void region_forward_mma_2(REGION_FORWARD) { region_forward<Tensor<2>>(REGION_FORWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void region_forward_mma_4(REGION_FORWARD) { region_forward<Tensor<4>>(REGION_FORWARD_VALUES); }
KERNEL_BOUNDS(128, 3) void region_values_mma_1(REGION_VALUES_ARGUMENTS) { region_values<Tensor<1>>(REGION_VALUES_VALUES); }
KERNEL_BOUNDS(128, 3) void region_values_mma_2(REGION_VALUES_ARGUMENTS) { region_values<Tensor<2>>(REGION_VALUES_VALUES); }
KERNEL_BOUNDS(128, 3) void region_values_mma_4(REGION_VALUES_ARGUMENTS) { region_values<Tensor<4>>(REGION_VALUES_VALUES); }
KERNEL_BOUNDS(128, 3) void region_keys_mma_1(REGION_KEYS_ARGUMENTS) { region_keys<Tensor<1>>(REGION_KEYS_VALUES); }
KERNEL_BOUNDS(128, 3) void region_keys_mma_2(REGION_KEYS_ARGUMENTS) { region_keys<Tensor<2>>(REGION_KEYS_VALUES); }
KERNEL_BOUNDS(128, 3) void region_keys_mma_4(REGION_KEYS_ARGUMENTS) { region_keys<Tensor<4>>(REGION_KEYS_VALUES); }

#endif
