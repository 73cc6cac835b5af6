package org.deixis.io;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.core.InputException;

/**
 * What lies where in a zip archive. Java's own reader does not tell at which offset an entry lies,
 * and that is needed to map it. Format: APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3, one disk,
 * without encryption.
 *
 * @param entries by name, in the order of the directory
 */
record ZipIndex(Map<String, Entry> entries) {
  static final int STORED = 0;
  static final int DEFLATED = 8;

  /** Full-size models have some thousands of storages, with their optimizer's three times that. */
  private static final int MAX_ENTRIES = 50_000;

  private static final int DIRECTORY_END = 0x06054b50;
  private static final int DIRECTORY_END_64 = 0x06064b50;
  private static final int LOCATOR_64 = 0x07064b50;
  private static final int DIRECTORY_ENTRY = 0x02014b50;
  private static final int LOCAL_HEADER = 0x04034b50;
  private static final long UNSIGNED = 0xffffffffL;

  /**
   * @param offset of its bytes in the file
   * @param stored how many there are
   * @param size how many they are said to be when inflated
   */
  record Entry(String name, int method, long offset, long stored, long size, long crc) {}

  /**
   * @throws InputException when the archive is cut off, or an entry leaves the file, overlaps
   *     another, is encrypted or named like a path that leads outside
   */
  static ZipIndex read(MappedFile file) {
    // The end record lies behind everything but a comment of at most 65,535 bytes.
    long tailStart = Math.max(0, file.size() - 22 - 65_535);
    ByteBuffer tail = file.slice(tailStart, file.size() - tailStart);
    int at = tail.limit() - 22;
    while (at >= 0
        && (tail.getInt(at) != DIRECTORY_END
            || at + 22 + (tail.getShort(at + 20) & 0xffff) != tail.limit())) {
      at--;
    }
    if (at < 0) {
      throw file.broken("its directory is missing, so the file is cut off");
    }
    long count = tail.getShort(at + 10) & 0xffff;
    long size = tail.getInt(at + 12) & UNSIGNED;
    long offset = tail.getInt(at + 16) & UNSIGNED;
    if (at >= 20 && tail.getInt(at - 20) == LOCATOR_64) {
      ByteBuffer end = file.slice(tail.getLong(at - 20 + 8), 56);
      if (end.getInt(0) != DIRECTORY_END_64) {
        throw file.broken("its 64-bit directory is not where it should be");
      }
      count = end.getLong(32);
      size = end.getLong(40);
      offset = end.getLong(48);
    }
    if (count < 0 || count > MAX_ENTRIES) {
      throw file.refused(
          "the archive has %s entries, and at most %d are read; this is no checkpoint"
              .formatted(Long.toUnsignedString(count), MAX_ENTRIES));
    }
    ByteBuffer directory = file.slice(offset, size);
    Map<String, Entry> entries = new LinkedHashMap<>();
    List<long[]> places = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      if (directory.remaining() < 46 || directory.getInt(directory.position()) != DIRECTORY_ENTRY) {
        throw file.broken("its directory ends after " + i + " of " + count + " entries");
      }
      entry(file, directory, entries, places);
    }
    places.sort(Comparator.comparingLong(p -> p[0]));
    for (int i = 1; i < places.size(); i++) {
      if (places.get(i)[0] < places.get(i - 1)[1]) {
        throw file.broken("two of its entries overlap at offset " + places.get(i)[0]);
      }
    }
    return new ZipIndex(entries);
  }

  private static void entry(
      MappedFile file, ByteBuffer directory, Map<String, Entry> entries, List<long[]> places) {
    int at = directory.position();
    int nameLength = directory.getShort(at + 28) & 0xffff;
    int extraLength = directory.getShort(at + 30) & 0xffff;
    int commentLength = directory.getShort(at + 32) & 0xffff;
    if (directory.remaining() - 46 < nameLength + extraLength + commentLength) {
      throw file.broken("its directory is cut off");
    }
    byte[] nameBytes = new byte[nameLength];
    directory.position(at + 46).get(nameBytes);
    String name = new String(nameBytes, StandardCharsets.UTF_8);
    long stored = directory.getInt(at + 20) & UNSIGNED;
    long size = directory.getInt(at + 24) & UNSIGNED;
    long local = directory.getInt(at + 42) & UNSIGNED;
    if (stored == UNSIGNED || size == UNSIGNED || local == UNSIGNED) {
      ByteBuffer wide = wideField(file, directory, extraLength);
      size = size == UNSIGNED ? wideNumber(file, wide) : size;
      stored = stored == UNSIGNED ? wideNumber(file, wide) : stored;
      local = local == UNSIGNED ? wideNumber(file, wide) : local;
    }
    directory.position(at + 46 + nameLength + extraLength + commentLength);
    if (name.startsWith("/")
        || name.contains("\\")
        || name.matches("[A-Za-z]:.*")
        || ("/" + name + "/").contains("/../")) {
      throw file.refused(
          "the archive's entry '%s' leads outside of it; this is no checkpoint"
              .formatted(Lines.of(name)));
    }
    if ((directory.getShort(at + 8) & 1) != 0) {
      throw file.refused("the archive's entry '" + Lines.of(name) + "' is encrypted; decrypt it");
    }
    int method = directory.getShort(at + 10) & 0xffff;
    ByteBuffer header = file.slice(local, 30);
    if (header.getInt(0) != LOCAL_HEADER) {
      throw file.broken("its entry '" + Lines.of(name) + "' is not where the directory says");
    }
    long data = local + 30 + (header.getShort(26) & 0xffff) + (header.getShort(28) & 0xffff);
    if (stored < 0 || stored > file.size() - data || size < 0) {
      throw file.broken("its entry '" + Lines.of(name) + "' reaches beyond the file's end");
    }
    if (method == STORED && stored != size) {
      throw file.broken("its entry '" + Lines.of(name) + "' has two sizes");
    }
    Entry entry = new Entry(name, method, data, stored, size, directory.getInt(at + 16) & UNSIGNED);
    if (entries.put(name, entry) != null) {
      throw file.broken("it holds the entry '" + Lines.of(name) + "' twice");
    }
    places.add(new long[] {local, data + stored});
  }

  /** The extra field 1, where numbers beyond 32 bits stand. */
  private static ByteBuffer wideField(MappedFile file, ByteBuffer directory, int length) {
    ByteBuffer extra = directory.slice(directory.position(), length).order(directory.order());
    while (extra.remaining() >= 4) {
      int id = extra.getShort() & 0xffff;
      int size = extra.getShort() & 0xffff;
      if (size > extra.remaining()) {
        break;
      }
      if (id == 1) {
        return extra.slice(extra.position(), size).order(directory.order());
      }
      extra.position(extra.position() + size);
    }
    throw file.broken("its directory lacks a 64-bit size");
  }

  private static long wideNumber(MappedFile file, ByteBuffer wide) {
    if (wide.remaining() < 8) {
      throw file.broken("its directory lacks a 64-bit size");
    }
    return wide.getLong();
  }
}
