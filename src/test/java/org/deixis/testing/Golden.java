package org.deixis.testing;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import org.deixis.core.DType;
import org.deixis.core.Half;
import org.deixis.core.Shape;

/**
 * One safetensors file of golden data: keys {@code in.*} inputs, {@code w.*} parameters, {@code
 * out.*} outputs, {@code up.*} the gradient given to backward, {@code grad.*} the gradients that
 * PyTorch computed. Its reader is its own, so that a fault of the engine's reader shows.
 */
public final class Golden {
  private record Entry(DType dtype, Shape shape, int begin) {}

  private static final ObjectMapper JSON = new ObjectMapper();

  private final String name;
  private final ByteBuffer data;
  private final Map<String, Entry> entries = new LinkedHashMap<>();
  private final Map<String, String> metadata = new LinkedHashMap<>();

  /**
   * Reads {@code name}, for example "ops/linear", from {@code -Dgolden.dir} when set, else from
   * {@code /golden} on the class path.
   */
  public static Golden load(String name) {
    String file = name + ".safetensors";
    String directory = System.getProperty("golden.dir");
    try (InputStream in =
        directory != null
            ? Files.newInputStream(Path.of(directory, file))
            : Golden.class.getResourceAsStream("/golden/" + file)) {
      if (in == null) {
        throw new IOException("no /golden/" + file + " on the class path");
      }
      return new Golden(name, in.readAllBytes());
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private Golden(String name, byte[] file) throws IOException {
    this.name = name;
    ByteBuffer all = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN);
    int header = Math.toIntExact(all.getLong(0));
    this.data = all.slice(8 + header, file.length - 8 - header).order(ByteOrder.LITTLE_ENDIAN);
    JsonNode root = JSON.readTree(new String(file, 8, header, StandardCharsets.UTF_8));
    for (Iterator<Map.Entry<String, JsonNode>> it = root.fields(); it.hasNext(); ) {
      Map.Entry<String, JsonNode> field = it.next();
      JsonNode value = field.getValue();
      if (field.getKey().equals("__metadata__")) {
        value.fields().forEachRemaining(m -> metadata.put(m.getKey(), m.getValue().asText()));
      } else {
        int[] dims = JSON.treeToValue(value.get("shape"), int[].class);
        entries.put(
            field.getKey(),
            new Entry(
                DType.valueOf(value.get("dtype").asText()),
                Shape.of(dims),
                value.get("data_offsets").get(0).asInt()));
      }
    }
  }

  public String name() {
    return name;
  }

  public Set<String> keys() {
    return entries.keySet();
  }

  public boolean has(String key) {
    return entries.containsKey(key);
  }

  private Entry entry(String key) {
    Entry entry = entries.get(key);
    if (entry == null) {
      throw new IllegalArgumentException(name + " has no " + key + " but " + keys());
    }
    return entry;
  }

  public Shape shape(String key) {
    return entry(key).shape;
  }

  public DType dtype(String key) {
    return entry(key).dtype;
  }

  /** A floating tensor. */
  public float[] floats(String key) {
    Entry entry = entry(key);
    float[] values = new float[Math.toIntExact(entry.shape.size())];
    for (int i = 0; i < values.length; i++) {
      int at = entry.begin + i * entry.dtype.bytes();
      values[i] =
          switch (entry.dtype) {
            case F32 -> data.getFloat(at);
            case F64 -> (float) data.getDouble(at);
            case F16, BF16 -> Half.toFloat(entry.dtype, data.getShort(at));
            default -> throw new IllegalArgumentException(name + " " + key + " is " + entry.dtype);
          };
    }
    return values;
  }

  /** A tensor of integers or truth values. */
  public long[] longs(String key) {
    Entry entry = entry(key);
    long[] values = new long[Math.toIntExact(entry.shape.size())];
    for (int i = 0; i < values.length; i++) {
      int at = entry.begin + i * entry.dtype.bytes();
      values[i] =
          switch (entry.dtype) {
            case I64 -> data.getLong(at);
            case I32 -> data.getInt(at);
            case U8, BOOL -> data.get(at) & 0xff;
            default -> throw new IllegalArgumentException(name + " " + key + " is " + entry.dtype);
          };
    }
    return values;
  }

  public boolean hasMetadata(String key) {
    return metadata.containsKey(key);
  }

  /** The metadata of that name: JSON, as text. */
  public String metadata(String key) {
    String value = metadata.get(key);
    if (value == null) {
      throw new IllegalArgumentException(name + " has no metadata " + key);
    }
    return value;
  }

  /** Metadata as a tree, for nested values. */
  public JsonNode json(String key) {
    try {
      return JSON.readTree(metadata(key));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  public double number(String key) {
    return json(key).asDouble();
  }

  /** Metadata that is a list of whole numbers (or a single one). */
  public int[] ints(String key) {
    JsonNode node = json(key);
    if (!node.isArray()) {
      return new int[] {node.asInt()};
    }
    int[] values = new int[node.size()];
    for (int i = 0; i < values.length; i++) {
      values[i] = node.get(i).asInt();
    }
    return values;
  }
}
