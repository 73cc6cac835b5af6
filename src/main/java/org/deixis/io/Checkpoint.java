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
  /** What a file says of one of its tensors. */
  record Entry(DType dtype, Shape shape) {
    /** Size of its values. */
    public long bytes() {
      return Math.multiplyExact(shape.size(), dtype.bytes());
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
   * @throws org.deixis.core.InputException when the file is damaged there
   */
  HostTensor read(String name);

  @Override
  void close();
}
