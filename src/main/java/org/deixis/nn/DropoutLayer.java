package org.deixis.nn;

import org.deixis.tensor.Tensor;

/**
 * Dropout (Srivastava et al., JMLR 2014) of single elements, or with {@code samples} of whole
 * samples (stochastic depth, Huang et al., ECCV 2016; timm's DropPath): what is kept is scaled by
 * 1/(1−p). Passes its input on unchanged outside of training.
 */
public final class DropoutLayer extends Module {
  private final double p;
  private final boolean samples;
  private final RandomState random;

  private DropoutLayer(double p, boolean samples, RandomState random) {
    if (!(p >= 0 && p < 1)) {
      throw new IllegalArgumentException("a share to drop lies in [0, 1), not " + p);
    }
    this.p = p;
    this.samples = samples;
    this.random = random;
  }

  /** Drops elements with probability {@code p}. */
  public static DropoutLayer elements(double p, RandomState random) {
    return new DropoutLayer(p, false, random);
  }

  /** Drops entries of the leading axis with probability {@code p}. */
  public static DropoutLayer samples(double p, RandomState random) {
    return new DropoutLayer(p, true, random);
  }

  public Tensor forward(Tensor x) {
    if (!training() || p == 0 || x.shape().size() == 0) {
      return x;
    }
    long block = samples ? x.shape().size() / x.dim(0) : 1;
    long first = random.take(x.shape().size() / block);
    return x.dropout(p, block, random.tensor(), first);
  }
}
