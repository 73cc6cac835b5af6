package org.deixis.io;

import java.util.Map;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * Tensors of a checkpoint file by name, whatever its format. Opening reads what is stored where;
 * the values of a tensor are read when they are asked for. Closing gives the file back; tensors
 * that were read before stay valid.
 */
public interface Checkpoint extends AutoCloseable {
  /**
   * What a file says of one of its tensors.
   *
   * @param dtype what it is read as, or null for a type that is listed and not read: complex
   *     numbers, and floats of six and four bits
   * @param type of its elements in the file, "F32", "U16", "F8_E4M3"
   * @param bytes that its elements take in the file
   */
  record Entry(DType dtype, Shape shape, String type, long bytes) {
    /** A tensor whose elements are stored as they are read. */
    public Entry(DType dtype, Shape shape) {
      this(dtype, shape, dtype.name(), Math.multiplyExact(shape.size(), dtype.bytes()));
    }
  }

  /** The format in a word or two, for messages and tables: "safetensors", "PyTorch zip". */
  String format();

  /** All tensors in the order of the file; names of nested dictionaries are joined with dots. */
  Map<String, Entry> entries();

  /**
   * The values of a tensor, contiguous.
   *
   * @throws IllegalArgumentException for a name that is not in {@link #entries}
   * @throws org.deixis.core.InputException when the file is damaged there, or the type is only
   *     listed
   */
  HostTensor read(String name);

  @Override
  void close();
}
