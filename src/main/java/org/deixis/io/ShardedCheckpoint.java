package org.deixis.io;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import org.deixis.core.InputException;

/**
 * A checkpoint in several files of one folder, told by an index: {@code {"weight_map": {"name":
 * "model-00001-of-00002.safetensors", …}}}. Written by Hugging Face for safetensors and for
 * PyTorch's own format; the shards may be of any format that is read.
 */
final class ShardedCheckpoint implements Checkpoint {
  /** Shards a checkpoint may have; the largest published ones have some 200. */
  private static final int MAX_SHARDS = 1000;

  private static final long MAX_INDEX = 50_000_000;

  private static final JsonFactory JSON =
      JsonFactory.builder()
          .streamReadConstraints(StreamReadConstraints.builder().maxNestingDepth(16).build())
          .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
          .build();

  private final Path index;
  private final Map<String, Checkpoint> shards;
  private final Map<String, Checkpoint> holders = new LinkedHashMap<>();
  private final Map<String, Entry> entries = new LinkedHashMap<>();

  private ShardedCheckpoint(
      Path index, Map<String, String> places, Map<String, Checkpoint> shards) {
    this.index = index;
    this.shards = shards;
    places.forEach(
        (name, shard) -> {
          Checkpoint holder = shards.get(shard);
          Entry entry = holder.entries().get(name);
          if (entry == null) {
            throw new InputException(
                "%s: the shard %s has no %s; fetch the index and all shards again"
                    .formatted(index, Lines.of(shard), Lines.tensor(name)));
          }
          holders.put(name, holder);
          entries.put(name, entry);
        });
  }

  /**
   * @throws InputException when the index is no index, a shard's name is not a plain file name, or
   *     a shard is missing or lacks a tensor
   */
  static ShardedCheckpoint open(Path index) {
    Map<String, String> places = places(index);
    Map<String, Checkpoint> shards = new LinkedHashMap<>();
    boolean whole = false;
    try {
      for (String shard : places.values()) {
        if (!shards.containsKey(shard)) {
          if (shards.size() == MAX_SHARDS) {
            throw new InputException(
                index + ": more than " + MAX_SHARDS + " shards; this is no checkpoint's index");
          }
          Path file = index.resolveSibling(shard);
          shards.put(shard, Checkpoints.openFile(file));
        }
      }
      ShardedCheckpoint all = new ShardedCheckpoint(index, places, shards);
      whole = true;
      return all;
    } finally {
      if (!whole) {
        shards.values().forEach(Checkpoint::close);
      }
    }
  }

  private static Map<String, String> places(Path index) {
    try (MappedFile file = MappedFile.open(index, "checkpoint index")) {
      if (file.size() > MAX_INDEX) {
        throw file.broken("it has " + file.size() + " bytes; at most " + MAX_INDEX + " are read");
      }
      byte[] text = new byte[(int) file.size()];
      file.slice(0, text.length).get(text);
      Map<String, String> places = null;
      try (JsonParser in = JSON.createParser(text)) {
        if (in.nextToken() != JsonToken.START_OBJECT) {
          throw file.broken("it is not a JSON object");
        }
        while (in.nextToken() != JsonToken.END_OBJECT) {
          String field = in.currentName();
          in.nextToken();
          if (field.equals("weight_map")) {
            places = weightMap(file, in);
          } else {
            in.skipChildren();
          }
        }
      } catch (IOException e) {
        throw file.broken("it is not JSON, or names a tensor twice");
      }
      if (places == null) {
        throw file.broken("it has no weight_map of tensor names to file names");
      }
      return places;
    }
  }

  private static Map<String, String> weightMap(MappedFile file, JsonParser in) throws IOException {
    if (!in.isExpectedStartObjectToken()) {
      throw file.broken("its weight_map is not an object");
    }
    Map<String, String> places = new LinkedHashMap<>();
    while (in.nextToken() != JsonToken.END_OBJECT) {
      String name = in.currentName();
      if (in.nextToken() != JsonToken.VALUE_STRING || places.size() == TensorFile.MAX_TENSORS) {
        throw file.broken("its weight_map does not map tensor names to file names");
      }
      String shard = in.getText();
      if (!plain(shard)) {
        throw file.refused(
            "the shard '%s' is not a plain file name; shards lie beside their index"
                .formatted(Lines.of(shard)));
      }
      places.put(name, shard);
    }
    return places;
  }

  /** Whether it names a file of the same folder on every system: no separators, drives, parents. */
  private static boolean plain(String name) {
    return name.length() <= 255
        && name.matches("[A-Za-z0-9_][A-Za-z0-9_. +=@-]*")
        && !name.endsWith(".json");
  }

  @Override
  public String format() {
    return shards.values().stream().findFirst().map(Checkpoint::format).orElse("empty")
        + ", "
        + shards.size()
        + (shards.size() == 1 ? " shard" : " shards");
  }

  @Override
  public Map<String, Entry> entries() {
    return Collections.unmodifiableMap(entries);
  }

  @Override
  public HostTensor read(String name) {
    Checkpoint holder = holders.get(name);
    if (holder == null) {
      throw new IllegalArgumentException(index + " has no " + name);
    }
    return holder.read(name);
  }

  @Override
  public void close() {
    shards.values().forEach(Checkpoint::close);
  }
}
