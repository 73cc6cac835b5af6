package org.deixis.data;

import java.util.Arrays;
import java.util.IdentityHashMap;
import java.util.Map;
import org.deixis.core.InputException;

/**
 * How often each sample is drawn, relative to the others: the hook for hard-example mining. A
 * trainer sets a sample's weight (say, from the running mean of its loss); the loader draws the
 * next epoch by the weights as they are when its first batch is asked for, so that the order does
 * not depend on how far the loader reads ahead. All weights are 1 at first. Safe from any thread.
 */
public final class SampleWeights {
  private final Map<Sample, Integer> indices = new IdentityHashMap<>();
  private final double[] weights;

  public SampleWeights(Dataset dataset) {
    for (Sample sample : dataset.samples()) {
      indices.put(sample, indices.size());
    }
    weights = new double[indices.size()];
    Arrays.fill(weights, 1);
  }

  /**
   * Sets the weight of a sample of the data set.
   *
   * @param weight positive and finite
   */
  public synchronized void set(Sample sample, double weight) {
    if (!(weight > 0 && weight < Double.POSITIVE_INFINITY)) {
      throw new IllegalArgumentException("weight " + weight + " is not positive and finite");
    }
    weights[index(sample)] = weight;
  }

  public synchronized double get(Sample sample) {
    return weights[index(sample)];
  }

  /** All weights in the order of the data set's samples, a copy, for a checkpoint. */
  public synchronized double[] values() {
    return weights.clone();
  }

  /** Puts back what {@link #values} gave. */
  public synchronized void restore(double[] values) {
    if (values.length != weights.length) {
      throw new InputException(
          "checkpoint has weights of %d samples, the data set holds %d; give the data set it was"
                  .formatted(values.length, weights.length)
              + " trained with");
    }
    System.arraycopy(values, 0, weights, 0, weights.length);
  }

  private int index(Sample sample) {
    Integer index = indices.get(sample);
    if (index == null) {
      throw new IllegalArgumentException("not a sample of this data set: " + sample);
    }
    return index;
  }
}
