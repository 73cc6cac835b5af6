package org.deixis.weights;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import org.deixis.backend.Activation;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.swin.SwinConfig;

/**
 * What Hugging Face's {@code config.json} beside a checkpoint says of an encoder and the
 * checkpoint's names and shapes do not: its activation, its heads, and what its norms add to the
 * variance. A configuration that says otherwise would be computed without an error, and wrongly.
 */
public final class PublishedConfig {
  private static final JsonMapper MAPPER = new JsonMapper();
  private static final long MOST_BYTES = 1 << 20;
  private static final Set<String> TANH =
      Set.of("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate");

  /** Of Swin's norms, in every published configuration and here. */
  private static final double SWIN_EPS = 1e-5;

  private final Path file;
  private final JsonNode tree;
  private final List<String> differences = new ArrayList<>();

  private PublishedConfig(Path file, JsonNode tree) {
    this.file = file;
    this.tree = tree;
  }

  /**
   * Refuses a text encoder that is not the one beside {@code checkpoint}, a file or a folder.
   *
   * @throws InputException with every difference on one line
   */
  public static void check(Path checkpoint, TextConfig config) {
    PublishedConfig published = beside(checkpoint, Set.of("bert", "roberta"));
    if (published == null) {
      return;
    }
    published.activation(config.activation());
    published.number("num_attention_heads", "heads", config.heads());
    published.number("layer_norm_eps", "layerNormEps", config.layerNormEps());
    JsonNode positions = published.tree.path("position_embedding_type");
    if (positions.isTextual() && !positions.textValue().equals("absolute")) {
      published.differences.add("position_embedding_type " + words(positions) + ", not absolute");
    }
    published.refuse("text");
  }

  /** The same of a Swin Transformer, whose heads and windows its shapes tell. */
  public static void check(Path checkpoint, SwinConfig config) {
    PublishedConfig published = beside(checkpoint, Set.of("swin"));
    if (published == null) {
      return;
    }
    published.activation(config.activation());
    published.number("layer_norm_eps", "epsilon, which cannot be set", SWIN_EPS);
    published.refuse("swin");
  }

  /** Null where there is none, or one of something else. */
  private static PublishedConfig beside(Path checkpoint, Set<String> types) {
    Path folder =
        Files.isDirectory(checkpoint) ? checkpoint : checkpoint.toAbsolutePath().getParent();
    Path file = folder.resolve("config.json");
    if (!Files.isRegularFile(file)) {
      return null;
    }
    try {
      if (Files.size(file) > MOST_BYTES) {
        throw new InputException(file + ": larger than 1 MiB, which no configuration is");
      }
      JsonNode tree = MAPPER.readTree(Files.readAllBytes(file));
      return types.contains(tree.path("model_type").asText()) && tree.isObject()
          ? new PublishedConfig(file, tree)
          : null;
    } catch (JsonProcessingException e) {
      throw new InputException(
          file + ": not valid JSON: " + Reason.oneLine(e.getOriginalMessage()), e);
    } catch (IOException e) {
      throw new InputException(file + ": cannot be read: " + Reason.of(e), e);
    }
  }

  private void activation(Activation ours) {
    JsonNode given = tree.path("hidden_act");
    if (!given.isTextual()) {
      return;
    }
    String name = given.textValue();
    Activation theirs =
        name.equals("gelu")
            ? Activation.GELU
            : TANH.contains(name)
                ? Activation.GELU_TANH
                : name.equals("relu") ? Activation.RELU : null;
    if (theirs == null) {
      differences.add("hidden_act " + words(given) + ", which is none of GELU, GELU_TANH, RELU");
    } else if (theirs != ours) {
      differences.add("hidden_act %s, not activation %s but %s".formatted(name, ours, theirs));
    }
  }

  private void number(String key, String ours, double value) {
    JsonNode given = tree.path(key);
    if (given.isNumber() && Math.abs(given.doubleValue() - value) > 1e-6 * Math.abs(value)) {
      String number = String.format(Locale.ROOT, "%s", value).replaceAll("\\.0$", "");
      differences.add("%s %s, not %s %s".formatted(key, words(given), ours, number));
    }
  }

  private static String words(JsonNode node) {
    return Reason.oneLine(node.asText());
  }

  private void refuse(String part) {
    if (!differences.isEmpty()) {
      throw new InputException(
          "%s has %s; say so under \"%s\" in a configuration for --config"
              .formatted(file, String.join("; ", differences), part));
    }
  }
}
