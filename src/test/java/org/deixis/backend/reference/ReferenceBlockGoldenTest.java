package org.deixis.backend.reference;

import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Gemm;
import org.deixis.backend.Reduction;
import org.deixis.backend.Scope;
import org.deixis.backend.Unary;
import org.deixis.backend.WindowAttention;
import org.deixis.core.DType;
import org.deixis.testing.Golden;
import org.deixis.testing.TestArrays;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Blocks put together from kernels by hand, forward and backward, against PyTorch. */
@Tag("golden")
class ReferenceBlockGoldenTest {
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
    ReferenceGoldenTest.close(g.name() + " " + key, g.floats(key), actual);
  }

  private Array like(Array x) {
    return arrays.result(x.shape().dims());
  }

  @ParameterizedTest
  @ValueSource(strings = {"plain", "shifted", "padded_shifted", "window12"})
  void swinBlock(String name) {
    Golden g = Golden.load("ops/swin_block_" + name);
    int h = g.shape("in.x").dim(1);
    int w = g.shape("in.x").dim(2);
    int c = 16;
    int rows = 2 * h * w;
    int window = g.ints("window")[0];
    int shift = g.ints("shift")[0];
    WindowAttention spec = new WindowAttention(2, h, w, 2, 8, window, window, shift, shift, false);
    boolean padded = spec.frameHeight() != h || spec.frameWidth() != w;

    Array x = arrays.of(g, "in.x");
    Array gamma1 = arrays.of(g, "w.norm1.weight");
    Array gamma2 = arrays.of(g, "w.norm2.weight");
    Array n1 = like(x);
    Array stats1 = arrays.result(rows, 2);
    Array beta1 = arrays.of(g, "w.norm1.bias");
    backend.layerNorm(rows, c, 1e-5, x, null, gamma1, beta1, null, n1, stats1);
    Array wQkv = arrays.of(g, "w.attn.qkv.weight");
    Array bQkv = arrays.of(g, "w.attn.qkv.bias");
    Array table = arrays.of(g, "w.attn.relative_position_bias_table");
    Array qkv = layers.linear(n1, wQkv, bQkv);
    Array attended = like(x);
    Array lse = arrays.result(2, spec.windows(), 2, window * window);
    backend.windowAttention(spec, qkv, padded ? bQkv : null, table, attended, lse);
    Array wProj = arrays.of(g, "w.attn.proj.weight");
    Array projected = layers.linear(attended, wProj, arrays.of(g, "w.attn.proj.bias"));
    Array sum = like(x);
    Array n2 = like(x);
    Array stats2 = arrays.result(rows, 2);
    Array beta2 = arrays.of(g, "w.norm2.bias");
    backend.layerNorm(rows, c, 1e-5, projected, x, gamma2, beta2, sum, n2, stats2);
    Array w1 = arrays.of(g, "w.mlp.fc1.weight");
    Array w2 = arrays.of(g, "w.mlp.fc2.weight");
    Array before = arrays.result(2, h, w, 64);
    Array hidden = like(before);
    Gemm up = Gemm.of(rows, 64, c, false, true).activated(Activation.GELU);
    backend.gemm(up, n2, w1, arrays.of(g, "w.mlp.fc1.bias"), before, hidden);
    Array y = layers.sum(layers.linear(hidden, w2, arrays.of(g, "w.mlp.fc2.bias")), sum);
    close(g, "out.y", y);

    Array dy = arrays.of(g, "up.y");
    close(g, "grad.mlp.fc2.weight", layers.linearWeight(hidden, dy));
    close(g, "grad.mlp.fc2.bias", layers.linearBias(dy));
    Array dBefore = layers.linearData(dy, w2);
    backend.unaryBackward(Unary.GELU, before, hidden, dBefore, dBefore);
    close(g, "grad.mlp.fc1.weight", layers.linearWeight(n2, dBefore));
    close(g, "grad.mlp.fc1.bias", layers.linearBias(dBefore));
    Array dSum = like(x);
    Array dGamma = arrays.result(c);
    Array dBeta = arrays.result(c);
    Array dn2 = layers.linearData(dBefore, w1);
    backend.layerNormBackward(rows, c, sum, gamma2, stats2, dn2, dy, dSum, dGamma, dBeta);
    close(g, "grad.norm2.weight", dGamma);
    close(g, "grad.norm2.bias", dBeta);
    close(g, "grad.attn.proj.weight", layers.linearWeight(attended, dSum));
    close(g, "grad.attn.proj.bias", layers.linearBias(dSum));
    Array dAttended = layers.linearData(dSum, wProj);
    Array dqkv = like(qkv);
    Array dTable = like(table);
    Array dPadding = padded ? arrays.result(3 * c) : null;
    backend.windowAttentionBackward(
        spec, qkv, padded ? bQkv : null, table, attended, lse, dAttended, dqkv, dPadding, dTable);
    close(g, "grad.attn.relative_position_bias_table", dTable);
    close(g, "grad.attn.qkv.weight", layers.linearWeight(n1, dqkv));
    Array dbQkv = layers.linearBias(dqkv);
    close(g, "grad.attn.qkv.bias", padded ? layers.sum(dbQkv, dPadding) : dbQkv);
    Array dx = like(x);
    Array dn1 = layers.linearData(dqkv, wQkv);
    backend.layerNormBackward(rows, c, x, gamma1, stats1, dn1, dSum, dx, dGamma, dBeta);
    close(g, "grad.norm1.weight", dGamma);
    close(g, "grad.norm1.bias", dBeta);
    close(g, "grad.x", dx);
  }

  @Test
  void patchMerging() {
    Golden g = Golden.load("ops/patch_merging");
    Array gamma = arrays.of(g, "w.norm.weight");
    Array beta = arrays.of(g, "w.norm.bias");
    Array w = arrays.of(g, "w.reduction.weight");
    Array merged = arrays.result(2, 4, 5, 96);
    Array normed = like(merged);
    Array stats = arrays.result(40, 2);
    backend.mergeGather(2, 8, 10, 24, arrays.of(g, "in.x"), merged);
    backend.layerNorm(40, 96, 1e-5, merged, null, gamma, beta, null, normed, stats);
    close(g, "out.y", layers.linear(normed, w, null));
    Array dy = arrays.of(g, "up.y");
    close(g, "grad.reduction.weight", layers.linearWeight(normed, dy));
    Array dMerged = like(merged);
    Array dGamma = arrays.result(96);
    Array dBeta = arrays.result(96);
    Array dNormed = layers.linearData(dy, w);
    backend.layerNormBackward(40, 96, merged, gamma, stats, dNormed, null, dMerged, dGamma, dBeta);
    close(g, "grad.norm.weight", dGamma);
    close(g, "grad.norm.bias", dBeta);
    Array dx = arrays.result(2, 8, 10, 24);
    backend.mergeScatter(2, 8, 10, 24, dMerged, dx);
    close(g, "grad.x", dx);
  }

  @Test
  void selfAttention() {
    Golden g = Golden.load("ops/mha_self");
    Attention spec = Attention.self(3, 8, 10, 6);
    Array x = arrays.of(g, "in.x");
    Array wIn = arrays.of(g, "w.in_proj_weight");
    Array wOut = arrays.of(g, "w.out_proj.weight");
    Array qkv = layers.linear(x, wIn, arrays.of(g, "w.in_proj_bias"));
    Array attended = like(x);
    Array lse = arrays.result(3, 8, 10);
    backend.attention(spec, qkv, qkv, qkv, null, attended, lse);
    close(g, "out.y", layers.linear(attended, wOut, arrays.of(g, "w.out_proj.bias")));
    Array dy = arrays.of(g, "up.y");
    close(g, "grad.out_proj.weight", layers.linearWeight(attended, dy));
    close(g, "grad.out_proj.bias", layers.linearBias(dy));
    Array d = like(qkv);
    Array da = layers.linearData(dy, wOut);
    backend.attentionBackward(spec, qkv, qkv, qkv, null, attended, lse, da, d, d, d);
    close(g, "grad.in_proj_weight", layers.linearWeight(x, d));
    close(g, "grad.in_proj_bias", layers.linearBias(d));
    close(g, "grad.x", layers.linearData(d, wIn));
  }

  @Test
  void crossAttentionWithPadding() {
    Golden g = Golden.load("ops/mha_cross_padded");
    int c = 48;
    Attention spec = Attention.cross(3, 8, 6, 12, 6);
    int[] valid = g.ints("valid");
    long[] mask = new long[36];
    for (int i = 0; i < 36; i++) {
      mask[i] = i % 12 < valid[i / 12] ? 1 : 0;
    }
    Array m = arrays.ints(mask, 3, 12);
    Array x = arrays.of(g, "in.q");
    Array words = arrays.of(g, "in.kv");
    Array wIn = arrays.of(g, "w.in_proj_weight");
    Array bIn = arrays.of(g, "w.in_proj_bias");
    Array wOut = arrays.of(g, "w.out_proj.weight");
    Array q = layers.linear(x, wIn.slice(0, c), bIn.slice(0, c));
    Array kv = layers.linear(words, wIn.slice(c, 3 * c), bIn.slice(c, 3 * c));
    Array attended = like(x);
    Array lse = arrays.result(3, 8, 6);
    backend.attention(spec, q, kv, kv, m, attended, lse);
    close(g, "out.y", layers.linear(attended, wOut, arrays.of(g, "w.out_proj.bias")));
    Array dy = arrays.of(g, "up.y");
    Array da = layers.linearData(dy, wOut);
    Array dq = like(q);
    Array dkv = like(kv);
    backend.attentionBackward(spec, q, kv, kv, m, attended, lse, da, dq, dkv, dkv);
    close(g, "grad.q", layers.linearData(dq, wIn.slice(0, c)));
    close(g, "grad.kv", layers.linearData(dkv, wIn.slice(c, 3 * c)));
    Array dwIn = like(wIn);
    backend.copy(layers.linearWeight(x, dq), dwIn.slice(0, c));
    backend.copy(layers.linearWeight(words, dkv), dwIn.slice(c, 3 * c));
    close(g, "grad.in_proj_weight", dwIn);
    Array dbIn = like(bIn);
    backend.copy(layers.linearBias(dq), dbIn.slice(0, c));
    backend.copy(layers.linearBias(dkv), dbIn.slice(c, 3 * c));
    close(g, "grad.in_proj_bias", dbIn);
  }

  @Test
  void regionImageAttention() {
    Golden g = Golden.load("ops/region_image_attention");
    Array x = arrays.of(g, "in.x");
    Array wk = arrays.of(g, "w.proj_k.weight");
    Array wv = arrays.of(g, "w.proj_v.weight");
    Array k = layers.linear(x, wk, arrays.of(g, "w.proj_k.bias"));
    Array v = layers.linear(x, wv, arrays.of(g, "w.proj_v.bias"));
    Array q = arrays.result(2, 16, 32);
    backend.repeat(1, 2, 512, arrays.of(g, "w.region_queries"), q);
    Array y = like(q);
    Array map = arrays.result(2, 16, 63);
    float scale = (float) (1 / Math.sqrt(32));
    backend.regionAttention(2, 16, 63, 32, scale, q, k, v, y, map);
    close(g, "out.y", y);
    close(g, "out.attention", map);
    Array dq = like(q);
    Array dk = like(k);
    Array dv = like(v);
    Array dy = arrays.of(g, "up.y");
    Array dMap = arrays.of(g, "up.attention");
    backend.regionAttentionBackward(2, 16, 63, 32, scale, q, k, v, map, dy, dMap, dq, dk, dv);
    Array dQueries = arrays.result(1, 16, 32);
    backend.reduce(Reduction.SUM, 1, 2, 512, dq, dQueries);
    close(g, "grad.region_queries", dQueries);
    close(g, "grad.proj_k.weight", layers.linearWeight(x, dk));
    close(g, "grad.proj_v.weight", layers.linearWeight(x, dv));
    close(g, "grad.proj_v.bias", layers.linearBias(dv));
    close(g, "grad.x", layers.sum(layers.linearData(dk, wk), layers.linearData(dv, wv)));
  }

  @Test
  void gru() {
    Golden g = Golden.load("ops/gru");
    int steps = 7;
    int n = 24;
    Array x = arrays.of(g, "in.x");
    Array wi = arrays.of(g, "w.weight_ih_l0");
    Array wh = arrays.of(g, "w.weight_hh_l0");
    Array bh = arrays.of(g, "w.bias_hh_l0");
    Array allGi = layers.linear(x, wi, arrays.of(g, "w.bias_ih_l0"));
    Array[] gi = new Array[steps];
    Array[] gh = new Array[steps];
    Array[] h = new Array[steps + 1];
    h[0] = arrays.of(new double[2 * n], 2, n);
    Array y = like(x);
    for (int t = 0; t < steps; t++) {
      gi[t] = arrays.result(2, 3 * n);
      backend.copyColumns(2, 3 * n, allGi, t * 3 * n, steps * 3 * n, gi[t], 0, 3 * n, false);
      gh[t] = layers.linear(h[t], wh, bh);
      h[t + 1] = arrays.result(2, n);
      backend.gruCell(2, n, gi[t], gh[t], h[t], h[t + 1]);
      backend.copyColumns(2, n, h[t + 1], 0, n, y, t * n, steps * n, false);
    }
    close(g, "out.y", y);

    Array dy = arrays.of(g, "up.y");
    Array dAllGi = like(allGi);
    Array dwh = arrays.of(new double[72 * n], 72, n);
    Array dbh = arrays.of(new double[72], 72);
    Array dh = arrays.of(new double[2 * n], 2, n);
    for (int t = steps - 1; t >= 0; t--) {
      backend.copyColumns(2, n, dy, t * n, steps * n, dh, 0, n, true);
      Array dgi = like(gi[t]);
      Array dgh = like(gh[t]);
      Array direct = like(dh);
      backend.gruCellBackward(2, n, gi[t], gh[t], h[t], dh, dgi, dgh, direct);
      backend.copyColumns(2, 3 * n, dgi, 0, 3 * n, dAllGi, t * 3 * n, steps * 3 * n, false);
      backend.axpby(1, layers.linearWeight(h[t], dgh), 1, dwh);
      backend.axpby(1, layers.linearBias(dgh), 1, dbh);
      dh = layers.sum(direct, layers.linearData(dgh, wh));
    }
    close(g, "grad.x", layers.linearData(dAllGi, wi));
    close(g, "grad.weight_ih_l0", layers.linearWeight(x, dAllGi));
    close(g, "grad.bias_ih_l0", layers.linearBias(dAllGi));
    close(g, "grad.weight_hh_l0", dwh);
    close(g, "grad.bias_hh_l0", dbh);
  }
}
