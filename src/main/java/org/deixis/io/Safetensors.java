package org.deixis.io;

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
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.Map;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/**
 * The safetensors format: eight bytes of header length, a JSON header, then the tensors' bytes.
 * Files are not trusted: the header's size is bounded before it is read, and every tensor must lie
 * within the file, fit its shape, and overlap no other.
 */
public final class Safetensors {
  private static final ObjectMapper JSON = new ObjectMapper();

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
    try (MappedFile mapped = MappedFile.open(file, SafetensorsHeader.FORMAT)) {
      SafetensorsHeader header = SafetensorsHeader.read(mapped);
      Map<String, HostTensor> tensors = new LinkedHashMap<>();
      header.tensors().forEach((name, stored) -> tensors.put(name, stored.read(name)));
      return new Safetensors(tensors, header.metadata());
    }
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
              + Reason.of(e)
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
