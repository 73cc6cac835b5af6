package org.deixis.backend;

/**
 * A two-dimensional convolution without dilation or groups. x is (N, H, W, inChannels), channels
 * last; the weight (outChannels, inChannels, kernel, kernel) as PyTorch stores it; y (N, outHeight,
 * outWidth, outChannels).
 */
public record Conv2d(
    int batch,
    int height,
    int width,
    int inChannels,
    int outChannels,
    int kernel,
    int stride,
    int padding) {

  public int outHeight() {
    return (height + 2 * padding - kernel) / stride + 1;
  }

  public int outWidth() {
    return (width + 2 * padding - kernel) / stride + 1;
  }
}
