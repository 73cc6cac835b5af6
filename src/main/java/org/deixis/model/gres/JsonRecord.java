package org.deixis.model.gres;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonMappingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.MapperFeature;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.exc.MismatchedInputException;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/**
 * Records as JSON objects, read strictly: what is left out keeps its default, and an unknown key or
 * a value of another type is an {@link InputException} that names it.
 */
public final class JsonRecord {
  private static final JsonMapper MAPPER =
      JsonMapper.builder()
          .enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .enable(DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES)
          .disable(DeserializationFeature.ACCEPT_FLOAT_AS_INT)
          .disable(MapperFeature.ALLOW_COERCION_OF_SCALARS)
          .enable(SerializationFeature.INDENT_OUTPUT)
          .build();

  private JsonRecord() {}

  /**
   * @param where the file's name, for messages
   * @param defaults a record whose values stand for those left out
   */
  public static <T extends Record> T read(String where, byte[] json, T defaults) {
    JsonNode given;
    try {
      given = MAPPER.readTree(json);
    } catch (JsonProcessingException e) {
      throw new InputException(
          "%s: not valid JSON at line %d: %s"
              .formatted(
                  where, e.getLocation().getLineNr(), Reason.oneLine(e.getOriginalMessage())),
          e);
    } catch (IOException e) {
      throw new InputException(where + ": cannot be read: " + Reason.of(e), e);
    }
    if (!given.isObject()) {
      throw new InputException(where + ": must hold one JSON object");
    }
    ObjectNode tree = MAPPER.valueToTree(defaults);
    merge(where, "", tree, given);
    try {
      @SuppressWarnings("unchecked")
      Class<T> type = (Class<T>) defaults.getClass();
      return MAPPER.treeToValue(tree, type);
    } catch (JsonMappingException e) {
      for (Throwable t = e; t != null; t = t.getCause()) {
        if (t instanceof InputException) {
          throw new InputException(where + ": " + t.getMessage(), e);
        }
      }
      throw new InputException(where + ": " + path(e) + ": " + reason(e, tree), e);
    } catch (JsonProcessingException e) {
      throw new InputException(where + ": " + Reason.oneLine(e.getOriginalMessage()), e);
    }
  }

  private static void merge(String where, String prefix, ObjectNode known, JsonNode given) {
    for (Map.Entry<String, JsonNode> field : given.properties()) {
      String key = field.getKey();
      if (!known.has(key)) {
        List<String> keys = new ArrayList<>();
        known.fieldNames().forEachRemaining(keys::add);
        throw new InputException(
            "%s: unknown key '%s%s'; did you mean '%s%s'?"
                .formatted(where, prefix, key, prefix, nearest(key, keys)));
      }
      if (known.get(key) instanceof ObjectNode inner) {
        if (!field.getValue().isObject()) {
          throw new InputException(where + ": " + prefix + key + " must be an object");
        }
        merge(where, prefix + key + ".", inner, field.getValue());
      } else {
        known.set(key, field.getValue());
      }
    }
  }

  /** What the key wants and what it was given, rather than what the parser tried with it. */
  private static String reason(JsonMappingException e, JsonNode tree) {
    Class<?> type = e instanceof MismatchedInputException wrong ? wrong.getTargetType() : null;
    String wanted =
        type == boolean.class
            ? "true or false"
            : type == int.class || type == long.class
                ? "a whole number"
                : type == float.class || type == double.class
                    ? "a number"
                    : type == String.class ? "a text" : null;
    if (wanted == null) {
      return Reason.oneLine(e.getOriginalMessage());
    }
    JsonNode given = tree;
    for (JsonMappingException.Reference r : e.getPath()) {
      given = r.getFieldName() == null ? given.path(r.getIndex()) : given.path(r.getFieldName());
    }
    return given + " is not " + wanted;
  }

  private static String path(JsonMappingException e) {
    StringBuilder path = new StringBuilder();
    for (JsonMappingException.Reference r : e.getPath()) {
      if (r.getFieldName() == null) {
        path.append('[').append(r.getIndex()).append(']');
      } else {
        path.append(path.isEmpty() ? "" : ".").append(r.getFieldName());
      }
    }
    return path.toString();
  }

  /** The record as indented JSON, with a newline at its end. */
  public static byte[] write(Record value) {
    try {
      return (MAPPER.writeValueAsString(value) + "\n").getBytes(StandardCharsets.UTF_8);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException("cannot write " + value, e);
    }
  }

  /** The name with the fewest letters to change, insert or delete (Levenshtein, 1966). */
  public static String nearest(String name, Collection<String> names) {
    String best = null;
    int least = Integer.MAX_VALUE;
    for (String candidate : names) {
      int d = distance(name.toLowerCase(), candidate.toLowerCase());
      if (d < least) {
        least = d;
        best = candidate;
      }
    }
    return best;
  }

  private static int distance(String a, String b) {
    int[] row = new int[b.length() + 1];
    for (int j = 0; j <= b.length(); j++) {
      row[j] = j;
    }
    for (int i = 1; i <= a.length(); i++) {
      int diagonal = row[0];
      row[0] = i;
      for (int j = 1; j <= b.length(); j++) {
        int change = diagonal + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
        diagonal = row[j];
        row[j] = Math.min(change, Math.min(row[j], row[j - 1]) + 1);
      }
    }
    return row[b.length()];
  }
}
