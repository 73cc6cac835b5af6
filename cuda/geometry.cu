// Embedding rows, and the geometry of maps: patches, merging, resizing, pooling to regions. Bound by
// memory; every backward gathers what reaches an element, in a fixed order, so that no two threads
// add to the same place.
//
// Launch: grid-stride over the elements written, 256 threads; the folds as said at each.
//
// Bilinear (align_corners = false, no anti-aliasing): output row o reads source (o + ½)·h/H − ½,
// clamped below at 0, the row under it with weight 1 − share and the next one, if any, with share.
#include "common.cuh"

KERNEL void embedding(i64 n, int width, const int* ids, const T* table, T* y) {
  GRID_STRIDE(i, n) y[i] = table[static_cast<i64>(ids[i / width]) * width + i % width];
}

// A warp a row of the table; it looks through all ids and adds the rows of dy in their order.
KERNEL void embedding_backward(int rows, int count, int width, const int* ids, const T* dy, T* dTable) {
  int row = blockIdx.x * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  for (int c = threadIdx.x; c < width; c += WARP) {
    float sum = 0;
    for (int i = 0; i < count; i++)
      if (ids[i] == row) sum += f(dy[static_cast<i64>(i) * width + c]);
    put(dTable + static_cast<i64>(row) * width + c, sum);
  }
}

// ---- patches: y (b, rows, columns, 3·patch·patch), a row in the order (channel, row, column)

KERNEL void patch_gather(i64 n, int height, int width, int patch, int rows, int columns, int bytes, float m0, float m1,
                         float m2, float s0, float s1, float s2, const void* x, T* y) {
  int area = patch * patch;
  GRID_STRIDE(i, n) {
    int e = static_cast<int>(i % (3 * area));
    i64 p = i / (3 * area);
    int channel = e / area, iy = static_cast<int>(p / columns % rows) * patch + e % area / patch;
    int ix = static_cast<int>(p % columns) * patch + e % patch;
    i64 b = p / columns / rows;
    float v = 0;
    if (iy < height && ix < width) {
      if (bytes) {
        float raw = static_cast<const unsigned char*>(x)[((b * height + iy) * width + ix) * 3 + channel];
        v = (raw / 255.0f - (channel == 0 ? m0 : channel == 1 ? m1 : m2)) / (channel == 0 ? s0 : channel == 1 ? s1 : s2);
      } else {
        v = f(static_cast<const T*>(x)[((b * 3 + channel) * height + iy) * width + ix]);
      }
    }
    put(y + i, v);
  }
}

KERNEL void patch_scatter(i64 n, int height, int width, int patch, int rows, int columns, const T* dy, T* dx) {
  int area = patch * patch;
  GRID_STRIDE(i, n) {
    int ix = static_cast<int>(i % width), iy = static_cast<int>(i / width % height);
    int channel = static_cast<int>(i / width / height % 3);
    i64 b = i / width / height / 3;
    i64 p = (b * rows + iy / patch) * columns + ix / patch;
    dx[i] = dy[p * 3 * area + channel * area + iy % patch * patch + ix % patch];
  }
}

// ---- patch merging: quarter q of a merged pixel is (2i + q % 2, 2j + q / 2)

KERNEL void merge_gather(i64 n, int height, int width, int channels, const T* x, T* y) {
  int rows = (height + 1) / 2, columns = (width + 1) / 2;
  GRID_STRIDE(i, n) {
    int c = static_cast<int>(i % channels), q = static_cast<int>(i / channels % 4);
    i64 p = i / channels / 4;
    int iy = static_cast<int>(p / columns % rows) * 2 + q % 2, ix = static_cast<int>(p % columns) * 2 + q / 2;
    i64 b = p / columns / rows;
    if (iy < height && ix < width) {
      y[i] = x[((b * height + iy) * width + ix) * channels + c];
    } else {
      put(y + i, 0);
    }
  }
}

KERNEL void merge_scatter(i64 n, int height, int width, int channels, const T* dy, T* dx) {
  int rows = (height + 1) / 2, columns = (width + 1) / 2;
  GRID_STRIDE(i, n) {
    int c = static_cast<int>(i % channels), ix = static_cast<int>(i / channels % width);
    int iy = static_cast<int>(i / channels / width % height);
    i64 b = i / channels / width / height;
    int q = iy % 2 + ix % 2 * 2;
    dx[i] = dy[(((b * rows + iy / 2) * columns + ix / 2) * 4 + q) * channels + c];
  }
}

// ---- bilinear

KERNEL void resize(i64 n, int height, int width, int channels, int outHeight, int outWidth, int accumulate, const T* x,
                   T* y) {
  GRID_STRIDE(i, n) {
    int c = static_cast<int>(i % channels);
    i64 p = i / channels;
    Tap row = tap(static_cast<int>(p / outWidth % outHeight), height, outHeight);
    Tap column = tap(static_cast<int>(p % outWidth), width, outWidth);
    const T* from = x + p / outWidth / outHeight * height * width * channels + c;
    float tl = f(from[(static_cast<i64>(row.low) * width + column.low) * channels]);
    float tr = f(from[(static_cast<i64>(row.low) * width + column.high) * channels]);
    float bl = f(from[(static_cast<i64>(row.high) * width + column.low) * channels]);
    float br = f(from[(static_cast<i64>(row.high) * width + column.high) * channels]);
    float top = (1 - column.share) * tl + column.share * tr, bottom = (1 - column.share) * bl + column.share * br;
    float v = (1 - row.share) * top + row.share * bottom;
    put(y + i, accumulate ? f(y[i]) + v : v);
  }
}

KERNEL void resize_backward(i64 n, int height, int width, int channels, int outHeight, int outWidth, const T* dy,
                            T* dx) {
  GRID_STRIDE(i, n) {
    int c = static_cast<int>(i % channels);
    i64 p = i / channels;
    int sx = static_cast<int>(p % width), sy = static_cast<int>(p / width % height);
    const T* from = dy + p / width / height * outHeight * outWidth * channels + c;
    int y0 = first_reader(sy, height, outHeight), y1 = last_reader(sy, height, outHeight);
    int x0 = first_reader(sx, width, outWidth), x1 = last_reader(sx, width, outWidth);
    float sum = 0;
    for (int oy = y0; oy <= y1; oy++) {
      float wy = tap_weight(oy, sy, height, outHeight);
      if (wy == 0) continue;
      for (int ox = x0; ox <= x1; ox++)
        sum += wy * tap_weight(ox, sx, width, outWidth) * f(from[(static_cast<i64>(oy) * outWidth + ox) * channels]);
    }
    put(dx + i, sum);
  }
}

// ---- regions: cell i of n spans ⌊i·extent/n⌋ to ⌈(i+1)·extent/n⌉

// A block a cell: grid (cells, pictures), 128 threads.
KERNEL void region_pool(int height, int width, int rows, int columns, const void* x, int type, T* y) {
  SHARED(float, scratch);
  int r = blockIdx.x / columns, c = blockIdx.x % columns;
  int y0 = r * height / rows, y1 = ((r + 1) * height + rows - 1) / rows;
  int x0 = c * width / columns, x1 = ((c + 1) * width + columns - 1) / columns;
  i64 base = blockIdx.y * static_cast<i64>(height) * width;
  int w = x1 - x0, n = (y1 - y0) * w;
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    sum += element(x, type, base + static_cast<i64>(y0 + i / w) * width + x0 + i % w);
  sum = group_sum(sum, scratch);
  if (threadIdx.x == 0) put(y + blockIdx.y * static_cast<i64>(gridDim.x) + blockIdx.x, sum / n);
}

KERNEL void region_pool_backward(i64 n, int height, int width, int rows, int columns, const T* dy, T* dx) {
  GRID_STRIDE(i, n) {
    int px = static_cast<int>(i % width), py = static_cast<int>(i / width % height);
    i64 b = i / width / height;
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
