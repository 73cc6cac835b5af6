package org.deixis.model;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.deixis.backend.Backends;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.RegionGrid;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;
import org.junit.jupiter.api.Test;

class GresConfigTest {
  private static GresConfig parse(String json) {
    return GresConfig.parse("config.json", json.getBytes(StandardCharsets.UTF_8));
  }

  private static void refused(String json, String... parts) {
    InputException e = assertThrows(InputException.class, () -> parse(json));
    for (String part : parts) {
      assertTrue(e.getMessage().contains(part), e.getMessage());
    }
    assertEquals(1, e.getMessage().lines().count(), e.getMessage());
    assertTrue(e.getMessage().startsWith("config.json: "), e.getMessage());
  }

  @Test
  void bundledConfigurationsParseAndReturn() {
    for (String name : GresConfig.bundled()) {
      GresConfig config = GresConfig.of(name);
      assertEquals(config, GresConfig.parse(name, config.toJson()), name);
    }
    assertEquals(GresConfig.DEFAULT, GresConfig.of("guide-swin-b"));
    assertEquals(16, GresConfig.of("guide-swin-t-p16").regions());
  }

  @Test
  void unknownKeysNameTheNearest() {
    refused("{\"regoins\": 8}", "unknown key 'regoins'", "'regions'");
    refused("{\"swin\": {\"windows\": 7}}", "'swin.windows'", "'swin.window'");
    refused("{\"text\": {\"vocabSize\": 7}}", "'text.vocabSize'", "'text.vocab'");
  }

  @Test
  void damagedOrImpossibleValuesAreOneLine() {
    refused("{\"dim\": ", "line 1");
    refused("[]", "object");
    refused("{\"dim\": 8, \"dim\": 9}", "dim");
    refused("{\"dim\": \"wide\"}", "dim");
    refused("{\"dim\": 512.5}", "dim");
    refused("{\"dim\": null}", "dim");
    refused("{\"swin\": 3}", "swin must be an object");
    refused("{\"regions\": 9}", "regions 9", "4, 8, 16 or 100");
    refused("{\"heads\": 7}", "heads 7");
    refused("{\"fusionLevels\": [0, 0]}", "fusionLevels");
    refused("{\"swin\": {\"depths\": [2, 2]}}", "depths");
    refused("{\"swin\": {\"windowRule\": \"GROW\"}}", "swin.windowRule");
    refused("{\"maxTokens\": 513}", "maxTokens 513", "512");
  }

  @Test
  void namesAreSuggested() {
    InputException e = assertThrows(InputException.class, () -> GresConfig.of("guide-swinb"));
    assertTrue(e.getMessage().contains("nearest: guide-swin-b"), e.getMessage());
  }

  @Test
  void adaptiveRegionsFollowTheDocumentedSteps() {
    assertEquals(4, RegionGrid.regionsFor(0.29));
    assertEquals(8, RegionGrid.regionsFor(0.3));
    assertEquals(8, RegionGrid.regionsFor(0.59));
    assertEquals(16, RegionGrid.regionsFor(0.6));
  }

  @Test
  void smallModelIsTheDemosRecipe() {
    try (GuideModel model =
        new GuideModel(
            ParameterSource.fresh(Backends.get("reference"), 1), GresConfig.of("small"))) {
      Map<String, Parameter> p = model.parameters();
      // 96 pixels are 24, 12, 6 and 3 positions at the four stages: the last window shrinks to 3.
      String table = ".blocks.0.attn.relative_position_bias_table";
      assertEquals(Shape.of(121, 8), p.get("vision.layers.2" + table).shape());
      assertEquals(Shape.of(25, 16), p.get("vision.layers.3" + table).shape());
      assertEquals(Shape.of(1, 8, 96), p.get("ria.2.region_queries").shape());
      assertEquals(Shape.of(64, 96, 3, 3), p.get("mask_conv.weight").shape());
      assertTrue(p.containsKey("fusion.2.gate.weight") && !p.containsKey("fusion.3.gate.weight"));
    }
  }
}
