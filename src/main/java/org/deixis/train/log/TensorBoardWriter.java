package org.deixis.train.log;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.zip.CRC32C;
import org.deixis.core.AtomicWrite;
import org.deixis.core.InputException;
import org.deixis.core.Reason;

/**
 * An event file that TensorBoard reads: TFRecord framing (length, masked CRC-32C, bytes, masked
 * CRC-32C) around Event messages, of which only wall_time (1), step (2), file_version (3) and
 * summary (5) with value.tag (1) and value.simple_value (2) are needed, so they are written here by
 * hand.
 */
public final class TensorBoardWriter implements AutoCloseable {
  private final Path file;
  private final OutputStream out;

  /** A new event file in {@code folder}. */
  public TensorBoardWriter(Path folder) {
    String name = "events.out.tfevents." + System.currentTimeMillis() / 1000 + ".deixis";
    // A run that is resumed within the second keeps what it wrote before.
    Path free = folder.resolve(name);
    for (int i = 1; Files.exists(free); i++) {
      free = folder.resolve(name + "." + i);
    }
    file = free;
    ByteArrayOutputStream event = new ByteArrayOutputStream();
    putDouble(event, 1, System.currentTimeMillis() / 1e3);
    putBytes(event, 3, "brain.Event:2".getBytes(StandardCharsets.UTF_8));
    AtomicWrite.bytes(file, framed(event.toByteArray()));
    try {
      out = Files.newOutputStream(file, StandardOpenOption.APPEND);
    } catch (IOException e) {
      throw new InputException("cannot write " + file + ": " + Reason.of(e), e);
    }
  }

  /** One value of a named curve. */
  public void scalar(String tag, long step, double value) {
    ByteArrayOutputStream entry = new ByteArrayOutputStream();
    putBytes(entry, 1, tag.getBytes(StandardCharsets.UTF_8));
    putFloat(entry, 2, (float) value);
    ByteArrayOutputStream summary = new ByteArrayOutputStream();
    putBytes(summary, 1, entry.toByteArray());
    ByteArrayOutputStream event = new ByteArrayOutputStream();
    putDouble(event, 1, System.currentTimeMillis() / 1e3);
    event.write(2 << 3);
    putVarint(event, step);
    putBytes(event, 5, summary.toByteArray());
    try {
      out.write(framed(event.toByteArray()));
    } catch (IOException e) {
      throw new InputException(
          "cannot write " + file + ": " + Reason.of(e) + "; free some space", e);
    }
  }

  private static byte[] framed(byte[] data) {
    byte[] length =
        ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(data.length).array();
    ByteBuffer framed = ByteBuffer.allocate(16 + data.length).order(ByteOrder.LITTLE_ENDIAN);
    framed.put(length).putInt(masked(length)).put(data).putInt(masked(data));
    return framed.array();
  }

  /**
   * TFRecord's mask: rotate right by 15 and add a constant, so that a CRC over data with CRCs
   * inside stays useful.
   */
  static int masked(byte[] data) {
    CRC32C crc = new CRC32C();
    crc.update(data);
    return Integer.rotateRight((int) crc.getValue(), 15) + 0xa282ead8;
  }

  private static void putVarint(ByteArrayOutputStream out, long value) {
    long v = value;
    while ((v & ~0x7fL) != 0) {
      out.write((int) (v & 0x7f | 0x80));
      v >>>= 7;
    }
    out.write((int) v);
  }

  private static void putBytes(ByteArrayOutputStream out, int field, byte[] data) {
    out.write(field << 3 | 2);
    putVarint(out, data.length);
    out.writeBytes(data);
  }

  private static void putDouble(ByteArrayOutputStream out, int field, double value) {
    out.write(field << 3 | 1);
    out.writeBytes(ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putDouble(value).array());
  }

  private static void putFloat(ByteArrayOutputStream out, int field, float value) {
    out.write(field << 3 | 5);
    out.writeBytes(ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putFloat(value).array());
  }

  @Override
  public void close() {
    try {
      out.close();
    } catch (IOException e) {
      throw new InputException("cannot write " + file + ": " + Reason.of(e), e);
    }
  }
}
