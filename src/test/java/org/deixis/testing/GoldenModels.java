package org.deixis.testing;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.deixis.backend.Backend;
import org.deixis.core.Shape;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.swin.SwinConfig;
import org.deixis.model.swin.SwinConfig.WindowRule;
import org.deixis.nn.Parameter;
import org.deixis.nn.ParameterSource;

/** Configurations and parameters of the golden model files. */
public final class GoldenModels {
  private GoldenModels() {}

  /** Parameters from the file's {@code w.} keys; notes which were read. */
  public static final class Source implements ParameterSource {
    private final Golden golden;
    private final Backend backend;
    private final String prefix;
    private final Set<String> read;

    public Source(Golden golden, Backend backend) {
      this(golden, backend, "", new TreeSet<>());
    }

    private Source(Golden golden, Backend backend, String prefix, Set<String> read) {
      this.golden = golden;
      this.backend = backend;
      this.prefix = prefix;
      this.read = read;
    }

    @Override
    public Backend backend() {
      return backend;
    }

    @Override
    public Parameter parameter(String name, Shape shape, Init init) {
      String key = "w." + prefix + name;
      if (!golden.shape(key).equals(shape)) {
        throw new IllegalArgumentException(key + " is " + golden.shape(key) + ", not " + shape);
      }
      read.add(prefix + name);
      return Parameter.of(backend, golden.floats(key), shape);
    }

    @Override
    public ParameterSource part(String name) {
      return new Source(golden, backend, prefix + name + ".", read);
    }

    public Set<String> read() {
      return read;
    }
  }

  public static SwinConfig swin(JsonNode cfg, int[] size) {
    boolean pad = cfg.path("always_partition").asBoolean(false);
    return new SwinConfig(
        cfg.get("embed_dim").asInt(),
        ints(cfg.get("depths")),
        ints(cfg.get("num_heads")),
        cfg.get("window_size").asInt(),
        pad ? WindowRule.PAD : WindowRule.SHRINK,
        size[0],
        size[1],
        false);
  }

  /** The metadata of a file as one tree. */
  public static JsonNode metadata(Golden golden, String... keys) {
    var node = new com.fasterxml.jackson.databind.ObjectMapper().createObjectNode();
    for (String key : keys) {
      try {
        node.set(key, golden.json(key));
      } catch (IllegalArgumentException e) {
        // Left out where the file leaves it at the default.
        continue;
      }
    }
    return node;
  }

  public static SwinConfig swin(Golden golden) {
    return swin(
        metadata(golden, "embed_dim", "depths", "num_heads", "window_size", "always_partition"),
        golden.ints("image_size"));
  }

  public static TextConfig text(JsonNode cfg, boolean roberta) {
    return new TextConfig(
        roberta,
        cfg.get("vocab_size").asInt(),
        cfg.get("hidden_size").asInt(),
        cfg.get("num_hidden_layers").asInt(),
        cfg.get("num_attention_heads").asInt(),
        cfg.get("intermediate_size").asInt(),
        cfg.get("max_position_embeddings").asInt(),
        cfg.path("type_vocab_size").asInt(2),
        cfg.path("pad_token_id").asInt(0),
        1e-12);
  }

  public static GresConfig guide(Golden golden) throws IOException {
    JsonNode m = metadata(golden, "layers", "heads", "fusion_levels");
    List<Integer> levels = new ArrayList<>();
    if (m.has("fusion_levels")) {
      m.get("fusion_levels").forEach(n -> levels.add(n.asInt()));
    } else {
      levels.addAll(List.of(2, 1, 0));
    }
    return new GresConfig(
        swin(golden.json("swin"), golden.ints("image_size")),
        text(golden.json("text"), golden.json("roberta").asBoolean()),
        (int) golden.number("dim"),
        (int) golden.number("mask_dim"),
        (int) golden.number("regions"),
        false,
        m.path("layers").asInt(3),
        m.path("heads").asInt(8),
        levels,
        (int) golden.number("norm_groups"));
  }

  private static int[] ints(JsonNode node) {
    int[] v = new int[node.size()];
    for (int i = 0; i < v.length; i++) {
      v[i] = node.get(i).asInt();
    }
    return v;
  }
}
