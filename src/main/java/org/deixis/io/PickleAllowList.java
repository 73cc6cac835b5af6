package org.deixis.io;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.LongConsumer;
import org.deixis.core.InputException;
import org.deixis.core.Shape;

/**
 * All that a pickle may name, and what that means here. A name is looked up here and nowhere else:
 * no class is loaded by it and no method called, each one is a case of a switch below.
 */
final class PickleAllowList {
  private static final String ONLY = "; only tensors and plain containers are read";

  private static final Set<String> CONTAINERS =
      Set.of(
          "collections.OrderedDict",
          "collections.defaultdict",
          "collections.Counter",
          "builtins.dict",
          "builtins.list",
          "builtins.set",
          "builtins.frozenset",
          "builtins.tuple",
          "builtins.bytes",
          "builtins.int",
          "builtins.long",
          "builtins.float",
          "builtins.bool",
          "builtins.str",
          "builtins.bytearray",
          "builtins.complex",
          "torch.Size");

  private static final Set<String> TORCH =
      Set.of(
          "torch._utils._rebuild_tensor",
          "torch._utils._rebuild_tensor_v2",
          "torch._utils._rebuild_tensor_v3",
          "torch._utils._rebuild_parameter",
          "torch._utils._rebuild_parameter_with_state",
          "torch._tensor._rebuild_from_type_v2",
          "torch.Tensor",
          "torch.nn.parameter.Parameter",
          "torch.device",
          "torch.storage.UntypedStorage");

  private static final Set<String> NUMPY =
      Set.of(
          "numpy.ndarray",
          "numpy.dtype",
          "numpy.core.multiarray._reconstruct",
          "numpy.core.multiarray.scalar",
          "numpy.core.numeric._frombuffer",
          "_codecs.encode");

  private final MappedFile file;
  private final LongConsumer charge;
  private final Map<String, PickleValue.Global> found = new HashMap<>();

  /**
   * @param charge is told of work that one instruction makes beyond its own, in items; it throws
   *     when the file asks for too much
   */
  PickleAllowList(MappedFile file, LongConsumer charge) {
    this.file = file;
    this.charge = charge;
  }

  /**
   * What a name stands for.
   *
   * @throws InputException that names it, when it is not allowed
   */
  PickleValue.Global find(String module, String name) {
    String asked = module + "." + name;
    PickleValue.Global known = found.get(asked);
    if (known != null) {
      return known;
    }
    String full =
        module
                .replaceFirst("^numpy\\._core\\.", "numpy.core.")
                .replaceFirst("^__builtin__$", "builtins")
            + "."
            + name;
    boolean torchType =
        (module.equals("torch") || module.equals("torch.storage"))
            && StoredType.ofTorch(name) != null;
    if (torchType || CONTAINERS.contains(full) || TORCH.contains(full) || NUMPY.contains(full)) {
      PickleValue.Global global = new PickleValue.Global(full);
      found.put(asked, global); // no more of them than names are allowed
      return global;
    }
    throw file.refused("the pickle asks for " + Lines.of(asked) + ONLY);
  }

  /** The element type of a storage class or dtype of PyTorch, or null for what is neither. */
  static StoredType torchType(Object global) {
    return global instanceof PickleValue.Global g && g.name().startsWith("torch.")
        ? StoredType.ofTorch(g.name().substring(g.name().lastIndexOf('.') + 1))
        : null;
  }

  static boolean isUntyped(Object global) {
    return global instanceof PickleValue.Global g
        && g.name().equals("torch.storage.UntypedStorage");
  }

  /** REDUCE and NEWOBJ: what calling {@code function} with {@code arguments} makes. */
  Object call(Object function, Object arguments) {
    if (!(function instanceof PickleValue.Global global)) {
      throw file.refused("the pickle calls what is not a name" + ONLY);
    }
    if (!(arguments instanceof PickleValue.Tuple args)) {
      throw file.broken("its pickle calls " + global.name() + " with what is no tuple");
    }
    return switch (global.name()) {
      case "collections.OrderedDict", "builtins.dict", "collections.Counter" ->
          dictionary(args.get(0));
      case "collections.defaultdict" -> dictionary(args.get(1));
      case "builtins.list", "builtins.set", "builtins.frozenset", "torch.Size", "builtins.tuple" ->
          sequence(args.get(0));
      case "builtins.bytes" -> {
        if (args.size() != 0) {
          throw file.refused("the pickle asks for builtins.bytes of something" + ONLY);
        }
        yield PickleValue.HeapBytes.of(""); // how protocol 2 writes b""
      }
      case "builtins.int",
          "builtins.long",
          "builtins.float",
          "builtins.bool",
          "builtins.str",
          "builtins.bytearray",
          "builtins.complex",
          "torch.device",
          "numpy.core.multiarray.scalar" ->
          PickleValue.Opaque.OPAQUE;
      case "torch._utils._rebuild_tensor" -> torch(args, null);
      case "torch._utils._rebuild_tensor_v2" -> torch(args, null);
      case "torch._utils._rebuild_tensor_v3" -> {
        StoredType type = torchType(args.get(6));
        if (type == null) {
          throw file.broken("its pickle makes a tensor of no known type");
        }
        yield torch(args, type);
      }
      case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state" ->
          args.get(0);
      case "torch._tensor._rebuild_from_type_v2" -> ofType(args);
      case "numpy.dtype" -> numpyType(args.get(0));
      case "numpy.core.multiarray._reconstruct" -> new PickleValue.NumpyArray();
      case "numpy.core.numeric._frombuffer" -> fromBuffer(args);
      case "_codecs.encode" -> encode(args);
      default -> throw file.refused("the pickle calls " + global.name() + ONLY);
    };
  }

  /** BUILD: the state a value is given. */
  void build(Object target, Object state) {
    if (target instanceof PickleValue.NumpyArray array) {
      arrayState(array, state);
    } else if (target instanceof PickleValue.NumpyType type) {
      if (state instanceof PickleValue.Tuple t && t.get(1) instanceof String order) {
        type.bigEndian = order.equals(">");
      } else {
        throw file.broken("its pickle gives a numpy.dtype a state that is none");
      }
    } else if (target instanceof PickleValue.Dictionary
        && (state instanceof PickleValue.Dictionary || state == PickleValue.None.NONE)) {
      // Attributes of an OrderedDict: a state dictionary's _metadata, versions of its modules.
      return;
    } else {
      throw file.refused(
          "the pickle sets the state of "
              + (target instanceof PickleValue.Global g ? g.name() : "a plain value")
              + ONLY);
    }
  }

  // A container made of another is that other: a copy each time would let a small file fill the
  // heap, and nothing we read changes one of them afterwards.

  private Object dictionary(Object from) {
    if (from instanceof PickleValue.Dictionary) {
      return from;
    }
    PickleValue.Dictionary map = new PickleValue.Dictionary();
    // Python 2 made an OrderedDict of a list of pairs.
    List<Object> pairs = Unpickler.items(from);
    charge.accept(2L * pairs.size());
    for (Object pair : pairs) {
      List<Object> item = Unpickler.items(pair);
      if (item.size() != 2) {
        throw file.broken("its pickle makes a dictionary of what are no pairs");
      }
      map.put(item.get(0), item.get(1));
    }
    return map;
  }

  private static Object sequence(Object from) {
    return from instanceof PickleValue.Tuple || from instanceof PickleValue.Sequence
        ? from
        : new PickleValue.Sequence();
  }

  private PickleValue.TorchTensor torch(PickleValue.Tuple args, StoredType type) {
    if (!(args.get(0) instanceof PickleValue.Storage storage)
        || !(args.get(1) instanceof Long offset)) {
      throw file.broken("its pickle makes a tensor of what is no storage");
    }
    long[] size = numbers(args.get(2));
    long[] strides = numbers(args.get(3));
    StoredType is = type != null ? type : storage.type();
    if (is == null || size.length != strides.length) {
      throw file.broken("its pickle makes a tensor of no known type or without its strides");
    }
    return new PickleValue.TorchTensor(storage, is, offset, size, strides);
  }

  /** {@code (function, type, arguments, state)}: a tensor that carries attributes. */
  private Object ofType(PickleValue.Tuple args) {
    if (args.get(0) instanceof PickleValue.Global function
        && function.name().startsWith("torch._utils._rebuild_")) {
      return call(function, args.get(2));
    }
    throw file.broken("its pickle makes a tensor by what makes none");
  }

  private long[] numbers(Object value) {
    if (!(value instanceof PickleValue.Tuple) && !(value instanceof PickleValue.Sequence)) {
      throw file.broken("its pickle gives a shape that is no tuple");
    }
    List<Object> items = Unpickler.items(value);
    if (items.size() > StoredTensor.MAX_RANK) {
      throw file.broken("its pickle gives a shape of " + items.size() + " axes");
    }
    charge.accept(items.size());
    long[] numbers = new long[items.size()];
    for (int i = 0; i < numbers.length; i++) {
      if (!(items.get(i) instanceof Long n)) {
        throw file.broken("its pickle gives a shape that is not of whole numbers");
      }
      numbers[i] = n;
    }
    return numbers;
  }

  private PickleValue.NumpyType numpyType(Object name) {
    if (name instanceof String text) {
      boolean order = !text.isEmpty() && "<>|=".indexOf(text.charAt(0)) >= 0;
      StoredType type = StoredType.ofNumpy(order ? text.substring(1) : text);
      return new PickleValue.NumpyType(text, type, text.startsWith(">"));
    }
    throw file.broken("its pickle makes a numpy.dtype of what is no text");
  }

  /** {@code (version, shape, dtype, column-major, bytes)}. */
  private void arrayState(PickleValue.NumpyArray array, Object state) {
    if (!(state instanceof PickleValue.Tuple t)
        || t.size() != 5
        || !(t.get(2) instanceof PickleValue.NumpyType type)
        || !(t.get(3) instanceof Boolean columnMajor)) {
      throw file.broken("its pickle gives a numpy.ndarray a state that is none");
    }
    fill(array, type, t.get(1), columnMajor, t.get(4));
  }

  /** {@code (bytes, dtype, shape, order)}: protocol 5. */
  private Object fromBuffer(PickleValue.Tuple args) {
    if (!(args.get(1) instanceof PickleValue.NumpyType type)) {
      throw file.broken("its pickle makes a numpy.ndarray of no known type");
    }
    PickleValue.NumpyArray array = new PickleValue.NumpyArray();
    fill(array, type, args.get(2), "F".equals(args.get(3)), args.get(0));
    return array;
  }

  private void fill(
      PickleValue.NumpyArray array,
      PickleValue.NumpyType type,
      Object extents,
      boolean columnMajor,
      Object bytes) {
    if (type.type == null) {
      throw file.refused(
          "a numpy.ndarray of type '%s'; only numbers are read".formatted(Lines.of(type.name)));
    }
    Shape shape = StoredTensor.shape(file, "an array", numbers(extents));
    StoredTensor.Bytes data;
    if (bytes instanceof StoredTensor.Bytes b) {
      data = b;
    } else if (bytes instanceof String latin) {
      charge.accept(latin.length() / 32);
      data = PickleValue.HeapBytes.of(latin);
    } else {
      throw file.broken("its pickle gives a numpy.ndarray no bytes");
    }
    array.type = type;
    array.shape = shape;
    array.columnMajor = columnMajor;
    array.bytes = data;
  }

  /** Bytes in protocol 2: a text, and "latin1". */
  private Object encode(PickleValue.Tuple args) {
    if (args.get(1) instanceof String code
        && (code.equals("latin1") || code.equals("latin-1") || code.equals("iso-8859-1"))) {
      if (args.get(0) instanceof PickleValue.LongText text) {
        return text.latin();
      }
      if (args.get(0) instanceof String text) {
        if (text.chars().anyMatch(c -> c > 0xff)) {
          throw file.broken("its pickle holds bytes beyond 255");
        }
        charge.accept(text.length() / 32);
        return PickleValue.HeapBytes.of(text);
      }
    }
    throw file.refused("the pickle asks for _codecs.encode of another code than latin1" + ONLY);
  }
}
