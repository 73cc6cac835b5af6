package org.deixis.nn;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.model.GoldenModels;
import org.deixis.model.gres.RegionImageAttention;
import org.deixis.model.gres.RegionLanguageAttention;
import org.deixis.tensor.Tensor;
import org.deixis.testing.Golden;
import org.deixis.testing.TestArrays;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Layers against PyTorch's: outputs, gradients of inputs and of parameters. */
@Tag("golden")
class LayerGoldenTest {
  static Stream<String> backends() {
    return GoldenModels.backends();
  }

  /** Runs a layer on the golden inputs and compares everything. */
  private interface Layer {
    Map<String, Tensor> forward(Map<String, Tensor> inputs, Tensor mask);
  }

  private static void check(Golden golden, Backend backend, Module module, Layer layer) {
    try (module;
        Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      TestArrays arrays = new TestArrays(backend, DType.F32);
      Map<String, Tensor> inputs = new LinkedHashMap<>();
      for (String key : golden.keys()) {
        if (key.startsWith("in.")) {
          inputs.put(key.substring(3), Tensor.of(Variable.leaf(arrays.of(golden, key))));
        }
      }
      Map<String, Tensor> outputs = layer.forward(inputs, mask(golden, backend));
      List<Variable> ends = new ArrayList<>();
      List<Array> gradients = new ArrayList<>();
      outputs.forEach(
          (name, y) -> {
            GoldenModels.assertClose(
                golden.name() + " " + name, golden.floats("out." + name), y.toFloats(), 2e-5);
            Shape shape = y.shape();
            ends.add(y.variable());
            gradients.add(arrays.of(golden.floats("up." + name), shape));
          });
      tape.backward(ends, gradients);
      inputs.forEach(
          (name, x) -> {
            GoldenModels.assertClose(
                golden.name() + " gradient of " + name,
                golden.floats("grad." + name),
                Tensor.of(x.variable().gradient()).toFloats(),
                2e-5);
            x.variable().clearGradient();
          });
      module
          .parameters()
          .forEach(
              (name, p) -> {
                float[] mine = Tensor.of(p.gradient()).toFloats();
                float[] expected = golden.floats("grad." + name);
                if (name.endsWith("in_proj_bias") || name.equals("proj_k.bias")) {
                  // The keys' share is zero in truth, and noise in both.
                  boolean all = name.equals("proj_k.bias");
                  int third = mine.length / 3;
                  Arrays.fill(mine, all ? 0 : third, all ? mine.length : 2 * third, 0);
                  Arrays.fill(expected, all ? 0 : third, all ? mine.length : 2 * third, 0);
                }
                GoldenModels.assertClose(
                    golden.name() + " gradient of " + name, expected, mine, 2e-5);
              });
    }
  }

  /** I32 (B, T) from the lengths of the golden file, or null. */
  private static Tensor mask(Golden golden, Backend backend) {
    if (!golden.hasMetadata("valid")) {
      return null;
    }
    int[] valid = golden.ints("valid");
    int t = 12;
    int[] mask = new int[valid.length * t];
    for (int i = 0; i < valid.length; i++) {
      Arrays.fill(mask, i * t, i * t + valid[i], 1);
    }
    return Tensor.ints(backend, mask, valid.length, t);
  }

  @ParameterizedTest
  @MethodSource("backends")
  void selfAttention(String device) {
    Golden golden = Golden.load("ops/mha_self");
    Backend backend = TestBackends.get(device);
    MultiHeadAttention m = new MultiHeadAttention(GoldenModels.weights(backend, golden), 48, 8);
    check(golden, backend, m, (in, mask) -> Map.of("y", m.self(in.get("x"), null)));
  }

  @ParameterizedTest
  @MethodSource("backends")
  void crossAttention(String device) {
    Golden golden = Golden.load("ops/mha_cross_padded");
    Backend backend = TestBackends.get(device);
    MultiHeadAttention m = new MultiHeadAttention(GoldenModels.weights(backend, golden), 48, 8);
    check(golden, backend, m, (in, mask) -> Map.of("y", m.cross(in.get("q"), in.get("kv"), mask)));
  }

  @ParameterizedTest
  @MethodSource("backends")
  void gru(String device) {
    Golden golden = Golden.load("ops/gru");
    Backend backend = TestBackends.get(device);
    Gru gru = new Gru(GoldenModels.weights(backend, golden), 24, 24);
    check(golden, backend, gru, (in, mask) -> Map.of("y", gru.forward(in.get("x"))));
  }

  @ParameterizedTest
  @MethodSource("backends")
  void regionImageAttention(String device) {
    Golden golden = Golden.load("ops/region_image_attention");
    Backend backend = TestBackends.get(device);
    RegionImageAttention ria =
        new RegionImageAttention(GoldenModels.weights(backend, golden), 32, 16);
    check(
        golden,
        backend,
        ria,
        (in, mask) -> {
          Tensor[] both = ria.forward(in.get("x"), null, 16);
          return Map.of("y", both[0], "attention", both[1]);
        });
  }

  @ParameterizedTest
  @MethodSource("backends")
  void regionLanguageAttention(String device) {
    Golden golden = Golden.load("ops/region_language_attention");
    Backend backend = TestBackends.get(device);
    RegionLanguageAttention rla =
        new RegionLanguageAttention(GoldenModels.weights(backend, golden), 32, 8);
    check(
        golden,
        backend,
        rla,
        (in, mask) -> Map.of("y", rla.forward(in.get("x"), in.get("t"), mask)));
  }
}
