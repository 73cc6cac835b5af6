package org.deixis.io;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.StreamReadConstraints;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;

/**
 * The safetensors format: eight bytes of header length, a JSON header, then the tensors' bytes.
 * Files are not trusted: the header's size is bounded before it is read, and every tensor must lie
 * within the file, fit its shape, and overlap no other.
 */
public final class Safetensors {
  /** The format's own limit. */
  private static final long MAX_HEADER = 100_000_000;

  private static final ObjectMapper JSON =
      new ObjectMapper(
          JsonFactory.builder()
              .streamReadConstraints(StreamReadConstraints.builder().maxNestingDepth(8).build())
              .build());

  private final Map<String, HostTensor> tensors;
  private final Map<String, String> metadata;

  private Safetensors(Map<String, HostTensor> tensors, Map<String, String> metadata) {
    this.tensors = tensors;
    this.metadata = metadata;
  }

  /** Tensors by name, in the order of their bytes; mapped from the file. */
  public Map<String, HostTensor> tensors() {
    return tensors;
  }

  public Map<String, String> metadata() {
    return metadata;
  }

  /**
   * @throws InputException one line that names the file and what is wrong with it
   */
  public static Safetensors read(Path file) {
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      return read(file, channel);
    } catch (IOException e) {
      throw new InputException("cannot read " + file + ": " + e, e);
    }
  }

  private static Safetensors read(Path file, FileChannel channel) throws IOException {
    long size = channel.size();
    ByteBuffer length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN);
    if (size < 8 || readFully(channel, length, 0) < 8) {
      throw broken(file, "it has " + size + " bytes, too few for a header");
    }
    long headerLength = length.getLong(0);
    if (headerLength < 2 || headerLength > Math.min(MAX_HEADER, size - 8)) {
      throw broken(
          file,
          "its header claims "
              + Long.toUnsignedString(headerLength)
              + " bytes of a file of "
              + size);
    }
    ByteBuffer header = ByteBuffer.allocate((int) headerLength);
    readFully(channel, header, 8);
    JsonNode root;
    try {
      root = JSON.readTree(header.array());
    } catch (IOException e) {
      throw broken(file, "its header is not JSON");
    }
    if (root == null || !root.isObject()) {
      throw broken(file, "its header is not a JSON object");
    }
    long start = 8 + headerLength;
    Map<String, String> metadata = new LinkedHashMap<>();
    List<Entry> entries = new ArrayList<>();
    for (Iterator<Map.Entry<String, JsonNode>> it = root.fields(); it.hasNext(); ) {
      Map.Entry<String, JsonNode> field = it.next();
      if (field.getKey().equals("__metadata__")) {
        field
            .getValue()
            .fields()
            .forEachRemaining(m -> metadata.put(m.getKey(), m.getValue().asText()));
      } else {
        entries.add(entry(file, field.getKey(), field.getValue(), size - start));
      }
    }
    entries.sort(Comparator.comparingLong(Entry::begin).thenComparingLong(Entry::end));
    Map<String, HostTensor> tensors = new LinkedHashMap<>();
    long last = 0;
    for (Entry e : entries) {
      if (e.begin < last) {
        throw broken(file, "tensor '" + e.name + "' overlaps the one before it");
      }
      last = e.end;
      ByteBuffer data =
          e.end == e.begin
              ? ByteBuffer.allocate(0)
              : channel.map(FileChannel.MapMode.READ_ONLY, start + e.begin, e.end - e.begin);
      tensors.put(e.name, new HostTensor(e.name, e.dtype, e.shape, data));
    }
    return new Safetensors(tensors, metadata);
  }

  private record Entry(String name, DType dtype, Shape shape, long begin, long end) {}

  private static Entry entry(Path file, String name, JsonNode node, long available) {
    String where = "tensor '" + (name.length() > 100 ? name.substring(0, 100) + "…" : name) + "'";
    DType dtype;
    try {
      dtype = DType.valueOf(node.path("dtype").asText());
    } catch (IllegalArgumentException e) {
      throw broken(file, where + " has the unknown type '" + node.path("dtype").asText() + "'");
    }
    JsonNode dims = node.path("shape");
    JsonNode offsets = node.path("data_offsets");
    if (!dims.isArray() || !offsets.isArray() || offsets.size() != 2 || dims.size() > 16) {
      throw broken(file, where + " lacks a shape or data_offsets");
    }
    int[] extents = new int[dims.size()];
    long bytes = dtype.bytes();
    for (int i = 0; i < extents.length; i++) {
      if (!dims.get(i).canConvertToInt() || dims.get(i).asInt() < 0) {
        throw broken(file, where + " has the extent " + dims.get(i));
      }
      extents[i] = dims.get(i).asInt();
      long product = Math.multiplyHigh(bytes, extents[i]) != 0 ? -1 : bytes * extents[i];
      if (product < 0) {
        throw broken(file, where + " has a shape too large to exist: " + dims);
      }
      bytes = product;
    }
    if (!offsets.get(0).canConvertToLong() || !offsets.get(1).canConvertToLong()) {
      throw broken(file, where + " has the offsets " + offsets);
    }
    long begin = offsets.get(0).asLong();
    long end = offsets.get(1).asLong();
    if (begin < 0 || end < begin || end > available) {
      throw broken(
          file,
          where
              + " lies at "
              + begin
              + " to "
              + end
              + ", and the file has "
              + available
              + " bytes of data");
    }
    if (end - begin != bytes) {
      throw broken(file, where + " of " + bytes + " bytes is given " + (end - begin));
    }
    return new Entry(name, dtype, Shape.of(extents), begin, end);
  }

  private static int readFully(FileChannel channel, ByteBuffer into, long position)
      throws IOException {
    while (into.hasRemaining()) {
      int n = channel.read(into, position + into.position());
      if (n < 0) {
        break;
      }
    }
    return into.position();
  }

  private static InputException broken(Path file, String what) {
    return new InputException(
        file + " is not a whole safetensors file: " + what + "; fetch or write it again");
  }

  /**
   * Writes all tensors under a temporary name beside {@code file}, forces them to disk, then
   * renames: the file is whole or it is what it was before.
   *
   * @throws InputException when the disk is full or the folder cannot be written
   */
  public static void write(
      Path file, Collection<HostTensor> tensors, Map<String, String> metadata) {
    ObjectNode root = JSON.createObjectNode();
    if (!metadata.isEmpty()) {
      ObjectNode node = root.putObject("__metadata__");
      metadata.forEach(node::put);
    }
    long at = 0;
    for (HostTensor t : tensors) {
      ObjectNode node = root.putObject(t.name());
      node.put("dtype", t.dtype().name());
      var dims = node.putArray("shape");
      for (int d : t.shape().dims()) {
        dims.add(d);
      }
      node.putArray("data_offsets").add(at).add(at + t.data().remaining());
      at += t.data().remaining();
    }
    byte[] json = root.toString().getBytes(StandardCharsets.UTF_8);
    int padded = (json.length + 7) & -8; // the data begins 8-aligned; the format pads with spaces
    ByteBuffer header = ByteBuffer.allocate(8 + padded).order(ByteOrder.LITTLE_ENDIAN);
    header.putLong(padded).put(json);
    while (header.hasRemaining()) {
      header.put((byte) ' ');
    }
    header.flip();
    Path temporary = file.resolveSibling(file.getFileName() + ".partial");
    try {
      Files.createDirectories(file.toAbsolutePath().getParent());
      try (FileChannel channel =
          FileChannel.open(
              temporary,
              StandardOpenOption.CREATE,
              StandardOpenOption.WRITE,
              StandardOpenOption.TRUNCATE_EXISTING)) {
        writeFully(channel, header);
        for (HostTensor t : tensors) {
          writeFully(channel, t.bytes());
        }
        channel.force(true);
      }
      Files.move(
          temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } catch (IOException e) {
      try {
        Files.deleteIfExists(temporary);
      } catch (IOException suppressed) {
        e.addSuppressed(suppressed);
      }
      throw new InputException(
          "cannot write "
              + file
              + ": "
              + e.getMessage()
              + "; free some space or choose another folder",
          e);
    }
  }

  private static void writeFully(FileChannel channel, ByteBuffer from) throws IOException {
    while (from.hasRemaining()) {
      channel.write(from);
    }
  }
}
