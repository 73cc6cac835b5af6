package org.deixis.io;

import org.deixis.core.InputException;

/** A pickle of NumPy arrays, as Detectron2's model zoo publishes them. */
final class NumpyPickle {
  static final String FORMAT = "NumPy pickle";

  private NumpyPickle() {}

  /**
   * Opens a file that begins with a pickle; PyTorch's older format does too, and is told by its
   * magic number.
   *
   * @throws InputException when it is damaged or asks for more than arrays and plain containers
   */
  static TensorFile open(MappedFile file) {
    MappedFile numpy = file.as(FORMAT);
    Unpickler pickle = new Unpickler(numpy, 0, numpy.size(), id -> refuse(numpy));
    Object root = pickle.load();
    if (root.equals(TorchReader.MAGIC)) {
      return TorchReader.legacy(file.as(TorchReader.LEGACY), pickle.position());
    }
    return StateNames.read(numpy, root, (name, value) -> tensor(numpy, name, value));
  }

  private static Object refuse(MappedFile file) {
    throw file.refused(
        "a bare pickle of PyTorch, whose numbers lie in another file; save it with torch.save");
  }

  /** An array as a tensor under that name, or null for what is none. */
  static StoredTensor tensor(MappedFile file, String name, Object value) {
    if (!(value instanceof PickleValue.NumpyArray array)) {
      return null;
    }
    String where = Lines.tensor(name);
    if (array.bytes == null) {
      throw file.broken(where + " has no values");
    }
    return StoredTensor.whole(
        file,
        where,
        array.bytes,
        array.type.type,
        array.type.bigEndian,
        array.shape,
        array.columnMajor);
  }
}
