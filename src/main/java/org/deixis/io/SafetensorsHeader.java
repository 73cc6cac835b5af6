package org.deixis.io;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.core.InputException;
import org.deixis.core.Shape;

/**
 * The header of a safetensors file: what lies where. It is read token by token: as a tree it would
 * take many times its own size, and it may claim 100 MB.
 *
 * @param tensors by name, in the order of their bytes
 */
record SafetensorsHeader(Map<String, StoredTensor> tensors, Map<String, String> metadata) {
  static final String FORMAT = "safetensors";

  /** The format's own limit. */
  private static final long MAX_HEADER = 100_000_000;

  private static final JsonFactory JSON =
      JsonFactory.builder()
          .streamReadConstraints(
              StreamReadConstraints.builder()
                  .maxNestingDepth(8)
                  .maxStringLength((int) MAX_HEADER)
                  .build())
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .build();

  private record Place(String name, StoredType type, Shape shape, long begin, long end) {}

  /**
   * @throws InputException when the file is cut off, or a tensor leaves it, does not fit its shape,
   *     overlaps another or is of an unknown type
   */
  static SafetensorsHeader read(MappedFile file) {
    if (file.size() < 8) {
      throw file.broken("it has " + file.size() + " bytes, too few for a header");
    }
    long length = file.slice(0, 8).getLong();
    if (length < 2 || length > Math.min(MAX_HEADER, file.size() - 8)) {
      throw file.broken(
          "its header claims %s bytes of a file of %d"
              .formatted(Long.toUnsignedString(length), file.size()));
    }
    byte[] text = new byte[(int) length];
    ByteBuffer header = file.slice(8, length);
    header.get(text);
    Map<String, String> metadata = new LinkedHashMap<>();
    List<Place> places = new ArrayList<>();
    long available = file.size() - 8 - length;
    try (JsonParser in = JSON.createParser(text)) {
      if (in.nextToken() != JsonToken.START_OBJECT) {
        throw file.broken("its header is not a JSON object");
      }
      while (in.nextToken() != JsonToken.END_OBJECT) {
        String name = in.currentName();
        if (metadata.size() + places.size() >= TensorFile.MAX_TENSORS) {
          throw file.broken("its header has more than " + TensorFile.MAX_TENSORS + " entries");
        }
        if (in.nextToken() != JsonToken.START_OBJECT) {
          throw file.broken(Lines.tensor(name) + " lacks a shape or data_offsets");
        }
        if (name.equals("__metadata__")) {
          metadata(file, in, metadata);
        } else {
          places.add(place(file, name, in, available));
        }
      }
      if (in.nextToken() != null) {
        throw file.broken("its header goes on behind its JSON object");
      }
    } catch (IOException e) {
      throw file.broken("its header is not JSON, or names a tensor twice");
    }
    places.sort(Comparator.comparingLong(Place::begin).thenComparingLong(Place::end));
    Map<String, StoredTensor> tensors = new LinkedHashMap<>();
    long last = 0;
    for (Place p : places) {
      if (p.begin < last) {
        throw file.broken(Lines.tensor(p.name) + " overlaps the one before it");
      }
      last = p.end;
      tensors.put(
          p.name,
          StoredTensor.whole(
              file,
              Lines.tensor(p.name),
              StoredTensor.in(file, 8 + length + p.begin, p.end - p.begin),
              p.type,
              p.shape));
    }
    return new SafetensorsHeader(tensors, metadata);
  }

  private static void metadata(MappedFile file, JsonParser in, Map<String, String> metadata)
      throws IOException {
    while (in.nextToken() != JsonToken.END_OBJECT) {
      String key = in.currentName();
      if (metadata.size() >= TensorFile.MAX_TENSORS || !in.nextToken().isScalarValue()) {
        throw file.broken("its metadata is more than a list of texts");
      }
      metadata.put(key, in.getText());
    }
  }

  private static Place place(MappedFile file, String name, JsonParser in, long available)
      throws IOException {
    String where = Lines.tensor(name);
    String dtype = "";
    long[] extents = null;
    long[] offsets = null;
    while (in.nextToken() != JsonToken.END_OBJECT) {
      String field = in.currentName();
      in.nextToken();
      switch (field) {
        case "dtype" -> {
          // Also that it is no object or array, whose inside the loop would take for fields.
          if (in.currentToken() != JsonToken.VALUE_STRING) {
            throw file.broken(where + " has a type that is no text");
          }
          dtype = in.getText();
        }
        case "shape" -> extents = numbers(file, where, in);
        case "data_offsets" -> offsets = numbers(file, where, in);
        default -> in.skipChildren();
      }
    }
    StoredType type = StoredType.ofSafetensors(dtype);
    if (type == null) {
      throw file.broken(where + " has the unknown type '" + Lines.of(dtype) + "'");
    }
    if (extents == null || offsets == null || offsets.length != 2) {
      throw file.broken(where + " lacks a shape or data_offsets");
    }
    Shape shape = StoredTensor.shape(file, where, extents);
    if (offsets[0] < 0 || offsets[1] < offsets[0] || offsets[1] > available) {
      throw file.broken(
          "%s lies at %d to %d, and the file has %d bytes of data"
              .formatted(where, offsets[0], offsets[1], available));
    }
    return new Place(name, type, shape, offsets[0], offsets[1]);
  }

  private static long[] numbers(MappedFile file, String where, JsonParser in) throws IOException {
    if (!in.isExpectedStartArrayToken()) {
      throw file.broken(where + " lacks a shape or data_offsets");
    }
    long[] numbers = new long[4];
    int count = 0;
    while (in.nextToken() != JsonToken.END_ARRAY) {
      if (in.currentToken() != JsonToken.VALUE_NUMBER_INT
          || in.getNumberType() == JsonParser.NumberType.BIG_INTEGER
          || count == StoredTensor.MAX_RANK) {
        throw file.broken(where + " has a shape or offsets that no array has");
      }
      if (count == numbers.length) {
        numbers = Arrays.copyOf(numbers, 2 * count);
      }
      numbers[count++] = in.getLongValue();
    }
    return Arrays.copyOf(numbers, count);
  }
}
