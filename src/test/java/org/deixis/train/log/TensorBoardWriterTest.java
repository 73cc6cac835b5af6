package org.deixis.train.log;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * The event file read back by the formats' own rules: TFRecord's framing and protobuf's wire
 * format.
 */
class TensorBoardWriterTest {
  @TempDir Path dir;

  private record Event(String version, long step, String tag, float value) {}

  /** CRC-32C by its polynomial, bit by bit. */
  private static int crc(byte[] data) {
    int crc = -1;
    for (byte b : data) {
      crc ^= b & 0xff;
      for (int k = 0; k < 8; k++) {
        crc = (crc & 1) != 0 ? crc >>> 1 ^ 0x82F63B78 : crc >>> 1;
      }
    }
    return ~crc;
  }

  private static int masked(byte[] data) {
    int crc = crc(data);
    return (crc >>> 15 | crc << 17) + 0xa282ead8;
  }

  private static long varint(ByteBuffer in) {
    long value = 0;
    for (int shift = 0; ; shift += 7) {
      byte b = in.get();
      value |= (long) (b & 0x7f) << shift;
      if (b >= 0) {
        return value;
      }
    }
  }

  private static ByteBuffer part(ByteBuffer in) {
    int length = (int) varint(in);
    ByteBuffer part = in.slice(in.position(), length).order(ByteOrder.LITTLE_ENDIAN);
    in.position(in.position() + length);
    return part;
  }

  private static String text(ByteBuffer bytes) {
    return StandardCharsets.UTF_8.decode(bytes).toString();
  }

  private static Event event(ByteBuffer in) {
    String version = null;
    String tag = null;
    long step = 0;
    float value = 0;
    boolean timed = false;
    while (in.hasRemaining()) {
      int key = (int) varint(in);
      switch (key) {
        case 1 << 3 | 1 -> timed = in.getDouble() > 1.6e9;
        case 2 << 3 -> step = varint(in);
        case 3 << 3 | 2 -> version = text(part(in));
        case 5 << 3 | 2 -> {
          ByteBuffer summary = part(in);
          assertEquals(1 << 3 | 2, varint(summary));
          ByteBuffer entry = part(summary);
          assertEquals(1 << 3 | 2, varint(entry));
          tag = text(part(entry));
          assertEquals(2 << 3 | 5, varint(entry));
          value = entry.getFloat();
        }
        default -> throw new AssertionError("field " + key);
      }
    }
    assertTrue(timed, "an event without a time of this century");
    return new Event(version, step, tag, value);
  }

  @Test
  void curvesAreReadBack() throws IOException {
    try (TensorBoardWriter writer = new TensorBoardWriter(dir)) {
      writer.scalar("loss", 1, 2.5);
      writer.scalar("val/gIoU", 300_000_000_000L, -1.25e-3);
    }
    List<Event> events = new ArrayList<>();
    try (Stream<Path> files = Files.list(dir)) {
      Path file = files.findFirst().orElseThrow();
      assertTrue(file.getFileName().toString().startsWith("events.out.tfevents."));
      ByteBuffer in = ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN);
      while (in.hasRemaining()) {
        byte[] length = new byte[8];
        in.get(length);
        assertEquals(masked(length), in.getInt(), "checksum of a length");
        byte[] data =
            new byte[(int) ByteBuffer.wrap(length).order(ByteOrder.LITTLE_ENDIAN).getLong()];
        in.get(data);
        assertEquals(masked(data), in.getInt(), "checksum of an event");
        events.add(event(ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)));
      }
    }
    assertEquals(
        List.of(
            new Event("brain.Event:2", 0, null, 0),
            new Event(null, 1, "loss", 2.5f),
            new Event(null, 300_000_000_000L, "val/gIoU", -1.25e-3f)),
        events);
  }

  /** RFC 3720, appendix B.4: CRC-32C of 32 zero bytes is 8a9136aa. */
  @Test
  void theChecksumIsThePublishedOne() {
    assertEquals(0x8a9136aa, crc(new byte[32]));
    assertEquals(masked(new byte[32]), TensorBoardWriter.masked(new byte[32]));
  }
}
