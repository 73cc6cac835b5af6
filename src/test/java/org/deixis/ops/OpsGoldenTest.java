package org.deixis.ops;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Stream;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.tensor.Tensor;
import org.deixis.testing.Golden;
import org.deixis.testing.Host;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.TestFactory;

/** Every single operation of the golden files, through the public operations, on every backend. */
@Tag("golden")
class OpsGoldenTest {
  private static final double TOLERANCE = 2e-5;

  /** Operands of one golden file as leaves on one backend, by the file's keys. */
  private static final class Operands {
    final Golden golden;
    final Backend backend;
    final Map<String, Variable> leaves = new LinkedHashMap<>();

    Operands(Golden golden, Backend backend) {
      this.golden = golden;
      this.backend = backend;
    }

    /**
     * The tensor of that key; floats under "in." and "w." are leaves whose gradient is compared.
     */
    Tensor get(String key) {
      return Tensor.of(
          leaves.computeIfAbsent(
              key,
              k -> {
                if (golden.dtype(k) == DType.I64) {
                  long[] v = golden.longs(k);
                  double[] d = new double[v.length];
                  for (int i = 0; i < v.length; i++) {
                    d[i] = v[i];
                  }
                  return Variable.constant(Host.upload(backend, d, golden.shape(k), DType.I32));
                }
                return Variable.leaf(
                    Host.upload(backend, doubles(golden.floats(k)), golden.shape(k), DType.F32));
              }));
    }

    /** A target: without gradient. */
    Tensor constant(String key) {
      return Tensor.of(
          Host.upload(backend, doubles(golden.floats(key)), golden.shape(key), DType.F32));
    }

    Tensor channelsLast(String key) {
      return get(key).transpose(0, 2, 3, 1);
    }
  }

  private record Case(String file, String output, Function<Operands, Tensor> run) {}

  private static Case of(String file, Function<Operands, Tensor> run) {
    return new Case("ops/" + file, "y", run);
  }

  private static Tensor channelsFirst(Tensor t) {
    return t.transpose(0, 3, 1, 2);
  }

  private static List<Case> cases() {
    List<Case> c = new ArrayList<>();
    c.add(of("linear", o -> o.get("in.x").linear(o.get("w.weight"), o.get("w.bias"))));
    c.add(of("layer_norm", o -> o.get("in.x").layerNorm(o.get("w.weight"), o.get("w.bias"), 1e-5)));
    c.add(of("gelu_erf", o -> o.get("in.x").gelu()));
    c.add(of("gelu_tanh", o -> o.get("in.x").geluTanh()));
    c.add(of("softmax", o -> o.get("in.x").softmax()));
    c.add(of("sigmoid", o -> o.get("in.x").sigmoid()));
    c.add(of("tanh", o -> o.get("in.x").tanh()));
    c.add(of("matmul_batched", o -> o.get("in.a").matmul(o.get("in.b"))));
    c.add(of("embedding", o -> o.get("in.ids").embedding(o.get("w.weight"))));
    c.add(
        of(
            "conv3x3",
            o ->
                channelsFirst(
                    o.channelsLast("in.x").conv2d(o.get("w.weight"), o.get("w.bias"), 1, 1))));
    c.add(
        of(
            "patch_embed_conv",
            o ->
                channelsFirst(
                    o.get("in.x")
                        .patches(4, DType.F32)
                        .linear(o.get("w.weight").reshape(16, 48), o.get("w.bias")))));
    c.add(
        of(
            "group_norm",
            o ->
                channelsFirst(
                    o.channelsLast("in.x")
                        .groupNorm(4, o.get("w.weight"), o.get("w.bias"), 1e-5))));
    c.add(of("instance_norm_1d", o -> o.get("in.x").layerNorm(null, null, 1e-5)));
    for (String tag : List.of("up2", "up4", "odd", "down")) {
      c.add(
          of(
              "bilinear_" + tag,
              o -> {
                int[] to = o.golden.ints("to");
                return channelsFirst(o.channelsLast("in.x").resize(to[0], to[1]));
              }));
    }
    for (int p : new int[] {4, 8, 16}) {
      c.add(
          of(
              "region_pool_" + p,
              o -> {
                int[] grid = o.golden.ints("grid");
                return o.get("in.x")
                    .reshape(2, 30, 42)
                    .regionPool(grid[0], grid[1], DType.F32)
                    .reshape(2, 1, grid[0], grid[1]);
              }));
    }
    c.add(of("bce_with_logits", o -> o.get("in.x").binaryLoss(o.constant("in.t"), null).mean()));
    c.add(
        of(
            "focal",
            o -> o.get("in.x").binaryLoss(o.constant("in.t"), Losses.Focal.DEFAULT).mean()));
    c.add(of("upsample_bce", o -> o.get("in.x").maskLoss(o.constant("in.t"), null, 0).mean()));
    c.add(of("cross_entropy_weighted", OpsGoldenTest::crossEntropy));
    c.add(of("gru", OpsGoldenTest::gru));
    c.add(
        of(
            "mha_self",
            o ->
                o.get("in.x")
                    .linear(o.get("w.in_proj_weight"), o.get("w.in_proj_bias"), Activation.NONE)
                    .selfAttention(null, 8)
                    .linear(o.get("w.out_proj.weight"), o.get("w.out_proj.bias"))));
    c.add(of("mha_cross_padded", OpsGoldenTest::paddedCrossAttention));
    return c;
  }

  /** Targets are the upper left of another file's, as the writer of the files took them. */
  private static Tensor crossEntropy(Operands o) {
    Golden other = Golden.load("ops/upsample_bce");
    float[] t = other.floats("in.t");
    int[] targets = new int[2 * 10 * 9];
    for (int b = 0, i = 0; b < 2; b++) {
      for (int y = 0; y < 10; y++) {
        for (int x = 0; x < 9; x++) {
          targets[i++] = t[(b * 40 + y) * 36 + x] > 0.5 ? 1 : 0;
        }
      }
    }
    return o.channelsLast("in.x")
        .reshape(180, 2)
        .crossEntropy(
            Tensor.ints(o.backend, targets, 180),
            Tensor.floats(o.backend, new float[] {0.9f, 1.1f}, 2))
        .reshape();
  }

  private static Tensor gru(Operands o) {
    Tensor x = o.get("in.x").transpose(1, 0, 2);
    Tensor h = Tensor.zeros(o.backend, DType.F32, 2, 24);
    Tensor[] steps = new Tensor[7];
    for (int t = 0; t < 7; t++) {
      Tensor gi =
          x.slice(t, t + 1).reshape(2, 24).linear(o.get("w.weight_ih_l0"), o.get("w.bias_ih_l0"));
      Tensor gh = h.linear(o.get("w.weight_hh_l0"), o.get("w.bias_hh_l0"));
      h = Tensor.gruCell(gi, gh, h);
      steps[t] = h;
    }
    return Tensor.concat(steps).reshape(2, 7, 24);
  }

  private static Tensor paddedCrossAttention(Operands o) {
    int[] valid = o.golden.ints("valid");
    int[] mask = new int[3 * 12];
    for (int i = 0; i < mask.length; i++) {
      mask[i] = i % 12 < valid[i / 12] ? 1 : 0;
    }
    Tensor weight = o.get("w.in_proj_weight");
    Tensor bias = o.get("w.in_proj_bias");
    Tensor q = o.get("in.q").linear(weight.slice(0, 48), bias.slice(0, 48));
    Tensor kv = o.get("in.kv").linear(weight.slice(48, 144), bias.slice(48, 144));
    return q.crossAttention(kv, Tensor.ints(o.backend, mask, 3, 12), 8)
        .linear(o.get("w.out_proj.weight"), o.get("w.out_proj.bias"));
  }

  @TestFactory
  Stream<DynamicTest> agreesWithPyTorch() {
    return TestBackends.all().stream()
        .flatMap(
            backend ->
                cases().stream()
                    .map(
                        c ->
                            dynamicTest(
                                c.file + " on " + backend.name(), () -> check(c, backend))));
  }

  private static void check(Case c, Backend backend) {
    Golden golden = Golden.load(c.file);
    Operands operands = new Operands(golden, backend);
    long before = backend.memory().stats().live();
    try (Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      Tensor y = c.run.apply(operands);
      close(c, "output", Host.download(y.array()), golden.floats("out." + c.output));
      Array up =
          Host.upload(
              backend,
              doubles(golden.floats("up." + c.output)),
              Shape.of(y.shape().dims()),
              DType.F32);
      tape.backward(List.of(y.variable()), List.of(up));
      int compared = 0;
      for (String key : golden.keys()) {
        if (key.startsWith("grad.")) {
          String name = key.substring("grad.".length());
          Variable leaf =
              operands.leaves.get(golden.has("in." + name) ? "in." + name : "w." + name);
          assertTrue(leaf != null, c.file + " has a gradient of " + name + ", which was not read");
          double[] actual = Host.download(leaf.gradient());
          float[] expected = golden.floats(key);
          close(c, key, actual, expected);
          compared++;
        }
      }
      assertTrue(compared > 0, "no gradient in " + c.file);
    } finally {
      operands.leaves.values().forEach(Variable::clearGradient);
    }
    assertTrue(before == backend.memory().stats().live(), c.file + " leaves memory behind");
  }

  private static void close(Case c, String what, double[] actual, float[] expected) {
    double error = Host.relative(actual, doubles(expected));
    assertTrue(error <= TOLERANCE, c.file + " " + what + " is off by " + error);
  }

  private static double[] doubles(float[] v) {
    double[] d = new double[v.length];
    for (int i = 0; i < v.length; i++) {
      d[i] = v[i];
    }
    return d;
  }
}
