package org.deixis.model;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.deixis.backend.Backend;
import org.deixis.core.Shape;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.swin.SwinConfig;
import org.deixis.model.swin.WindowRule;
import org.deixis.nn.CheckpointSource;
import org.deixis.nn.Module;
import org.deixis.nn.Parameter;
import org.deixis.testing.Golden;
import org.deixis.testing.TestArrays;
import org.deixis.testing.TestBackends;

/** Networks with golden weights, and the comparison of their gradients with PyTorch's. */
public final class GoldenModels {
  /** Promise of the design for outputs and gradients of models, relative. */
  public static final double TOLERANCE = 1e-4;

  /** A gradient below this share of the largest one is rounding noise around a true zero. */
  private static final double NOISE = 1e-5;

  /** Promise for those: their difference as a share of the largest gradient. */
  private static final double ZERO = 1e-6;

  private GoldenModels() {}

  /** Names of the backends under test. */
  public static Stream<String> backends() {
    return TestBackends.names().stream();
  }

  public static CheckpointSource weights(Backend backend, Golden golden) {
    return new CheckpointSource(
        backend,
        golden.name(),
        new CheckpointSource.Tensors() {
          @Override
          public Shape shape(String name) {
            return golden.has("w." + name) ? golden.shape("w." + name) : null;
          }

          @Override
          public float[] values(String name) {
            return golden.floats("w." + name);
          }
        });
  }

  public static SwinConfig swin(JsonNode json) {
    boolean pad = json.path("always_partition").asBoolean(false);
    return new SwinConfig(
        json.get("embed_dim").asInt(),
        integers(json.get("depths")),
        integers(json.get("num_heads")),
        json.get("window_size").asInt(),
        pad ? WindowRule.PAD : WindowRule.SHRINK,
        0,
        false);
  }

  public static TextConfig text(JsonNode json, boolean roberta) {
    return new TextConfig(
        roberta ? TextConfig.Kind.ROBERTA : TextConfig.Kind.BERT,
        json.get("vocab_size").asInt(),
        json.get("hidden_size").asInt(),
        json.get("num_hidden_layers").asInt(),
        json.get("num_attention_heads").asInt(),
        json.get("intermediate_size").asInt(),
        json.get("max_position_embeddings").asInt(),
        json.path("type_vocab_size").asInt(2),
        json.path("pad_token_id").asInt(0),
        1e-12,
        0);
  }

  public static GresConfig guide(Golden golden) {
    int[] size = golden.ints("image_size");
    boolean roberta = golden.json("roberta").asBoolean();
    List<Integer> levels =
        golden.hasMetadata("fusion_levels")
            ? integers(golden.json("fusion_levels"))
            : List.of(2, 1, 0);
    return new GresConfig(
        size[0],
        size[1],
        swin(golden.json("swin")),
        text(golden.json("text"), roberta),
        golden.ints("dim")[0],
        golden.ints("mask_dim")[0],
        golden.ints("regions")[0],
        false,
        golden.hasMetadata("layers") ? golden.ints("layers")[0] : 3,
        8,
        levels,
        golden.ints("norm_groups")[0],
        20,
        false);
  }

  private static List<Integer> integers(JsonNode list) {
    List<Integer> values = new ArrayList<>();
    list.forEach(v -> values.add(v.asInt()));
    return values;
  }

  public static void assertClose(String what, float[] expected, float[] actual, double tolerance) {
    double d = TestArrays.distance(TestArrays.doubles(expected), TestArrays.doubles(actual));
    assertTrue(d <= tolerance, () -> what + " is off by " + d);
  }

  /** Every golden gradient against the module's, and no gradient that PyTorch does not have. */
  public static void assertGradients(Golden golden, Module module) {
    Map<String, Parameter> parameters = module.parameters();
    Set<String> expected = new TreeSet<>();
    double largest = 0;
    for (String key : golden.keys()) {
      if (key.startsWith("grad.")) {
        expected.add(key.substring(5));
        largest = Math.max(largest, norm(golden.floats(key)));
      }
    }
    assertEquals(expected, new TreeSet<>(parameters.keySet()), "parameter names");
    double worst = 0;
    List<String> wrong = new ArrayList<>();
    for (String name : expected) {
      Parameter p = parameters.get(name);
      assertNotNull(p.gradient(), "no gradient reached " + name);
      double[] reference = TestArrays.doubles(golden.floats("grad." + name));
      double[] mine = TestArrays.values(p.gradient());
      double norm = norm(golden.floats("grad." + name));
      double d = TestArrays.distance(reference, mine);
      double absolute = norm == 0 ? d : d * norm;
      boolean zero = norm <= NOISE * largest;
      worst = zero ? worst : Math.max(worst, d);
      if (!(zero ? absolute <= ZERO * largest : d <= TOLERANCE)) {
        wrong.add("%s: %.2e of %.2e".formatted(name, d, norm));
      }
    }
    System.out.printf(
        "%s: worst gradient of %d off by %.1e%n", golden.name(), expected.size(), worst);
    assertTrue(wrong.isEmpty(), () -> golden.name() + " gradients off: " + wrong);
  }

  private static double norm(float[] values) {
    double sum = 0;
    for (float v : values) {
      sum += (double) v * v;
    }
    return Math.sqrt(sum);
  }
}
