package org.deixis.model;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.deixis.autograd.Tape;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GresLoss;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.Prediction;
import org.deixis.nn.Parameter;
import org.deixis.tensor.Tensor;
import org.deixis.testing.Golden;
import org.deixis.testing.TestArrays;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * The guide model against the executable specification: outputs, loss, every gradient, and the loss
 * over steps of AdamW.
 */
@Tag("golden")
class GuideGoldenTest {
  static Stream<Arguments> cases() {
    return GoldenModels.backends()
        .flatMap(
            device ->
                Stream.of(
                        "models/guide_p8",
                        "models/guide_p4_one_layer",
                        "models/guide_p8_shared_picture",
                        "models/guide_p16_roberta")
                    .map(file -> Arguments.of(device, file)));
  }

  /** A golden batch on the device. */
  private record Batch(Golden golden, Backend backend) {
    Tensor images() {
      return Tensor.of(new TestArrays(backend, DType.F32).of(golden, "in.image"));
    }

    Prediction forward(GuideModel model) {
      return model.forward(
          images(), model.upload(EncoderGoldenTest.tokens(golden, "in.ids", "in.text_mask")));
    }

    GresLoss.Result loss(Prediction prediction) {
      float[] mask = golden.floats("in.mask");
      byte[] bytes = new byte[mask.length];
      for (int i = 0; i < bytes.length; i++) {
        bytes[i] = (byte) mask[i];
      }
      Tensor bitmaps = Tensor.bytes(backend, bytes, golden.shape("in.mask").dims());
      Tensor negative =
          Tensor.floats(
              backend, golden.floats("in.is_negative"), golden.shape("in.is_negative").dims());
      return GresLoss.DEFAULT.of(prediction, bitmaps, negative);
    }
  }

  @ParameterizedTest
  @MethodSource("cases")
  void outputsAndGradients(String device, String file) {
    Golden golden = Golden.load(file);
    Backend backend = TestBackends.get(device);
    GresConfig config = GoldenModels.guide(golden);
    try (GuideModel model = new GuideModel(GoldenModels.weights(backend, golden), config);
        Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      Batch batch = new Batch(golden, backend);
      Prediction p = batch.forward(model);
      close(golden, "mask", p.mask());
      close(golden, "region_probs", p.regionLogits());
      close(golden, "is_negative", p.isNegative());
      close(golden, "region_attention", p.regionAttention());
      assertEquals(golden.shape("out.mask"), p.mask().shape());
      GresLoss.Result loss = batch.loss(p);
      close(golden, "loss", loss.total());
      tape.backward(loss.total().variable());
      GoldenModels.assertGradients(golden, model);
    }
  }

  private static void close(Golden golden, String what, Tensor actual) {
    GoldenModels.assertClose(
        golden.name() + " " + what,
        golden.floats("out." + what),
        actual.toFloats(),
        GoldenModels.TOLERANCE);
  }

  @ParameterizedTest
  @MethodSource("cases")
  void lossCurve(String device, String file) {
    Golden golden = Golden.load(file);
    Backend backend = TestBackends.get(device);
    float[] expected = golden.floats("out.loss_curve");
    try (GuideModel model =
            new GuideModel(GoldenModels.weights(backend, golden), GoldenModels.guide(golden));
        Scope scope = Scope.open()) {
      Batch batch = new Batch(golden, backend);
      List<Array[]> moments = new ArrayList<>();
      for (Parameter p : model.parameters().values()) {
        moments.add(new Array[] {zeros(backend, p.shape()), zeros(backend, p.shape())});
      }
      float[] start = new float[AdamW.SLOTS];
      start[AdamW.LR] = (float) golden.number("lr");
      start[AdamW.SCALE] = 1;
      Array control = Tensor.floats(backend, start, AdamW.SLOTS).array();
      double worst = 0;
      for (int step = 0; step < expected.length; step++) {
        double loss = step(model, batch, moments, control);
        double off = Math.abs(loss - expected[step]) / expected[step];
        worst = Math.max(worst, off);
        assertEquals(0, off, 1e-4, file + " loss of step " + step + ": " + loss);
      }
      System.out.printf("%s %s: loss curve off by %.1e%n", device, file, worst);
    }
  }

  private static Array zeros(Backend backend, Shape shape) {
    return Tensor.zeros(backend, DType.F32, shape.dims()).array();
  }

  private static double step(GuideModel model, Batch batch, List<Array[]> moments, Array control) {
    try (Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      Tensor loss = batch.loss(batch.forward(model)).total();
      tape.backward(loss.variable());
      List<Array> gradients = new ArrayList<>();
      List<AdamW.Slot> slots = new ArrayList<>();
      int i = 0;
      for (Parameter p : model.parameters().values()) {
        gradients.add(p.gradient());
        Array[] m = moments.get(i++);
        float decay = (float) batch.golden().number("weight_decay");
        slots.add(new AdamW.Slot(p.master(), p.gradient(), m[0], m[1], null, 1, decay));
      }
      Backend backend = batch.backend();
      backend.gradientNorm(gradients, batch.golden().number("max_norm"), control);
      backend.adamW(new AdamW(0.9f, 0.999f, 1e-8f), slots, control);
      backend.advance(0, control);
      model.clearGradients();
      return loss.item();
    }
  }
}
