package org.deixis.io;

import java.math.BigInteger;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.deixis.core.InputException;

/**
 * PyTorch's two formats. A pickle says which views of which storages the tensors are; the storages
 * lie beside it, in a zip archive ({@code NAME/data.pkl} and {@code NAME/data/KEY}) or, before
 * PyTorch 1.6, one after the other behind it.
 */
final class TorchReader {
  static final String ZIP = "PyTorch zip";
  static final String LEGACY = "PyTorch legacy";

  /** The first object of a file in the older format. */
  static final BigInteger MAGIC = new BigInteger("1950a86a20f9469cfc6c", 16);

  private static final String PICKLE = "data.pkl";

  private final MappedFile file;
  private final Map<String, PickleValue.Storage> storages = new HashMap<>();
  private final Map<String, StoredTensor.Bytes> places = new HashMap<>();

  private TorchReader(MappedFile file) {
    this.file = file;
  }

  /**
   * Opens an archive that has a {@code data.pkl}.
   *
   * @throws InputException when it is big-endian, compressed, damaged, or its pickle asks for more
   *     than tensors and plain containers
   */
  static TensorFile zip(MappedFile file, ZipIndex zip) {
    return new TorchReader(file).readZip(zip);
  }

  /** Whether an archive is one of PyTorch's. */
  static boolean isTorch(ZipIndex zip) {
    return zip.entries().keySet().stream().anyMatch(TorchReader::isPickle);
  }

  private static boolean isPickle(String name) {
    return name.equals(PICKLE) || name.endsWith("/" + PICKLE);
  }

  private TensorFile readZip(ZipIndex zip) {
    List<String> pickles = zip.entries().keySet().stream().filter(TorchReader::isPickle).toList();
    if (pickles.size() != 1) {
      throw file.refused(
          "the archive has "
              + pickles.size()
              + " entries named data.pkl; give a single checkpoint");
    }
    String prefix = pickles.get(0).substring(0, pickles.get(0).length() - PICKLE.length());
    ZipIndex.Entry order = zip.entries().get(prefix + "byteorder");
    if (order != null) {
      StoredTensor.Bytes bytes = stored(order);
      if (bytes.length() != 6 || bytes.read(0, 6).get() != 'l') {
        throw file.refused("its numbers are big-endian; save it again on a little-endian machine");
      }
    }
    ZipIndex.Entry pickle = zip.entries().get(pickles.get(0));
    stored(pickle);
    Object root = new Unpickler(file, pickle.offset(), pickle.stored(), this::persistent).load();
    for (PickleValue.Storage storage : storages.values()) {
      ZipIndex.Entry entry = zip.entries().get(prefix + "data/" + storage.key());
      if (entry == null) {
        throw file.broken("the storage " + Lines.of(storage.key()) + " is missing");
      }
      StoredTensor.Bytes bytes = stored(entry);
      place(storage, bytes, bytes.length());
    }
    return StateNames.read(file, root, this::tensor);
  }

  private StoredTensor.Bytes stored(ZipIndex.Entry entry) {
    if (entry.method() != ZipIndex.STORED) {
      throw file.refused(
          "the entry '%s' is compressed, which PyTorch never does; save it again with torch.save"
              .formatted(Lines.of(entry.name())));
    }
    return StoredTensor.in(file, entry.offset(), entry.stored());
  }

  /**
   * Goes on behind the magic number of the older format: protocol, system, object, the keys of the
   * storages in their order, and the storages, each with its number of elements.
   *
   * @param position of the byte behind the magic number
   */
  static TensorFile legacy(MappedFile file, long position) {
    return new TorchReader(file).readLegacy(position);
  }

  private TensorFile readLegacy(long position) {
    Unpickler pickles = new Unpickler(file, position, file.size() - position, this::persistent);
    Object protocol = pickles.load();
    if (!Long.valueOf(1001).equals(protocol)) {
      throw file.refused("a PyTorch file of another protocol than 1001; save it again");
    }
    if (pickles.load() instanceof PickleValue.Dictionary system
        && Boolean.FALSE.equals(system.items().get("little_endian"))) {
      throw file.refused("its numbers are big-endian; save it again on a little-endian machine");
    }
    Object root = pickles.load();
    List<Object> keys = Unpickler.items(pickles.load());
    long at = pickles.position();
    for (Object key : keys) {
      PickleValue.Storage storage = key instanceof String k ? storages.get(k) : null;
      if (storage == null) {
        throw file.broken("it holds a storage that no tensor uses");
      }
      long elements = file.slice(at, 8).getLong();
      long width = storage.type() == null ? 1 : storage.type().bytes();
      at += 8;
      if (elements < 0 || elements > (file.size() - at) / width) {
        throw file.broken(
            "the storage %s claims %s elements, and %d bytes are left"
                .formatted(
                    Lines.of(storage.key()), Long.toUnsignedString(elements), file.size() - at));
      }
      place(storage, StoredTensor.in(file, at, elements * width), elements * width);
      at += elements * width;
    }
    for (String key : storages.keySet()) {
      if (!places.containsKey(key)) {
        throw file.broken("the storage " + Lines.of(key) + " is missing");
      }
    }
    return StateNames.read(file, root, this::tensor);
  }

  private void place(PickleValue.Storage storage, StoredTensor.Bytes bytes, long length) {
    long width = storage.type() == null ? 1 : storage.type().bytes();
    if (storage.elements() < 0 || storage.elements() > length / width) {
      throw file.broken(
          "the storage %s is said to have %d elements, and has %d bytes"
              .formatted(Lines.of(storage.key()), storage.elements(), length));
    }
    if (places.put(storage.key(), bytes) != null) {
      throw file.broken("it holds the storage " + Lines.of(storage.key()) + " twice");
    }
  }

  /**
   * {@code ("storage", type, key, device, elements)}; the older format has a sixth, None or {@code
   * (key of the view, offset, elements)} for a part of a storage. The device does not matter here.
   */
  private Object persistent(Object id) {
    if (!(id instanceof PickleValue.Tuple t)
        || !"storage".equals(t.get(0))
        || !(t.get(2) instanceof String key)
        || !(t.get(4) instanceof Long elements)) {
      throw file.broken("its pickle refers to what is no storage");
    }
    StoredType type = PickleAllowList.torchType(t.get(1));
    if (type == null && !PickleAllowList.isUntyped(t.get(1))) {
      throw file.refused("a storage of a type that is not read; only numbers are read");
    }
    PickleValue.Storage whole = storages.get(key);
    if (whole == null) {
      whole = new PickleValue.Storage(key, type, elements, 0);
      storages.put(key, whole);
    } else if (whole.type() != type) {
      throw file.broken("the storage " + Lines.of(key) + " has two types");
    }
    if (t.get(5) instanceof PickleValue.Tuple view) {
      if (!(view.get(1) instanceof Long offset) || !(view.get(2) instanceof Long count)) {
        throw file.broken("its pickle refers to a part of a storage without saying which");
      }
      return new PickleValue.Storage(key, type, count, offset);
    }
    return whole;
  }

  /** What a value is as a tensor; NumPy arrays lie in the pickle itself. */
  private StoredTensor tensor(String name, Object value) {
    if (!(value instanceof PickleValue.TorchTensor t)) {
      return NumpyPickle.tensor(file, name, value);
    }
    String where = Lines.tensor(name);
    long[] strides = t.strides;
    long viewOffset = t.storage.offset();
    if (viewOffset < 0 || t.offset < 0 || viewOffset > Long.MAX_VALUE - t.offset) {
      throw file.broken(where + " begins before its storage");
    }
    return StoredTensor.view(
        file,
        where,
        places.get(t.storage.key()),
        t.type,
        false,
        StoredTensor.shape(file, where, t.size),
        viewOffset + t.offset,
        strides);
  }
}
