package org.deixis.io;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.zip.CRC32;

/** Bytes of pickles and zip archives for tests, true and false ones alike. */
final class Pickles {
  private final ByteArrayOutputStream out = new ByteArrayOutputStream();

  /** Opcodes as they look in ASCII, or any text. */
  Pickles ascii(String text) {
    out.writeBytes(text.getBytes(StandardCharsets.ISO_8859_1));
    return this;
  }

  Pickles ascii(String text, int times) {
    return ascii(text.repeat(times));
  }

  Pickles bytes(int... values) {
    for (int v : values) {
      out.write(v);
    }
    return this;
  }

  /** BINUNICODE. */
  Pickles text(String text) {
    byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
    ascii("X").i4(utf8.length);
    out.writeBytes(utf8);
    return this;
  }

  Pickles i4(int value) {
    out.writeBytes(ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putInt(value).array());
    return this;
  }

  Pickles i8(long value) {
    out.writeBytes(ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(value).array());
    return this;
  }

  Pickles raw(byte[] bytes) {
    out.writeBytes(bytes);
    return this;
  }

  byte[] array() {
    return out.toByteArray();
  }

  /** A pickle of protocol 4 with this body. */
  static Pickles protocol(int protocol) {
    return new Pickles().bytes(0x80, protocol);
  }

  /** A zip archive, entry by entry, that says what it is told to say. */
  static final class Zip {
    private final Pickles file = new Pickles();
    private final Pickles directory = new Pickles();
    private int entries;

    Zip entry(String name, byte[] data) {
      return entry(name, data, 0, data.length, 0);
    }

    /**
     * @param method 0 stored, 8 deflated
     * @param size said to be its size when inflated
     * @param shift added to the offset the directory gives
     */
    Zip entry(String name, byte[] data, int method, int size, int shift) {
      return entry(name, data, method, size, shift, data);
    }

    /** The same with the checksum of {@code plain}. */
    Zip entry(String name, byte[] data, int method, int size, int shift, byte[] plain) {
      byte[] utf8 = name.getBytes(StandardCharsets.UTF_8);
      CRC32 crc = new CRC32();
      crc.update(plain);
      int at = file.out.size();
      file.i4(0x04034b50).bytes(20, 0, 0, 0, method, 0).i4(0).i4((int) crc.getValue());
      file.i4(data.length).i4(size).bytes(utf8.length, utf8.length >> 8, 0, 0).raw(utf8).raw(data);
      directory.i4(0x02014b50).bytes(20, 0, 20, 0, 0, 0, method, 0).i4(0).i4((int) crc.getValue());
      directory.i4(data.length).i4(size).bytes(utf8.length, utf8.length >> 8, 0, 0, 0, 0, 0, 0);
      directory.bytes(0, 0).i4(0).i4(at + shift).raw(utf8);
      entries++;
      return this;
    }

    byte[] array() {
      return array(entries);
    }

    /** An archive whose end claims so many entries, by the 64-bit record beyond 65,535. */
    byte[] array(long claimed) {
      int at = file.out.size();
      byte[] list = directory.array();
      file.raw(list);
      if (claimed > 0xffff) {
        int end = file.out.size();
        file.i4(0x06064b50).i8(44).bytes(45, 0, 45, 0).i4(0).i4(0).i8(claimed).i8(claimed);
        file.i8(list.length).i8(at).i4(0x07064b50).i4(0).i8(end).i4(1);
      }
      int low = (int) Math.min(0xffff, claimed);
      file.i4(0x06054b50).i4(0).bytes(low, low >> 8, low, low >> 8).i4(list.length).i4(at);
      return file.bytes(0, 0).array();
    }
  }
}
