// Embedding rows, and the geometry of maps: patches, merging, resizing, pooling to regions. Bound by
// memory; every backward gathers what reaches an element, in a fixed order, so that no two threads
// add to the same place. Channels lie last, so that where they are whole packs all that a thread
// moves is sixteen bytes a load; else it moves single elements.
//
// Launch: a block of 256 threads a tile of what is written, PACKS packs a thread where it is only
// moved, one where it is computed; the folds as said at each.
//
// Bilinear (align_corners = false, no anti-aliasing): output row o reads source (o + ½)·h/H − ½,
// clamped below at 0, the row under it with weight 1 − share and the next one, if any, with share.
#include "common.cuh"

// CudaGeometry has it too.
#define PACKS 4

KERNEL void embedding(i64 n, int width, const int* ids, const T* table, T* y) {
  bool wide = width % Pack<T>::N == 0 && aligned(table) && aligned(y);
  auto from = [=](i64 i) {
    i64 c, row = split(i, width, &c);
    return static_cast<i64>(ids[row]) * width + c;
  };
  move_tile<PACKS>(wide, n, table, y, from, [](i64 i) { return i; });
}

#define WARPS 8
#define AT_ONCE 4

// Columns blockIdx.y·32·W on of the sum for the id at place blockIdx.x, by the block of the place
// where that id comes first. The warps share the later places out in runs of 32; each adds the rows
// of dy that it meets in their order, AT_ONCE loads in flight, and the warps' sums are added in order.
template <int W>
DEVICE void embedding_sum(int rows, int count, int width, const int* ids, const T* dy, T* dTable, float* scratch) {
  int place = blockIdx.x, lane = threadIdx.x, warp = threadIdx.y, row = ids[place];
  int* seen = reinterpret_cast<int*>(scratch + WARPS * WARP * W);
  if (warp == 0 && lane == 0) *seen = row < 0 || row >= rows;
  __syncthreads();
  for (int i = warp * WARP + lane; i < place; i += WARPS * WARP)
    if (ids[i] == row) *seen = 1;
  __syncthreads();
  if (*seen) return;
  int c = (blockIdx.y * WARP + lane) * W;
  float sum[W];
#pragma unroll
  for (int e = 0; e < W; e++) sum[e] = 0;
  for (int first = place / WARP * WARP + warp * WARP; first < count; first += WARPS * WARP) {
    u32 hits = __ballot_sync(ALL_LANES, first + lane < count && ids[first + lane] == row);
    while (hits != 0) {
      float p[AT_ONCE][W];
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) {
        int at = first + __ffs(hits) - 1;
        if (hits != 0 && c < width) {
          load_some<W>(dy + static_cast<i64>(at) * width + c, p[k]);
        } else {
#pragma unroll
          for (int e = 0; e < W; e++) p[k][e] = 0;
        }
        hits &= hits - 1;
      }
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++)
#pragma unroll
        for (int e = 0; e < W; e++) sum[e] += p[k][e];
    }
  }
#pragma unroll
  for (int e = 0; e < W; e++) scratch[(warp * WARP + lane) * W + e] = sum[e];
  __syncthreads();
  int mine = warp * WARP + lane, column = blockIdx.y * WARP * W + mine;
  if (mine >= WARP * W || column >= width) return;
  float total = 0;
  for (int w = 0; w < WARPS; w++) total += scratch[w * WARP * W + mine];
  put(dTable + static_cast<i64>(row) * width + column, total);
}

// Rows of the table that ids name; the others must be zero already. Grid (ids, tiles of 32 packs of
// columns), 32 × 8 threads. Bytes: dy, and the rows written.
KERNEL void embedding_backward(int rows, int count, int width, int wide, const int* ids, const T* dy, T* dTable) {
  SHARED(float, scratch);
  if (wide) {
    embedding_sum<Pack<T>::N>(rows, count, width, ids, dy, dTable, scratch);
  } else {
    embedding_sum<1>(rows, count, width, ids, dy, dTable, scratch);
  }
}

// ---- patches: y (b, rows, columns, 3·patch·patch), a row in the order (channel, row, column)

// A pack of y a thread, gathered from as many places; bytes are scaled and shifted channel by channel.
KERNEL void patch_gather(i64 n, int height, int width, int patch, int rows, int columns, int bytes, float scale0,
                         float scale1, float scale2, float shift0, float shift1, float shift2, const void* x, T* y) {
  const int N = Pack<T>::N;
  i64 i = (blockIdx.x * static_cast<i64>(blockDim.x) + threadIdx.x) * N;
  if (i >= n) return;
  i64 inPatch, column, row;
  i64 b = split(split(split(i, 3 * patch * patch, &inPatch), columns, &column), rows, &row);
  int px = static_cast<int>(inPatch) % patch, py = static_cast<int>(inPatch) / patch % patch;
  int channel = static_cast<int>(inPatch) / patch / patch;
  Pack<T> p;
#pragma unroll
  for (int e = 0; e < N; e++) {
    i64 iy = row * patch + py, ix = column * patch + px;
    float v = 0;
    if (i + e < n && iy < height && ix < width) {
      if (bytes) {
        float raw = static_cast<const unsigned char*>(x)[((b * height + iy) * width + ix) * 3 + channel];
        v = raw * (channel == 0 ? scale0 : channel == 1 ? scale1 : scale2) +
            (channel == 0 ? shift0 : channel == 1 ? shift1 : shift2);
      } else {
        v = f(static_cast<const T*>(x)[((b * 3 + channel) * height + iy) * width + ix]);
      }
    }
    p.v[e] = v;
    if (++px < patch) continue;
    px = 0;
    if (++py < patch) continue;
    py = 0;
    if (++channel < 3) continue;
    channel = 0;
    if (++column < columns) continue;
    column = 0;
    if (++row < rows) continue;
    row = 0;
    b++;
  }
  if (aligned(y) && i + N <= n) {
    store_pack(y + i, p);
  } else {
#pragma unroll
    for (int e = 0; e < N; e++)
      if (i + e < n) put(y + i + e, p.v[e]);
  }
}

KERNEL void patch_scatter(i64 n, int height, int width, int patch, int rows, int columns, const T* dy, T* dx) {
  const int N = Pack<T>::N;
  bool wide = patch % N == 0 && width % N == 0 && aligned(dy) && aligned(dx);
  auto from = [=](i64 i) {
    i64 x, y, channel, px, py;
    i64 b = split(split(split(i, width, &x), height, &y), 3, &channel);
    i64 column = split(x, patch, &px), row = split(y, patch, &py);
    return ((((b * rows + row) * columns + column) * 3 + channel) * patch + py) * patch + px;
  };
  move_tile<PACKS>(wide, n, dy, dx, from, [](i64 i) { return i; });
}

// ---- patch merging: quarter q of a merged pixel is (2i + q % 2, 2j + q / 2)

KERNEL void merge_gather(i64 n, int height, int width, int channels, const T* x, T* y) {
  bool wide = channels % Pack<T>::N == 0 && aligned(x) && aligned(y);
  int rows = (height + 1) / 2, columns = (width + 1) / 2;
  auto from = [=](i64 i) -> i64 {
    i64 c, column, row;
    i64 pixel = split(i, channels, &c);
    i64 q = pixel % 4, b = split(split(pixel / 4, columns, &column), rows, &row);
    i64 iy = row * 2 + q % 2, ix = column * 2 + q / 2;
    return iy < height && ix < width ? ((b * height + iy) * width + ix) * channels + c : -1;
  };
  move_tile<PACKS>(wide, n, x, y, from, [](i64 i) { return i; });
}

KERNEL void merge_scatter(i64 n, int height, int width, int channels, const T* dy, T* dx) {
  bool wide = channels % Pack<T>::N == 0 && aligned(dy) && aligned(dx);
  int rows = (height + 1) / 2, columns = (width + 1) / 2;
  auto from = [=](i64 i) {
    i64 c, ix, iy;
    i64 b = split(split(split(i, channels, &c), width, &ix), height, &iy);
    i64 q = iy % 2 + ix % 2 * 2;
    return (((b * rows + iy / 2) * columns + ix / 2) * 4 + q) * channels + c;
  };
  move_tile<PACKS>(wide, n, dy, dx, from, [](i64 i) { return i; });
}

// ---- bilinear: W channels of a pixel a thread

struct Resize {
  int height, width, channels, outHeight, outWidth;
};

// Four loads in flight, five where it adds to what is there.
template <int W>
DEVICE void resize_of(i64 i, i64 n, const Resize& s, int accumulate, const T* x, T* y) {
  if (i >= n) return;
  i64 c, ox, oy;
  i64 b = split(split(split(i, s.channels, &c), s.outWidth, &ox), s.outHeight, &oy);
  Tap row = tap(static_cast<int>(oy), s.height, s.outHeight), column = tap(static_cast<int>(ox), s.width, s.outWidth);
  const T* low = x + (b * s.height + row.low) * s.width * s.channels + c;
  const T* high = x + (b * s.height + row.high) * s.width * s.channels + c;
  float tl[W], tr[W], bl[W], br[W], old[W];
  load_some<W>(low + static_cast<i64>(column.low) * s.channels, tl);
  load_some<W>(low + static_cast<i64>(column.high) * s.channels, tr);
  load_some<W>(high + static_cast<i64>(column.low) * s.channels, bl);
  load_some<W>(high + static_cast<i64>(column.high) * s.channels, br);
  if (accumulate) load_some<W>(y + i, old);
#pragma unroll
  for (int e = 0; e < W; e++) {
    float top = (1 - column.share) * tl[e] + column.share * tr[e];
    float bottom = (1 - column.share) * bl[e] + column.share * br[e];
    float v = (1 - row.share) * top + row.share * bottom;
    tl[e] = accumulate ? old[e] + v : v;
  }
  store_some<W>(y + i, tl);
}

KERNEL void resize(i64 n, int height, int width, int channels, int outHeight, int outWidth, int accumulate, const T* x,
                   T* y) {
  const int N = Pack<T>::N;
  Resize s = {height, width, channels, outHeight, outWidth};
  i64 thread = blockIdx.x * static_cast<i64>(blockDim.x) + threadIdx.x;
  if (channels % N == 0 && aligned(x) && aligned(y)) {
    resize_of<N>(thread * N, n, s, accumulate, x, y);
  } else {
    for (int e = 0; e < N; e++)
      resize_of<1>(thread + e * static_cast<i64>(gridDim.x) * blockDim.x, n, s, accumulate, x, y);
  }
}

// Of the outputs that may read this source, row by row, AT_ONCE loads in flight.
template <int W>
DEVICE void resize_backward_of(i64 i, i64 n, const Resize& s, const T* dy, T* dx) {
  if (i >= n) return;
  i64 c, ix, iy;
  i64 b = split(split(split(i, s.channels, &c), s.width, &ix), s.height, &iy);
  int sx = static_cast<int>(ix), sy = static_cast<int>(iy);
  const T* from = dy + b * s.outHeight * s.outWidth * s.channels + c;
  int y0 = first_reader(sy, s.height, s.outHeight), y1 = last_reader(sy, s.height, s.outHeight);
  int x0 = first_reader(sx, s.width, s.outWidth), x1 = last_reader(sx, s.width, s.outWidth);
  float sum[W];
#pragma unroll
  for (int e = 0; e < W; e++) sum[e] = 0;
  for (int oy = y0; oy <= y1; oy++) {
    float wy = tap_weight(oy, sy, s.height, s.outHeight);
    if (wy == 0) continue;
    for (int ox = x0; ox <= x1; ox += AT_ONCE) {
      float p[AT_ONCE][W], weight[AT_ONCE];
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) {
        weight[k] = ox + k <= x1 ? wy * tap_weight(ox + k, sx, s.width, s.outWidth) : 0;
        if (weight[k] != 0) load_some<W>(from + (static_cast<i64>(oy) * s.outWidth + ox + k) * s.channels, p[k]);
      }
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) {
        if (weight[k] == 0) continue;
#pragma unroll
        for (int e = 0; e < W; e++) sum[e] += weight[k] * p[k][e];
      }
    }
  }
  store_some<W>(dx + i, sum);
}

KERNEL void resize_backward(i64 n, int height, int width, int channels, int outHeight, int outWidth, const T* dy,
                            T* dx) {
  const int N = Pack<T>::N;
  Resize s = {height, width, channels, outHeight, outWidth};
  i64 thread = blockIdx.x * static_cast<i64>(blockDim.x) + threadIdx.x;
  if (channels % N == 0 && aligned(dy) && aligned(dx)) {
    resize_backward_of<N>(thread * N, n, s, dy, dx);
  } else {
    for (int e = 0; e < N; e++)
      resize_backward_of<1>(thread + e * static_cast<i64>(gridDim.x) * blockDim.x, n, s, dy, dx);
  }
}

// ---- regions: cell i of n spans ⌊i·extent/n⌋ to ⌈(i+1)·extent/n⌉

// A thread's share of h rows of w elements: four elements by a load where all rows are whole fours.
template <class U>
DEVICE float cell_sum(const U* x, int h, int w, int width) {
  float sum = 0;
  if ((w | width) % 4 == 0 && aligned_four(x)) {
    u32 fours = w / 4, all = fours * h;
    for (u32 i = threadIdx.x; i < all; i += PACKS * blockDim.x) {
      float p[PACKS][4];
#pragma unroll
      for (int k = 0; k < PACKS; k++) {
        u32 at = i + k * blockDim.x;
        if (at < all) {
          load_some<4>(x + static_cast<i64>(at / fours) * width + at % fours * 4, p[k]);
        } else {
          p[k][0] = p[k][1] = p[k][2] = p[k][3] = 0;
        }
      }
#pragma unroll
      for (int k = 0; k < PACKS; k++) sum += p[k][0] + p[k][1] + p[k][2] + p[k][3];
    }
    return sum;
  }
  u32 all = static_cast<u32>(w) * h;
  for (u32 i = threadIdx.x; i < all; i += blockDim.x) sum += f(x[static_cast<i64>(i / w) * width + i % w]);
  return sum;
}

// A block a cell: grid (cells, pictures), 256 threads.
KERNEL void region_pool(int height, int width, int rows, int columns, const void* x, int type, T* y) {
  SHARED(float, scratch);
  int r = blockIdx.x / columns, c = blockIdx.x % columns;
  int y0 = r * height / rows, h = ((r + 1) * height + rows - 1) / rows - y0;
  int x0 = c * width / columns, w = ((c + 1) * width + columns - 1) / columns - x0;
  i64 at = (blockIdx.y * static_cast<i64>(height) + y0) * width + x0;
  float sum = type == 0   ? cell_sum(static_cast<const float*>(x) + at, h, w, width)
              : type == 1 ? cell_sum(static_cast<const half_t*>(x) + at, h, w, width)
              : type == 2 ? cell_sum(static_cast<const bf16_t*>(x) + at, h, w, width)
                          : cell_sum(static_cast<const unsigned char*>(x) + at, h, w, width);
  sum = group_sum(sum, scratch);
  if (threadIdx.x == 0) put(y + blockIdx.y * static_cast<i64>(gridDim.x) + blockIdx.x, sum / (h * w));
}

KERNEL void region_pool_backward(i64 n, int height, int width, int rows, int columns, const T* dy, T* dx) {
  GRID_STRIDE(i, n) {
    i64 px, py;
    i64 b = split(split(i, width, &px), height, &py);
    float sum = 0;
    for (int r = 0; r < rows; r++) {
      int y0 = r * height / rows, y1 = ((r + 1) * height + rows - 1) / rows;
      if (py < y0 || py >= y1) continue;
      for (int c = 0; c < columns; c++) {
        int x0 = c * width / columns, x1 = ((c + 1) * width + columns - 1) / columns;
        if (px >= x0 && px < x1) sum += f(dy[(b * rows + r) * columns + c]) / ((y1 - y0) * (x1 - x0));
      }
    }
    put(dx + i, sum);
  }
}
