package org.deixis.nn;

import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;

/**
 * One layer of a gated recurrent unit (Cho et al., 2014) with the parameters of PyTorch's nn.GRU:
 * weight_ih_l0 (3H, in), weight_hh_l0 (3H, H), bias_ih_l0 and bias_hh_l0 (3H), gates r, z, n.
 */
public final class Gru extends Module {
  private final Parameter inputWeight;
  private final Parameter hiddenWeight;
  private final Parameter inputBias;
  private final Parameter hiddenBias;
  private final int hidden;

  public Gru(ParameterSource source, int in, int hidden) {
    this.hidden = hidden;
    ParameterSource.Init init = Init.fanIn(hidden);
    inputWeight = take(source, "weight_ih_l0", Shape.of(3 * hidden, in), init);
    hiddenWeight = take(source, "weight_hh_l0", Shape.of(3 * hidden, hidden), init);
    inputBias = take(source, "bias_ih_l0", Shape.of(3 * hidden), init);
    hiddenBias = take(source, "bias_hh_l0", Shape.of(3 * hidden), init);
  }

  private Parameter take(
      ParameterSource source, String name, Shape shape, ParameterSource.Init init) {
    return register(name, source.parameter(name, shape, init));
  }

  /** The states (B, T, H) after each step of x (B, T, in), T at least 1, from a zero state. */
  public Tensor forward(Tensor x) {
    int batch = x.dim(0);
    int steps = x.dim(1);
    // Steps first, so that one step's rows are adjacent and a slice is enough.
    Tensor gates = x.transpose(1, 0, 2).linear(inputWeight.tensor(), inputBias.tensor());
    Tensor h = Tensor.zeros(x.backend(), x.dtype(), batch, hidden);
    Tensor[] states = new Tensor[steps];
    for (int t = 0; t < steps; t++) {
      Tensor gi = gates.slice(t, t + 1).reshape(batch, 3 * hidden);
      h = Tensor.gruCell(gi, h.linear(hiddenWeight.tensor(), hiddenBias.tensor()), h);
      states[t] = h;
    }
    return Tensor.concat(states).reshape(batch, steps, hidden);
  }
}
