// Where the positions of a window lie in the map: what both files of windowed attention share.
#pragma once
#include "common.cuh"

#define MASKED -100.0f

#define MAP_ARGUMENTS \
  int height, int width, int heads, int d, int windowH, int windowW, int shiftH, int shiftW, int padFirst
#define MAP_VALUES height, width, heads, d, windowH, windowW, shiftH, shiftW, padFirst

struct Window {
  int height, width, windowH, windowW, shiftH, shiftW, padFirst;
  int frameH, frameW, top, left;
  int turnH, turnW, spanH, spanW;  // the cyclic shift, below the span that it is cyclic in

  // Map index that position n of the window reads, −1 for padding.
  DEVICE_MEMBER int source(int n) const {
    int i = top + n / windowW, j = left + n % windowW;
    if (!padFirst && (i >= height || j >= width)) return -1;
    int y = i + turnH, x = j + turnW;
    if (y >= spanH) y -= spanH;
    if (x >= spanW) x -= spanW;
    return y >= height || x >= width ? -1 : y * width + x;
  }
  // Which side of the seams a position lies on.
  DEVICE_MEMBER int side(int n) const {
    int i = top + n / windowW, j = left + n % windowW;
    int row = shiftH == 0 || i < frameH - windowH ? 0 : i < frameH - shiftH ? 1 : 2;
    int column = shiftW == 0 || j < frameW - windowW ? 0 : j < frameW - shiftW ? 1 : 2;
    return row * 3 + column;
  }
  // Row of the table for query n and key m.
  DEVICE_MEMBER int relative(int n, int m) const {
    return (n / windowW - m / windowW + windowH - 1) * (2 * windowW - 1) + n % windowW - m % windowW + windowW - 1;
  }
};

DEVICE Window window_of_block(MAP_ARGUMENTS) {
  (void)heads;
  (void)d;
  Window w = {height, width, windowH, windowW, shiftH, shiftW, padFirst, 0, 0, 0, 0, 0, 0, 0, 0};
  w.frameH = (height + windowH - 1) / windowH * windowH;
  w.frameW = (width + windowW - 1) / windowW * windowW;
  w.spanH = padFirst ? w.frameH : height;
  w.spanW = padFirst ? w.frameW : width;
  w.turnH = shiftH % w.spanH;
  w.turnW = shiftW % w.spanW;
  int columns = w.frameW / windowW;
  w.top = static_cast<int>(blockIdx.x) / columns * windowH;
  w.left = static_cast<int>(blockIdx.x) % columns * windowW;
  return w;
}
