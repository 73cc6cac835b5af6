package org.deixis.optim;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.autograd.Tape;
import org.deixis.backend.AdamW;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.nn.Parameter;
import org.deixis.optim.AdamWOptimizer.LossScaling;
import org.deixis.tensor.Tensor;
import org.deixis.testing.Golden;
import org.deixis.testing.Host;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class AdamWOptimizerTest {
  private static final AdamW SPEC = new AdamW(0.9f, 0.999f, 1e-8f);

  static List<Backend> backends() {
    return TestBackends.all();
  }

  private static AdamWOptimizer optimizer(
      Backend backend,
      Map<String, Parameter> parameters,
      double decay,
      double clip,
      LossScaling scaling) {
    return new AdamWOptimizer(
        backend, List.of(new ParameterGroup("all", 1, decay, parameters)), SPEC, clip, scaling);
  }

  /** Gives a parameter the gradient g: of Σ p·g. */
  private static void give(Backend backend, AdamWOptimizer optimizer, Parameter p, float[] g) {
    try (Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      Tensor loss =
          p.tensor()
              .mul(Tensor.floats(backend, g, p.shape().dims()).cast(p.tensor().dtype()))
              .cast(DType.F32)
              .sum();
      tape.backward(List.of(loss.variable()), List.of(optimizer.seed(loss.shape(), 1)));
    }
  }

  @ParameterizedTest(autoCloseArguments = false) // a backend is the process's, not the test's
  @MethodSource("backends")
  @Tag("golden")
  void stepsAsPyTorch(Backend backend) {
    Golden golden = Golden.load("optim/adamw");
    Parameter p = Parameter.of(backend, golden.floats("in.p"), Shape.of(300));
    long before = backend.memory().stats().live();
    try (AdamWOptimizer optimizer =
        optimizer(backend, Map.of("p", p), golden.number("weight_decay"), 0, LossScaling.NONE)) {
      float[] grads = golden.floats("in.grads");
      float[] expected = golden.floats("out.p");
      for (int step = 0; step < 6; step++) {
        give(
            backend,
            optimizer,
            p,
            java.util.Arrays.copyOfRange(grads, step * 300, step * 300 + 300));
        optimizer.step(golden.number("lr"));
        double[] e = new double[300];
        double[] a = new double[300];
        float[] now = p.toFloats();
        for (int i = 0; i < 300; i++) {
          e[i] = expected[step * 300 + i];
          a[i] = now[i];
        }
        assertTrue(Host.relative(a, e) <= 2e-5, "step " + step + ": " + Host.relative(a, e));
      }
      assertEquals(6, optimizer.status().step());
    }
    assertEquals(before, backend.memory().stats().live());
    p.close();
  }

  @ParameterizedTest(autoCloseArguments = false) // a backend is the process's, not the test's
  @MethodSource("backends")
  @Tag("golden")
  void clipsByTheGlobalNorm(Backend backend) {
    Golden golden = Golden.load("optim/clip_grad_norm");
    Map<String, Parameter> parameters = new LinkedHashMap<>();
    int[] sizes = {10, 1000, 3};
    for (int i = 0; i < 3; i++) {
      parameters.put("p" + i, Parameter.of(backend, new float[sizes[i]], Shape.of(sizes[i])));
    }
    try (AdamWOptimizer optimizer =
        optimizer(backend, parameters, 0, golden.number("max_norm"), LossScaling.NONE)) {
      for (int i = 0; i < 3; i++) {
        give(backend, optimizer, parameters.get("p" + i), golden.floats("in.g" + i));
      }
      optimizer.step(0);
      assertEquals(golden.floats("out.norm")[0], optimizer.status().norm(), 1e-4);
      // The first moment after one step is (1 − β1) times the clipped gradient.
      for (int i = 0; i < 3; i++) {
        float[] m = optimizer.state().get("m.p" + i);
        float[] g = golden.floats("out.g" + i);
        for (int j = 0; j < g.length; j++) {
          assertEquals(0.1f * g[j], m[j], 1e-6, "p" + i + "[" + j + "]");
        }
      }
    }
    parameters.values().forEach(Parameter::close);
  }

  @ParameterizedTest(autoCloseArguments = false) // a backend is the process's, not the test's
  @MethodSource("backends")
  void anOverflowInHalfSkipsTheStepAndHalvesTheScale(Backend backend) {
    Parameter p = Parameter.of(backend, new float[] {1, 2, 3}, Shape.of(3));
    p.precision(DType.F16);
    try (AdamWOptimizer optimizer =
        optimizer(backend, Map.of("p", p), 0, 1, new LossScaling(1024, 2))) {
      give(backend, optimizer, p, new float[] {1, 100, 1}); // 1024·100 is beyond fp16's 65,504
      assertTrue(Double.isInfinite(Host.download(p.gradient())[1]), "the gradient did overflow");
      optimizer.step(0.1);
      assertArrayEquals(new float[] {1, 2, 3}, p.toFloats(), "the step is skipped");
      assertEquals(512, optimizer.status().scale());
      assertEquals(1, optimizer.status().skipped());
      assertEquals(0, optimizer.status().step());
      for (int i = 0; i < 2; i++) {
        give(backend, optimizer, p, new float[] {1, 1, 1});
        optimizer.step(0.1);
        assertFalse(optimizer.status().overflow());
      }
      assertEquals(1024, optimizer.status().scale(), "two good steps double it");
      assertEquals(2, optimizer.status().step());
      // Equal gradients move every element by the rate, whatever the scale: 2 steps of 0.1.
      float[] now = p.toFloats();
      assertEquals(0.8f, now[0], 1e-3);
      assertEquals(2.8f, now[2], 1e-3);
      double[] half = Host.download(p.half());
      assertEquals(now[0], half[0], 1e-3, "the half copy follows");
    }
    p.close();
  }

  @ParameterizedTest(autoCloseArguments = false) // a backend is the process's, not the test's
  @MethodSource("backends")
  void stateGoesBackBitForBit(Backend backend) {
    float[] start = {0.5f, -0.25f};
    Parameter a = Parameter.of(backend, start, Shape.of(2));
    Parameter b = Parameter.of(backend, start, Shape.of(2));
    try (AdamWOptimizer one = optimizer(backend, Map.of("p", a), 0.01, 1, LossScaling.NONE);
        AdamWOptimizer two = optimizer(backend, Map.of("p", b), 0.01, 1, LossScaling.NONE)) {
      give(backend, one, a, new float[] {0.3f, 0.7f});
      one.step(0.01);
      b.set(a.toFloats());
      two.load(one.state());
      give(backend, one, a, new float[] {-1, 2});
      give(backend, two, b, new float[] {-1, 2});
      one.step(0.02);
      two.step(0.02);
      assertArrayEquals(a.toFloats(), b.toFloats());
    }
    a.close();
    b.close();
  }

  @ParameterizedTest(autoCloseArguments = false) // a backend is the process's, not the test's
  @MethodSource("backends")
  void groupsHaveTheirOwnRateAndDecay(Backend backend) {
    Map<String, Parameter> parameters = new LinkedHashMap<>();
    for (String name :
        List.of(
            "vision.layers.0.blocks.0.attn.qkv.weight",
            "vision.layers.0.blocks.0.attn.relative_position_bias_table",
            "text.encoder.layer.0.output.LayerNorm.weight",
            "rla.0.mlp.0.weight",
            "rla.0.mlp.0.bias")) {
      boolean vector = name.endsWith("bias") || name.contains("LayerNorm");
      parameters.put(
          name, Parameter.of(backend, new float[4], vector ? Shape.of(4) : Shape.of(2, 2)));
    }
    List<ParameterGroup> groups = ParameterGroup.of(parameters, 0.1, 0.05);
    Map<String, ParameterGroup> byName = new LinkedHashMap<>();
    groups.forEach(g -> g.parameters().keySet().forEach(n -> byName.put(n, g)));
    assertEquals(parameters.keySet(), byName.keySet());
    assertEquals(0.1, byName.get("vision.layers.0.blocks.0.attn.qkv.weight").rateFactor());
    assertEquals(0.05, byName.get("vision.layers.0.blocks.0.attn.qkv.weight").weightDecay());
    assertEquals(
        0, byName.get("vision.layers.0.blocks.0.attn.relative_position_bias_table").weightDecay());
    assertEquals(0, byName.get("text.encoder.layer.0.output.LayerNorm.weight").weightDecay());
    assertEquals(1, byName.get("rla.0.mlp.0.weight").rateFactor());
    assertEquals(0, byName.get("rla.0.mlp.0.bias").weightDecay());
    parameters.values().forEach(Parameter::close);
  }
}
