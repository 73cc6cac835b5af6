package org.deixis.optim;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.nn.Parameter;

/**
 * Parameters that are trained alike.
 *
 * @param rateFactor factor on the learning rate
 * @param weightDecay decoupled decay a step, times the learning rate
 * @param parameters by full name
 */
public record ParameterGroup(
    String name, double rateFactor, double weightDecay, Map<String, Parameter> parameters) {

  /**
   * The usual four groups: encoders ({@code vision.}, {@code text.}) at a rate of their own, and
   * within encoders and rest no decay for norms, biases and position tables.
   */
  public static List<ParameterGroup> of(
      Map<String, Parameter> parameters, double encoderRateFactor, double weightDecay) {
    Map<String, ParameterGroup> groups = new LinkedHashMap<>();
    parameters.forEach(
        (name, p) -> {
          boolean encoder = name.startsWith("vision.") || name.startsWith("text.");
          boolean decays = p.shape().rank() > 1 && !isPositionTable(name);
          String group = (encoder ? "encoders" : "heads") + (decays ? "" : ", no decay");
          groups
              .computeIfAbsent(
                  group,
                  g ->
                      new ParameterGroup(
                          g,
                          encoder ? encoderRateFactor : 1,
                          decays ? weightDecay : 0,
                          new LinkedHashMap<>()))
              .parameters()
              .put(name, p);
        });
    return new ArrayList<>(groups.values());
  }

  private static boolean isPositionTable(String name) {
    return name.endsWith("relative_position_bias_table")
        || name.contains("position_embeddings")
        || name.endsWith("region_queries");
  }
}
