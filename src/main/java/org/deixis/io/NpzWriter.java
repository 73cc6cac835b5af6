package org.deixis.io;

import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Collection;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Reason;
import org.deixis.core.Shape;

/**
 * NumPy's .npz: a ZIP of uncompressed .npy files of format 1.0, {@code NAME.npy} each, as {@code
 * numpy.savez} writes it. Large ones become ZIP64.
 */
public final class NpzWriter {
  private static final byte[] MAGIC = {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};

  /** The header is filled up so that the values begin at a multiple of it. */
  private static final int ALIGNMENT = 64;

  private NpzWriter() {}

  /**
   * Writes all tensors under a temporary name beside {@code file}, then renames.
   *
   * @param tensors asked for one after the other; BF16, which NumPy lacks, is refused
   * @throws InputException when the file cannot be written; nothing is left behind then
   */
  public static void write(Path file, Collection<HostTensor> tensors) {
    Path temporary = file.resolveSibling(file.getFileName() + ".partial");
    try {
      Files.createDirectories(file.toAbsolutePath().getParent());
      try {
        try (ZipOutputStream zip =
            new ZipOutputStream(
                new BufferedOutputStream(Files.newOutputStream(temporary), 1 << 16))) {
          for (HostTensor t : tensors) {
            write(zip, t);
          }
        }
        Files.move(
            temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
      } finally {
        Files.deleteIfExists(temporary);
      }
    } catch (IOException e) {
      throw new InputException(
          "cannot write "
              + file
              + ": "
              + Reason.of(e)
              + "; free some space or choose another folder",
          e);
    }
  }

  private static void write(ZipOutputStream zip, HostTensor t) throws IOException {
    byte[] header = header(t.dtype(), t.shape());
    CRC32 crc = new CRC32();
    crc.update(header);
    crc.update(t.bytes());
    ZipEntry entry = new ZipEntry(t.name() + ".npy");
    entry.setMethod(ZipEntry.STORED);
    entry.setSize(header.length + (long) t.data().remaining());
    entry.setCrc(crc.getValue());
    entry.setTime(315_532_800_000L); // 1980, the first that ZIP knows: the same bytes every time
    zip.putNextEntry(entry);
    zip.write(header);
    copy(t.bytes(), zip);
    zip.closeEntry();
  }

  private static byte[] header(DType dtype, Shape shape) {
    StringBuilder dims = new StringBuilder();
    for (int d : shape.dims()) {
      dims.append(d).append(shape.rank() == 1 ? "," : ", ");
    }
    String extents = dims.toString().replaceAll(", $", "");
    String text =
        "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }"
            .formatted(description(dtype), extents);
    int unpadded = MAGIC.length + 2 + text.length() + 1;
    int padding = -unpadded & (ALIGNMENT - 1);
    int length = text.length() + padding + 1;
    ByteBuffer out = ByteBuffer.allocate(MAGIC.length + 2 + length);
    out.put(MAGIC).put((byte) length).put((byte) (length >> 8));
    out.put((text + " ".repeat(padding) + "\n").getBytes(StandardCharsets.US_ASCII));
    return out.array();
  }

  private static String description(DType dtype) {
    return switch (dtype) {
      case F64 -> "<f8";
      case F32 -> "<f4";
      case F16 -> "<f2";
      case I64 -> "<i8";
      case I32 -> "<i4";
      case I16 -> "<i2";
      case I8 -> "|i1";
      case U8 -> "|u1";
      case BOOL -> "|b1";
      case BF16 -> throw new InputException("NumPy has no BF16; write safetensors");
    };
  }

  private static void copy(ByteBuffer from, OutputStream to) throws IOException {
    byte[] block = new byte[Math.min(from.remaining(), 1 << 16)];
    while (from.hasRemaining()) {
      int n = Math.min(block.length, from.remaining());
      from.get(block, 0, n);
      to.write(block, 0, n);
    }
  }
}
