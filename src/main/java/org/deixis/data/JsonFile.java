package org.deixis.data;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/** Reads JSON files of hundreds of megabytes entry by entry. */
final class JsonFile {
  private static final ObjectMapper MAPPER = new ObjectMapper();

  /** Takes the {@code index}-th entry of an array. */
  interface Entries {
    void accept(int index, JsonNode entry);
  }

  private JsonFile() {}

  /** Hands each entry of the array that the file holds to {@code entries}. */
  static void array(Path file, Entries entries) {
    parse(
        file,
        parser -> {
          if (parser.nextToken() != JsonToken.START_ARRAY) {
            throw new InputException(file + ": not a JSON list of records");
          }
          entries(parser, entries);
        });
  }

  /** The file holds an object: hands on each entry of the arrays that are asked for by name. */
  static void object(Path file, Map<String, Entries> arrays) {
    parse(
        file,
        parser -> {
          if (parser.nextToken() != JsonToken.START_OBJECT) {
            throw new InputException(file + ": not a JSON object");
          }
          int found = 0;
          while (parser.nextToken() == JsonToken.FIELD_NAME) {
            Entries entries = arrays.get(parser.currentName());
            JsonToken value = parser.nextToken();
            if (entries == null) {
              parser.skipChildren();
            } else if (value == JsonToken.START_ARRAY) {
              found++;
              entries(parser, entries);
            } else {
              throw new InputException(file + ": '" + parser.currentName() + "' is not a list");
            }
          }
          if (found < arrays.size()) {
            throw new InputException(file + ": lacks one of the lists " + arrays.keySet());
          }
        });
  }

  private static void entries(JsonParser parser, Entries entries) throws IOException {
    for (int i = 0; parser.nextToken() != JsonToken.END_ARRAY; i++) {
      entries.accept(i, parser.readValueAsTree());
    }
  }

  private interface Body {
    void run(JsonParser parser) throws IOException;
  }

  private static void parse(Path file, Body body) {
    if (!Files.isRegularFile(file)) {
      throw new InputException(file + ": no such file; check the data folder");
    }
    try (JsonParser parser = MAPPER.getFactory().createParser(file.toFile())) {
      parser.enable(JsonParser.Feature.AUTO_CLOSE_SOURCE);
      body.run(parser);
      JsonToken rest = parser.nextToken();
      if (rest != null) {
        throw new InputException(file + ": has more after the end of its JSON");
      }
    } catch (JsonProcessingException e) {
      throw new InputException(
          "%s: JSON is cut off or malformed at line %d, column %d: %s; copy the file again"
              .formatted(
                  file,
                  e.getLocation() == null ? 0 : e.getLocation().getLineNr(),
                  e.getLocation() == null ? 0 : e.getLocation().getColumnNr(),
                  Reason.oneLine(e.getOriginalMessage())),
          e);
    } catch (IOException e) {
      throw new InputException(file + ": cannot be read: " + Reason.of(e), e);
    }
  }
}
