package org.deixis.model;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.stream.Stream;
import org.deixis.autograd.Tape;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.model.bert.Tokens;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.Prediction;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;
import org.deixis.testing.TestBackends;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * The no-target logit with the mask's highest logit: head + weight · max + bias, read without
 * gradient.
 */
class MaskEvidenceTest {
  private static final float WEIGHT = -0.75f;
  private static final float BIAS = 0.3f;

  static Stream<Backend> backends() {
    return TestBackends.all().stream();
  }

  private static GuideModel model(Backend backend, boolean evidence) {
    String json =
        """
        {"imageHeight": 32, "imageWidth": 32,
         "swin": {"embedDim": 8, "depths": [1, 1, 1, 1], "heads": [1, 1, 1, 1], "window": 4},
         "text": {"vocab": 20, "hidden": 16, "layers": 1, "heads": 2, "intermediate": 32, "maxPositions": 24},
         "dim": 16, "maskDim": 8, "regions": 4, "layers": 1, "heads": 2, "fusionLevels": [0], "normGroups": 4,
         "maxTokens": 16, "maskEvidence": %b}"""
            .formatted(evidence);
    // A parameter's draws depend on seed and name alone: both models have the same others.
    return new GuideModel(
        ParameterSource.fresh(backend, 9),
        GresConfig.parse("tiny", json.getBytes(StandardCharsets.UTF_8)));
  }

  private static Prediction forward(GuideModel model, Backend backend) {
    float[] image = new float[2 * 3 * 32 * 32];
    for (int i = 0; i < image.length; i++) {
      image[i] = (float) Math.cos(0.21 * i);
    }
    return model.forward(
        Tensor.floats(backend, image, 2, 3, 32, 32),
        model.upload(Tokens.pad(List.of(new int[] {3, 5, 7}, new int[] {4, 9}), 0)));
  }

  @ParameterizedTest(autoCloseArguments = false) // a backend is the process's, not the test's
  @MethodSource("backends")
  void itIsAddedToTheHead(Backend backend) {
    try (GuideModel plain = model(backend, false);
        GuideModel reading = model(backend, true);
        Tape off = Tape.pause();
        Scope scope = Scope.open()) {
      reading.parameters().get("no_target_evidence.weight").set(new float[] {WEIGHT});
      reading.parameters().get("no_target_evidence.bias").set(new float[] {BIAS});
      Prediction without = forward(plain, backend);
      float[] head = without.isNegative().toFloats();
      float[] mask = without.mask().toFloats();
      float[] with = forward(reading, backend).isNegative().toFloats();
      int pixels = mask.length / 2;
      for (int b = 0; b < 2; b++) {
        double highest = Double.NEGATIVE_INFINITY;
        for (int i = 0; i < pixels; i++) {
          highest = Math.max(highest, mask[b * pixels + i]);
        }
        assertEquals(head[b] + WEIGHT * highest + BIAS, with[b], 1e-5);
      }
    }
  }

  /**
   * Drawn like other layers' of one input, its weight would lie anywhere in [-1, 1], and half of
   * all seeds would begin with the wrong sign.
   */
  @ParameterizedTest(autoCloseArguments = false) // a backend is the process's, not the test's
  @MethodSource("backends")
  void aFreshOneSaysNothingYet(Backend backend) {
    try (GuideModel plain = model(backend, false);
        GuideModel reading = model(backend, true);
        Tape off = Tape.pause();
        Scope scope = Scope.open()) {
      assertArrayEquals(
          forward(plain, backend).isNegative().toFloats(),
          forward(reading, backend).isNegative().toFloats());
    }
  }

  @ParameterizedTest(autoCloseArguments = false) // a backend is the process's, not the test's
  @MethodSource("backends")
  void masksLearnNothingFromIt(Backend backend) {
    try (GuideModel model = model(backend, true);
        Scope scope = Scope.open();
        Tape tape = Tape.open()) {
      model.parameters().get("no_target_evidence.weight").set(new float[] {WEIGHT});
      Prediction p = forward(model, backend);
      Array seed = backend.allocate(p.isNegative().shape(), DType.F32);
      backend.fill(seed, 1);
      tape.backward(List.of(p.isNegative().variable()), List.of(seed));
      assertNull(model.parameters().get("mask_embed.2.weight").gradient());
      assertNull(model.parameters().get("mask_conv.weight").gradient());
      assertNotNull(model.parameters().get("no_target_head.2.weight").gradient());
      // d/d bias of Σ over two expressions is 2, and d/d weight the sum of the peaks.
      assertArrayEquals(
          new float[] {2},
          Tensor.of(model.parameters().get("no_target_evidence.bias").gradient()).toFloats(),
          1e-6f);
      model.clearGradients();
    }
  }
}
