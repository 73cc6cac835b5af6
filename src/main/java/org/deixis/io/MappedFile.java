package org.deixis.io;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.FileSystemLoopException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributes;
import org.deixis.core.InputException;

/**
 * A file whose bytes are mapped when they are asked for. All offsets are checked against the size
 * the file had when it was opened; a reader that follows a false offset gets one line, never bytes
 * of something else.
 */
final class MappedFile implements AutoCloseable {
  /** Files up to here are mapped once; of larger ones each piece on its own. */
  private static final long ONE_MAPPING = Integer.MAX_VALUE;

  /** Of a larger file, pieces up to here are copied: a process may not have very many mappings. */
  private static final int SMALL = 1 << 16;

  private final Path path;
  private final String format;
  private final FileChannel channel;
  private final long size;
  private ByteBuffer whole;

  private MappedFile(Path path, String format, FileChannel channel, long size) {
    this.path = path;
    this.format = format;
    this.channel = channel;
    this.size = size;
  }

  /**
   * @param format what the file is said to be, for messages
   * @throws InputException when the path is no readable file
   */
  static MappedFile open(Path path, String format) {
    try {
      // Looked at before it is opened: opening a pipe would wait for its writer.
      if (!Files.readAttributes(path, BasicFileAttributes.class).isRegularFile()) {
        throw new InputException(path + " is not a file; give the path of a checkpoint file");
      }
      FileChannel channel = FileChannel.open(path, StandardOpenOption.READ);
      try {
        return new MappedFile(path, format, channel, channel.size());
      } catch (IOException e) {
        channel.close();
        throw e;
      }
    } catch (IOException e) {
      throw unreadable(path, e);
    }
  }

  /** One line for what the file system says. */
  static InputException unreadable(Path path, IOException e) {
    if (e instanceof NoSuchFileException) {
      return new InputException("cannot read " + path + ": no such file; check the path", e);
    }
    String why = e.getMessage() == null ? e.toString() : e.getMessage();
    if (e instanceof FileSystemLoopException || why.contains("symbolic links")) {
      return new InputException(
          "cannot read " + path + ": its symbolic links go in a circle; give the file itself", e);
    }
    return new InputException(
        "cannot read " + path + ": " + Lines.of(why) + "; check the path and its permissions", e);
  }

  /** The same file under another name of its format, once that is known. */
  MappedFile as(String otherFormat) {
    MappedFile other = new MappedFile(path, otherFormat, channel, size);
    other.whole = whole;
    return other;
  }

  Path path() {
    return path;
  }

  String format() {
    return format;
  }

  /** In bytes. */
  long size() {
    return size;
  }

  /**
   * {@code length} bytes from {@code offset}, little-endian, read-only.
   *
   * @throws InputException when they do not lie within the file, or are 2 GiB and more
   */
  ByteBuffer slice(long offset, long length) {
    if (offset < 0 || length < 0 || offset > size || length > size - offset) {
      throw broken(
          "it has " + size + " bytes, and " + length + " are looked for at offset " + offset);
    }
    if (length > Integer.MAX_VALUE) {
      throw new InputException(
          path + ": one piece of " + length + " bytes; at most 2 GiB each are read, split it");
    }
    if (length == 0) {
      return ByteBuffer.allocate(0).order(ByteOrder.LITTLE_ENDIAN);
    }
    try {
      ByteBuffer piece;
      if (size <= ONE_MAPPING) {
        if (whole == null) {
          whole = channel.map(FileChannel.MapMode.READ_ONLY, 0, size);
        }
        piece = whole.slice((int) offset, (int) length);
      } else if (length <= SMALL) {
        piece = copy(offset, (int) length);
      } else {
        piece = channel.map(FileChannel.MapMode.READ_ONLY, offset, length);
      }
      return piece.order(ByteOrder.LITTLE_ENDIAN);
    } catch (IOException e) {
      throw unreadable(path, e);
    }
  }

  private ByteBuffer copy(long offset, int length) throws IOException {
    ByteBuffer piece = ByteBuffer.allocate(length);
    while (piece.hasRemaining()) {
      if (channel.read(piece, offset + piece.position()) < 0) {
        throw broken("it grew shorter while it was read");
      }
    }
    return piece.flip();
  }

  /** The error of a damaged file. */
  InputException broken(String what) {
    return new InputException(
        path + " is not a whole " + format + " file: " + what + "; fetch or write it again");
  }

  /** The error of a file that is whole, but holds what is not read. */
  InputException refused(String what) {
    return new InputException(path + ": " + what);
  }

  @Override
  public void close() {
    try {
      channel.close();
    } catch (IOException e) {
      throw unreadable(path, e);
    }
  }
}
