package org.deixis.backend;

/**
 * Cuts pictures into patch×patch squares: y is (B, ⌈H/patch⌉, ⌈W/patch⌉, 3·patch·patch), a row in
 * the order (channel, row, column) of a convolution's weight. The picture is either normalised
 * floats (B, 3, H, W), or bytes (B, H, W, 3) that are normalised on the way as (value/255 −
 * mean)/std. What a patch reads beyond the edge is 0.
 */
public record PatchGather(int batch, int height, int width, int patch, float[] mean, float[] std) {
  /** Channel means of ImageNet, red, green, blue (torchvision's and timm's default). */
  public static final float[] IMAGENET_MEAN = {0.485f, 0.456f, 0.406f};

  public static final float[] IMAGENET_STD = {0.229f, 0.224f, 0.225f};

  public int rows() {
    return (height + patch - 1) / patch;
  }

  public int columns() {
    return (width + patch - 1) / patch;
  }
}
