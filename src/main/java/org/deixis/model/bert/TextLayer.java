package org.deixis.model.bert;

import org.deixis.backend.Activation;
import org.deixis.backend.Scope;
import org.deixis.nn.DropoutLayer;
import org.deixis.nn.Init;
import org.deixis.nn.LayerNormLayer;
import org.deixis.nn.LinearLayer;
import org.deixis.nn.Module;
import org.deixis.nn.ParameterSource;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;

/** One encoder layer: x = norm(x + attention(x)); x = norm(x + feedForward(x)). */
final class TextLayer extends Module {
  static final ParameterSource.Init WEIGHTS = Init.normal(0.02);

  private final int heads;
  private final Activation activation;
  private final LinearLayer query;
  private final LinearLayer key;
  private final LinearLayer value;
  private final LinearLayer attended;
  private final LayerNormLayer attendedNorm;
  private final LinearLayer inner;
  private final LinearLayer outer;
  private final LayerNormLayer outerNorm;
  private final DropoutLayer dropout;

  TextLayer(ParameterSource source, TextConfig config, RandomState random) {
    int c = config.hidden();
    heads = config.heads();
    activation = config.activation();
    query = linear(source, "attention.self.query", c, c);
    key = linear(source, "attention.self.key", c, c);
    value = linear(source, "attention.self.value", c, c);
    attended = linear(source, "attention.output.dense", c, c);
    attendedNorm = norm(source, "attention.output.LayerNorm", config);
    inner = linear(source, "intermediate.dense", c, config.intermediate());
    outer = linear(source, "output.dense", config.intermediate(), c);
    outerNorm = norm(source, "output.LayerNorm", config);
    dropout = register("dropout", DropoutLayer.elements(config.dropout(), random));
  }

  private LinearLayer linear(ParameterSource source, String name, int in, int out) {
    return register(name, new LinearLayer(source.part(name), in, out, true, WEIGHTS, Init.zeros()));
  }

  private LayerNormLayer norm(ParameterSource source, String name, TextConfig config) {
    return register(
        name, new LayerNormLayer(source.part(name), config.hidden(), config.layerNormEps()));
  }

  /** x (B, T, C), mask I32 (B, T). */
  Tensor forward(Tensor x, Tensor mask) {
    try (Scope scope = Scope.open()) {
      Tensor gathered = within("attention", () -> attend(x, mask));
      Tensor middle = attendedNorm.forward(dropout.forward(gathered), x)[1];
      Tensor fed = within("intermediate", () -> inner.forward(middle, activation, outer));
      return outerNorm.forward(dropout.forward(fed), middle)[1].keep(scope);
    }
  }

  private Tensor attend(Tensor x, Tensor mask) {
    Tensor packed = Tensor.concat(query.forward(x), key.forward(x), value.forward(x));
    return attended.forward(packed.selfAttention(mask, heads));
  }
}
