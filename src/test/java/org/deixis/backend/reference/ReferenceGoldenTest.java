package org.deixis.backend.reference;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Arrays;
import java.util.List;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Conv2d;
import org.deixis.backend.Gemm;
import org.deixis.backend.MaskLoss;
import org.deixis.backend.PatchGather;
import org.deixis.backend.Scope;
import org.deixis.backend.Unary;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.testing.Golden;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Single kernels, called directly in fp32, against what PyTorch computed. */
@Tag("golden")
class ReferenceGoldenTest {
  private static final int[] TO_LAST = {0, 2, 3, 1};

  private final Backend backend = Backends.get("reference");
  private final TestArrays arrays = new TestArrays(backend, DType.F32);
  private final Layers layers = new Layers(backend, arrays);
  private Scope scope;

  @BeforeEach
  void open() {
    scope = Scope.open();
  }

  @AfterEach
  void close() {
    scope.close();
  }

  private static void close(Golden g, String key, Array actual) {
    close(g.name() + " " + key, g.floats(key), actual);
  }

  static void close(String what, float[] expected, Array actual) {
    double distance = TestArrays.distance(TestArrays.doubles(expected), TestArrays.values(actual));
    assertTrue(distance <= 2e-5, what + " is off by " + distance);
  }

  /** An NCHW tensor of the file as NHWC. */
  private Array channelsLast(Golden g, String key) {
    Shape s = g.shape(key);
    float[] values = TestArrays.permute(g.floats(key), s, TO_LAST);
    return arrays.of(values, s.dim(0), s.dim(2), s.dim(3), s.dim(1));
  }

  private static void closeLast(Golden g, String key, Array actual) {
    close(g.name() + " " + key, TestArrays.permute(g.floats(key), g.shape(key), TO_LAST), actual);
  }

  @Test
  void linear() {
    Golden g = Golden.load("ops/linear");
    Array x = arrays.of(g, "in.x");
    Array w = arrays.of(g, "w.weight");
    Array dy = arrays.of(g, "up.y");
    close(g, "out.y", layers.linear(x, w, arrays.of(g, "w.bias")));
    close(g, "grad.x", layers.linearData(dy, w));
    close(g, "grad.weight", layers.linearWeight(x, dy));
    close(g, "grad.bias", layers.linearBias(dy));
  }

  @Test
  void matmulBatched() {
    Golden g = Golden.load("ops/matmul_batched");
    Array a = arrays.of(g, "in.a");
    Array b = arrays.of(g, "in.b");
    Array dy = arrays.of(g, "up.y");
    Array y = arrays.result(6, 11, 13);
    backend.gemm(Gemm.batched(6, 11, 13, 32, false, false), a, b, null, null, y);
    close(g, "out.y", y);
    Array da = arrays.result(6, 11, 32);
    backend.gemm(Gemm.batched(6, 11, 32, 13, false, true), dy, b, null, null, da);
    close(g, "grad.a", da);
    Array db = arrays.result(6, 32, 13);
    backend.gemm(Gemm.batched(6, 32, 13, 11, true, false), a, dy, null, null, db);
    close(g, "grad.b", db);
  }

  @ParameterizedTest
  @CsvSource({"gelu_erf, GELU", "gelu_tanh, GELU_TANH", "sigmoid, SIGMOID", "tanh, TANH"})
  void unary(String name, Unary kind) {
    Golden g = Golden.load("ops/" + name);
    int n = (int) g.shape("in.x").size();
    Array x = arrays.of(g, "in.x");
    Array y = arrays.result(n);
    Array dx = arrays.result(n);
    backend.unary(kind, x, y);
    backend.unaryBackward(kind, x, y, arrays.of(g, "up.y"), dx);
    close(g, "out.y", y);
    close(g, "grad.x", dx);
  }

  @Test
  void softmax() {
    Golden g = Golden.load("ops/softmax");
    Array y = arrays.result(24, 49);
    Array dx = arrays.result(24, 49);
    backend.softmax(24, 49, arrays.of(g, "in.x"), y);
    backend.softmaxBackward(24, 49, y, arrays.of(g, "up.y"), dx);
    close(g, "out.y", y);
    close(g, "grad.x", dx);
  }

  @Test
  void layerNorm() {
    Golden g = Golden.load("ops/layer_norm");
    Array x = arrays.of(g, "in.x");
    Array gamma = arrays.of(g, "w.weight");
    Array beta = arrays.of(g, "w.bias");
    Array y = arrays.result(36, 70);
    Array stats = arrays.result(36, 2);
    double eps = g.number("eps");
    backend.layerNorm(36, 70, eps, x, null, gamma, beta, null, y, stats);
    close(g, "out.y", y);
    Array dx = arrays.result(36, 70);
    Array dGamma = arrays.result(70);
    Array dBeta = arrays.result(70);
    Array dy = arrays.of(g, "up.y");
    backend.layerNormBackward(36, 70, x, gamma, stats, dy, null, dx, dGamma, dBeta);
    close(g, "grad.x", dx);
    close(g, "grad.weight", dGamma);
    close(g, "grad.bias", dBeta);
  }

  @Test
  void instanceNormIsLayerNormWithoutAffine() {
    Golden g = Golden.load("ops/instance_norm_1d");
    Array x = arrays.of(g, "in.x");
    Array y = arrays.result(24, 33);
    Array stats = arrays.result(24, 2);
    backend.layerNorm(24, 33, g.number("eps"), x, null, null, null, null, y, stats);
    close(g, "out.y", y);
    Array dx = arrays.result(24, 33);
    backend.layerNormBackward(24, 33, x, null, stats, arrays.of(g, "up.y"), null, dx, null, null);
    close(g, "grad.x", dx);
  }

  @Test
  void groupNorm() {
    Golden g = Golden.load("ops/group_norm");
    Array x = channelsLast(g, "in.x");
    Array gamma = arrays.of(g, "w.weight");
    Array y = arrays.result(2, 35, 32);
    Array stats = arrays.result(2, 4, 2);
    Array beta = arrays.of(g, "w.bias");
    backend.groupNorm(2, 35, 32, 4, g.number("eps"), x, gamma, beta, y, stats);
    closeLast(g, "out.y", y);
    Array dx = arrays.result(2, 35, 32);
    Array dGamma = arrays.result(32);
    Array dBeta = arrays.result(32);
    Array dy = channelsLast(g, "up.y");
    backend.groupNormBackward(2, 35, 32, 4, x, gamma, stats, dy, dx, dGamma, dBeta);
    closeLast(g, "grad.x", dx);
    close(g, "grad.weight", dGamma);
    close(g, "grad.bias", dBeta);
  }

  @Test
  void conv3x3() {
    convolution(Golden.load("ops/conv3x3"), new Conv2d(2, 9, 13, 12, 20, 3, 1, 1));
  }

  @Test
  void patchEmbeddingAsConvolution() {
    convolution(Golden.load("ops/patch_embed_conv"), new Conv2d(2, 24, 32, 3, 16, 4, 4, 0));
  }

  private void convolution(Golden g, Conv2d spec) {
    Array x = channelsLast(g, "in.x");
    Array w = arrays.of(g, "w.weight");
    int[] yDims = {2, spec.outHeight(), spec.outWidth(), spec.outChannels()};
    Array y = arrays.result(yDims);
    backend.conv2d(spec, x, w, arrays.of(g, "w.bias"), y);
    closeLast(g, "out.y", y);
    Array dy = channelsLast(g, "up.y");
    Array dx = arrays.result(x.shape().dims());
    Array dw = arrays.result(w.shape().dims());
    backend.conv2dBackwardData(spec, w, dy, dx);
    backend.conv2dBackwardWeight(spec, x, dy, dw);
    closeLast(g, "grad.x", dx);
    close(g, "grad.weight", dw);
    close(g, "grad.bias", layers.linearBias(dy));
  }

  @Test
  void patchEmbeddingAsGatherAndProduct() {
    Golden g = Golden.load("ops/patch_embed_conv");
    PatchGather spec = new PatchGather(2, 24, 32, 4, null, null);
    Array patches = arrays.result(2, 6, 8, 48);
    backend.patchGather(spec, arrays.of(g, "in.x"), patches);
    Array w = arrays.of(g, "w.weight").view(16, 48);
    closeLast(g, "out.y", layers.linear(patches, w, arrays.of(g, "w.bias")));
    Array dy = channelsLast(g, "up.y");
    Array dx = arrays.result(2, 3, 24, 32);
    backend.patchScatter(spec, layers.linearData(dy, w), dx);
    close(g, "grad.x", dx);
    close(g, "grad.weight", layers.linearWeight(patches, dy));
  }

  @ParameterizedTest
  @ValueSource(strings = {"up2", "up4", "odd", "down"})
  void bilinear(String name) {
    Golden g = Golden.load("ops/bilinear_" + name);
    int[] to = g.ints("to");
    int h = g.shape("in.x").dim(2);
    int w = g.shape("in.x").dim(3);
    Array y = arrays.result(2, to[0], to[1], 3);
    backend.resize(2, h, w, 3, to[0], to[1], false, channelsLast(g, "in.x"), y);
    closeLast(g, "out.y", y);
    Array dx = arrays.result(2, h, w, 3);
    backend.resizeBackward(2, h, w, 3, to[0], to[1], channelsLast(g, "up.y"), dx);
    closeLast(g, "grad.x", dx);
  }

  @ParameterizedTest
  @ValueSource(ints = {4, 8, 16})
  void regionPool(int regions) {
    Golden g = Golden.load("ops/region_pool_" + regions);
    int[] grid = g.ints("grid");
    Array y = arrays.result(2, regions);
    Array dx = arrays.result(2, 30, 42);
    backend.regionPool(2, 30, 42, grid[0], grid[1], arrays.of(g, "in.x"), y);
    backend.regionPoolBackward(2, 30, 42, grid[0], grid[1], arrays.of(g, "up.y"), dx);
    close(g, "out.y", y);
    close(g, "grad.x", dx);
  }

  @Test
  void embedding() {
    Golden g = Golden.load("ops/embedding");
    Array ids = arrays.ints(g.longs("in.ids"), 33);
    Array y = arrays.result(33, 24);
    Array dTable = arrays.result(50, 24);
    backend.embedding(ids, arrays.of(g, "w.weight"), y);
    backend.embeddingBackward(ids, arrays.of(g, "up.y"), dTable);
    close(g, "out.y", y);
    close(g, "grad.weight", dTable);
  }

  /** A scalar of the file against the mean of an array. */
  private static void closeMean(Golden g, Array losses) {
    double mean = Arrays.stream(TestArrays.values(losses)).average().orElseThrow();
    assertEquals(g.floats("out.y")[0], mean, 2e-5 * Math.abs(mean), g.name());
  }

  private void closeScaled(Golden g, Array gradient, double factor) {
    Array scaled = arrays.result(gradient.shape().dims());
    backend.axpby(factor * g.floats("up.y")[0], gradient, 0, scaled);
    close(g, "grad.x", scaled);
  }

  @ParameterizedTest
  @ValueSource(strings = {"bce_with_logits", "focal"})
  void binaryLoss(String name) {
    Golden g = Golden.load("ops/" + name);
    int n = (int) g.shape("in.x").size();
    Array loss = arrays.result(n);
    Array dx = arrays.result(n);
    boolean focal = name.equals("focal");
    float alpha = focal ? (float) g.number("alpha") : 0;
    float gamma = focal ? (float) g.number("gamma") : 0;
    backend.binaryLoss(focal, alpha, gamma, arrays.of(g, "in.x"), arrays.of(g, "in.t"), loss, dx);
    closeMean(g, loss);
    closeScaled(g, dx, 1.0 / n);
  }

  @Test
  void maskLossAsUpsampledCrossEntropy() {
    Golden g = Golden.load("ops/upsample_bce");
    MaskLoss spec = new MaskLoss(2, 10, 9, 40, 36, false, 0, 0, 0);
    Array mask = arrays.of(DType.U8, TestArrays.doubles(g.floats("in.t")), 2, 40, 36);
    Array loss = arrays.result(2);
    Array d = arrays.result(2, 10, 9);
    backend.maskLoss(spec, arrays.of(g, "in.x"), mask, loss, d);
    closeMean(g, loss);
    closeScaled(g, d, 0.5);
  }

  /** At equal sizes nothing is up-sampled, and the mask loss is the focal loss. */
  @Test
  void maskLossAsFocal() {
    Golden g = Golden.load("ops/focal");
    MaskLoss spec =
        new MaskLoss(
            4, 17, 19, 17, 19, true, (float) g.number("alpha"), (float) g.number("gamma"), 0);
    Array loss = arrays.result(4);
    Array d = arrays.result(4, 17, 19);
    backend.maskLoss(spec, arrays.of(g, "in.x"), arrays.of(g, "in.t"), loss, d);
    closeMean(g, loss);
    closeScaled(g, d, 0.25);
  }

  @Test
  void crossEntropyWeighted() {
    Golden g = Golden.load("ops/cross_entropy_weighted");
    // make_golden.py takes the targets from the corner of the mask of the case before.
    float[] bits = Golden.load("ops/upsample_bce").floats("in.t");
    long[] targets = new long[180];
    for (int i = 0; i < 180; i++) {
      targets[i] = bits[(i / 90 * 40 + i % 90 / 9) * 36 + i % 9] > 0.5 ? 1 : 0;
    }
    Array weight = arrays.of(new double[] {0.9, 1.1}, 2);
    Array loss = arrays.result(1);
    Array dx = arrays.result(180, 2);
    Array t = arrays.ints(targets, 180);
    backend.crossEntropy(180, 2, channelsLast(g, "in.x"), t, weight, loss, dx);
    closeMean(g, loss);
    Array scaled = arrays.result(180, 2);
    backend.axpby(g.floats("up.y")[0], dx, 0, scaled);
    closeLast(g, "grad.x", scaled);
  }

  @Test
  void adamW() {
    Golden g = Golden.load("optim/adamw");
    double[] expected = TestArrays.doubles(g.floats("out.p"));
    // A loss scale must cancel exactly: run with one, the gradients scaled by it.
    double[] state = new double[AdamW.SLOTS];
    state[AdamW.LR] = g.number("lr");
    state[AdamW.SCALE] = 1024;
    Array control = arrays.of(state, AdamW.SLOTS);
    Array p = arrays.of(g, "in.p");
    Array half = arrays.of(DType.BF16, new double[300], 300);
    AdamW.Slot slot =
        new AdamW.Slot(
            p,
            arrays.result(300),
            arrays.of(new double[300], 300),
            arrays.of(new double[300], 300),
            half,
            1,
            (float) g.number("weight_decay"));
    Array grads = arrays.of(g, "in.grads");
    for (int step = 0; step < 6; step++) {
      backend.axpby(1024, grads.slice(step, step + 1), 0, slot.gradient());
      backend.gradientNorm(List.of(slot.gradient()), 0, control);
      backend.adamW(new AdamW(0.9f, 0.999f, 1e-8f), List.of(slot), control);
      backend.advance(4, control);
      double[] wanted = Arrays.copyOfRange(expected, step * 300, (step + 1) * 300);
      double distance = TestArrays.distance(wanted, TestArrays.values(p));
      assertTrue(distance <= 2e-5, "step " + step + " is off by " + distance);
      assertTrue(TestArrays.distance(wanted, TestArrays.values(half)) <= 4e-3);
      // The scale grew after the fourth step; the gradients above keep their old one.
      if (step == 3) {
        double[] after = TestArrays.values(control);
        assertEquals(2048, after[AdamW.SCALE]);
        assertEquals(0, after[AdamW.GOOD]);
        after[AdamW.SCALE] = 1024;
        backend.copy(arrays.of(after, AdamW.SLOTS), control);
      }
    }
    double[] end = TestArrays.values(control);
    assertEquals(6, end[AdamW.STEP]);
    assertEquals(0, end[AdamW.SKIPPED]);

    double[] before = TestArrays.values(p);
    backend.fill(slot.gradient(), Double.POSITIVE_INFINITY);
    backend.gradientNorm(List.of(slot.gradient()), 1, control);
    backend.adamW(new AdamW(0.9f, 0.999f, 1e-8f), List.of(slot), control);
    backend.advance(4, control);
    end = TestArrays.values(control);
    assertEquals(0, TestArrays.distance(before, TestArrays.values(p)));
    assertEquals(6, end[AdamW.STEP]);
    assertEquals(1, end[AdamW.SKIPPED]);
    assertEquals(512, end[AdamW.SCALE]);
  }

  @Test
  void clipping() {
    Golden g = Golden.load("optim/clip_grad_norm");
    double[] state = new double[AdamW.SLOTS];
    state[AdamW.SCALE] = 1;
    Array control = arrays.of(state, AdamW.SLOTS);
    List<Array> gradients =
        List.of(arrays.of(g, "in.g0"), arrays.of(g, "in.g1"), arrays.of(g, "in.g2"));
    backend.gradientNorm(gradients, g.number("max_norm"), control);
    double[] after = TestArrays.values(control);
    assertEquals(g.floats("out.norm")[0], after[AdamW.NORM], 1e-4);
    for (int i = 0; i < 3; i++) {
      backend.axpby(0, gradients.get(i), after[AdamW.CLIP], gradients.get(i));
      close(g, "out.g" + i, gradients.get(i));
    }
  }
}
