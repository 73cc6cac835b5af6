package org.deixis.model;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.model.bert.TextEncoder;
import org.deixis.model.gres.GresLoss;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.Prediction;
import org.deixis.model.swin.Swin;
import org.deixis.nn.Module;
import org.deixis.nn.Parameter;
import org.deixis.tensor.Tensor;
import org.deixis.testing.Golden;
import org.deixis.testing.GoldenModels;
import org.deixis.testing.Host;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.TestFactory;

/**
 * Whole networks against PyTorch: outputs, every gradient, and the loss over eight steps of
 * training.
 */
@Tag("golden")
class ModelGoldenTest {
  private static final double TOLERANCE = 1e-4;

  private static Stream<DynamicTest> on(List<String> files, Check check) {
    return TestBackends.all().stream()
        .flatMap(
            backend ->
                files.stream()
                    .map(
                        f ->
                            dynamicTest(
                                f + " on " + backend.name(),
                                () -> {
                                  long before = backend.memory().stats().live();
                                  check.run(Golden.load("models/" + f), backend);
                                  assertEquals(
                                      before, backend.memory().stats().live(), "bytes left behind");
                                })));
  }

  private interface Check {
    void run(Golden golden, Backend backend) throws Exception;
  }

  @TestFactory
  Stream<DynamicTest> swin() {
    return on(
        List.of("swin_window7", "swin_padded", "swin_window12", "swin_two_stages"),
        ModelGoldenTest::checkSwin);
  }

  private static void checkSwin(Golden golden, Backend backend) {
    try (Swin swin = new Swin(new GoldenModels.Source(golden, backend), GoldenModels.swin(golden));
        Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      Variable image = Variable.leaf(upload(backend, golden, "in.image"));
      List<Tensor> maps = swin.forward(Tensor.of(image));
      List<Variable> outputs = new ArrayList<>();
      List<Array> upstream = new ArrayList<>();
      for (int i = 0; i < maps.size(); i++) {
        close(golden, "out.stage" + i, maps.get(i).array());
        outputs.add(maps.get(i).variable());
        upstream.add(upload(backend, golden, "up.stage" + i));
      }
      tape.backward(outputs, upstream);
      gradients(golden, swin);
      image.clearGradient();
    }
  }

  @TestFactory
  Stream<DynamicTest> text() {
    return on(List.of("bert", "roberta"), ModelGoldenTest::checkText);
  }

  private static void checkText(Golden golden, Backend backend) {
    var cfg =
        GoldenModels.metadata(
            golden,
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
            "pad_token_id");
    boolean roberta = golden.json("kind").asText().equals("roberta");
    try (TextEncoder text =
            new TextEncoder(
                new GoldenModels.Source(golden, backend), GoldenModels.text(cfg, roberta));
        Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      Shape shape = golden.shape("in.ids");
      int[] mask = ints(golden, "in.mask");
      Tensor maskTensor = Tensor.ints(backend, mask, shape.dims());
      Tensor y = text.forward(backend, ints(golden, "in.ids"), mask, maskTensor);
      close(golden, "out.y", y.array());
      tape.backward(List.of(y.variable()), List.of(upload(backend, golden, "up.y")));
      gradients(golden, text);
    }
  }

  @TestFactory
  Stream<DynamicTest> guide() {
    return on(
        List.of("guide_p8", "guide_p4_one_layer", "guide_p8_shared_picture", "guide_p16_roberta"),
        ModelGoldenTest::checkGuide);
  }

  private static void checkGuide(Golden golden, Backend backend) throws Exception {
    try (GuideModel model =
        new GuideModel(new GoldenModels.Source(golden, backend), GoldenModels.guide(golden))) {
      try (Scope scope = Scope.open();
          Tape tape = Tape.open()) {
        Prediction p = predict(model, golden);
        close(golden, "out.mask", p.mask().array());
        close(golden, "out.region_probs", p.regions().array());
        close(golden, "out.is_negative", p.noTarget().array());
        close(golden, "out.region_attention", p.regionAttention().array());
        Tensor loss = loss(golden, backend, p);
        close(golden, "out.loss", loss.array());
        tape.backward(loss.variable());
        gradients(golden, model);
      }
      model.clearGradients();
      curve(golden, backend, model);
    }
  }

  private static Prediction predict(GuideModel model, Golden golden) {
    Tensor image = Tensor.of(upload(model.backend(), golden, "in.image"));
    return model.forward(
        image, ints(golden, "in.ids"), ints(golden, "in.text_mask"), golden.shape("in.ids").dim(1));
  }

  private static Tensor loss(Golden golden, Backend backend, Prediction p) {
    return GresLoss.GUIDE
        .of(
            p,
            Tensor.of(upload(backend, golden, "in.mask")),
            Tensor.of(upload(backend, golden, "in.is_negative")))
        .total();
  }

  /** The loss before each of eight steps of AdamW with clipping, as make_golden took it. */
  private static void curve(Golden golden, Backend backend, GuideModel model) {
    float[] expected = golden.floats("out.loss_curve");
    AdamW spec = new AdamW(0.9f, 0.999f, 1e-8f);
    try (Scope scope = Scope.open()) {
      Array control =
          Host.upload(
              backend,
              new double[] {golden.number("lr"), 0, 1, 0, 0, 0, 0, 0},
              Shape.of(AdamW.SLOTS),
              DType.F32);
      List<Array[]> moments = new ArrayList<>();
      for (Parameter p : model.parameters().values()) {
        Array m = backend.allocate(p.shape(), DType.F32);
        Array v = backend.allocate(p.shape(), DType.F32);
        backend.fill(m, 0);
        backend.fill(v, 0);
        moments.add(new Array[] {m, v});
      }
      long before = backend.memory().stats().live();
      for (int step = 0; step < expected.length; step++) {
        try (Scope inner = Scope.open();
            Tape tape = Tape.open()) {
          Tensor loss = loss(golden, backend, predict(model, golden));
          double value = loss.item();
          assertTrue(
              Math.abs(value - expected[step]) <= TOLERANCE * Math.abs(expected[step]),
              golden.name() + " loss of step " + step + " is " + value + ", not " + expected[step]);
          tape.backward(loss.variable());
          List<AdamW.Slot> slots = new ArrayList<>();
          List<Array> gradients = new ArrayList<>();
          int i = 0;
          for (Parameter p : model.parameters().values()) {
            Array[] mv = moments.get(i++);
            if (p.gradient() != null) {
              gradients.add(p.gradient());
              slots.add(
                  new AdamW.Slot(
                      p.master(),
                      p.gradient(),
                      mv[0],
                      mv[1],
                      null,
                      1,
                      (float) golden.number("weight_decay")));
            }
          }
          backend.gradientNorm(gradients, golden.number("max_norm"), control);
          backend.adamW(spec, slots, control);
          backend.advance(0, control);
          model.clearGradients();
        }
        assertEquals(before, backend.memory().stats().live(), "bytes left by step " + step);
      }
    }
  }

  private static void gradients(Golden golden, Module module) {
    Map<String, Parameter> parameters = module.parameters();
    double largest = 0;
    for (String key : golden.keys()) {
      if (key.startsWith("grad.")) {
        largest = Math.max(largest, norm(doubles(golden.floats(key))));
      }
    }
    int compared = 0;
    for (String key : golden.keys()) {
      if (!key.startsWith("grad.")) {
        continue;
      }
      String name = key.substring("grad.".length());
      Parameter p = parameters.get(name);
      assertTrue(p != null, golden.name() + ": no parameter " + name);
      double[] expected = doubles(golden.floats(key));
      double[] actual =
          p.gradient() == null ? new double[expected.length] : Host.download(p.gradient());
      double error = Host.relative(actual, expected);
      double difference = 0;
      for (int i = 0; i < actual.length; i++) {
        difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
      }
      // Zero in truth (key biases of attention): what stands there is rounding, compared with the
      // largest gradient.
      boolean vanishes = Math.sqrt(difference) <= 1e-6 * largest;
      assertTrue(error <= TOLERANCE || vanishes, golden.name() + " " + key + " is off by " + error);
      compared++;
    }
    assertTrue(compared > 10, "only " + compared + " gradients in " + golden.name());
  }

  private static void close(Golden golden, String key, Array actual) {
    double error = Host.relative(Host.download(actual), doubles(golden.floats(key)));
    assertTrue(error <= TOLERANCE, golden.name() + " " + key + " is off by " + error);
  }

  private static Array upload(Backend backend, Golden golden, String key) {
    return Host.upload(backend, doubles(golden.floats(key)), golden.shape(key), DType.F32);
  }

  private static int[] ints(Golden golden, String key) {
    long[] v = golden.longs(key);
    int[] out = new int[v.length];
    for (int i = 0; i < v.length; i++) {
      out[i] = (int) v[i];
    }
    return out;
  }

  private static double norm(double[] v) {
    double sum = 0;
    for (double x : v) {
      sum += x * x;
    }
    return Math.sqrt(sum);
  }

  private static double[] doubles(float[] v) {
    double[] d = new double[v.length];
    for (int i = 0; i < v.length; i++) {
      d[i] = v[i];
    }
    return d;
  }
}
