package org.deixis.nn;

/** Initial values, under the names of PyTorch's {@code nn.init}. */
public final class Init {
  private Init() {}

  public static ParameterSource.Init constant(float value) {
    return (rng, v) -> java.util.Arrays.fill(v, value);
  }

  public static ParameterSource.Init zeros() {
    return constant(0);
  }

  public static ParameterSource.Init ones() {
    return constant(1);
  }

  public static ParameterSource.Init uniform(double bound) {
    return (rng, v) -> {
      for (int i = 0; i < v.length; i++) {
        v[i] = (float) ((2 * rng.nextDouble() - 1) * bound);
      }
    };
  }

  public static ParameterSource.Init normal(double std) {
    return (rng, v) -> {
      for (int i = 0; i < v.length; i++) {
        v[i] = (float) (rng.nextGaussian() * std);
      }
    };
  }

  /**
   * Normal, drawn again beyond two standard deviations (BERT's and timm's choice for weights, std
   * 0.02).
   */
  public static ParameterSource.Init truncatedNormal(double std) {
    return (rng, v) -> {
      for (int i = 0; i < v.length; i++) {
        double x = rng.nextGaussian();
        while (Math.abs(x) > 2) {
          x = rng.nextGaussian();
        }
        v[i] = (float) (x * std);
      }
    };
  }

  /** Uniform within ±1/√fanIn: what PyTorch's Linear and Conv2d start with, weights and biases. */
  public static ParameterSource.Init fanIn(int fanIn) {
    return uniform(1 / Math.sqrt(Math.max(1, fanIn)));
  }

  /** Glorot and Bengio (2010): uniform within ±√(6/(fanIn+fanOut)). */
  public static ParameterSource.Init xavier(int fanIn, int fanOut) {
    return uniform(Math.sqrt(6.0 / (fanIn + fanOut)));
  }
}
