package org.deixis.io;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.function.BiFunction;

/**
 * The tensors of a pickled object under dotted names: dictionaries give their keys, lists and
 * tuples their positions; everything else that is no tensor is passed over. A loop instead of a
 * recursion, and bounded: what a file nests can be deep, circular, or double at every level.
 */
final class StateNames {
  /** Checkpoints nest some five deep. */
  private static final int MAX_DEPTH = 32;

  private static final int MAX_NAME = 1024;

  /** Values looked at; more than the pickle has instructions come only of sharing. */
  private static final int MAX_VALUES = 2 * Unpickler.MAX_OPCODES;

  /** Characters of all names that any file justifies; above that they are as many as its bytes. */
  private static final long FREE_CHARACTERS = 1 << 22;

  private record Level(String prefix, boolean dictionary, Iterator<?> items, int[] position) {}

  private final MappedFile file;
  private final BiFunction<String, Object, StoredTensor> make;
  private final Map<String, StoredTensor> tensors = new LinkedHashMap<>();
  private final Set<String> dictionaries = new HashSet<>();
  private final Deque<Level> open = new ArrayDeque<>();
  private long characters;

  private StateNames(MappedFile file, BiFunction<String, Object, StoredTensor> make) {
    this.file = file;
    this.make = make;
  }

  /**
   * @param make what a value is as a tensor, under its name; null for what is no tensor
   * @throws org.deixis.core.InputException when the values are nested too deeply or too many
   */
  static TensorFile read(
      MappedFile file, Object root, BiFunction<String, Object, StoredTensor> make) {
    StateNames names = new StateNames(file, make);
    names.walk(root);
    if (names.tensors.isEmpty()) {
      throw file.refused("it holds no tensors; give a checkpoint's file");
    }
    return new TensorFile(file, names.tensors, names.dictionaries);
  }

  private void walk(Object root) {
    if (!enter("", root)) {
      take("tensor", root);
    }
    long values = 0;
    while (!open.isEmpty()) {
      Level level = open.peek();
      if (!level.items.hasNext()) {
        open.pop();
        continue;
      }
      if (++values > MAX_VALUES) {
        throw file.broken("its values hold each other so often that there is no end to them");
      }
      Object item = level.items.next();
      Object value = item;
      Object key = level.position[0]++;
      if (level.dictionary) {
        Map.Entry<?, ?> entry = (Map.Entry<?, ?>) item;
        key = entry.getKey();
        value = entry.getValue();
      }
      if (!worth(value)) {
        continue;
      }
      if (!(key instanceof String) && !(key instanceof Number)) {
        continue; // under a key that is neither lies no parameter
      }
      String name = level.prefix + key;
      if (name.length() > MAX_NAME) {
        throw file.broken("it gives a value a name of " + name.length() + " characters");
      }
      values += name.length() / 32; // making a long name is work too
      if (!enter(name + ".", value)) {
        take(name, value);
      }
    }
  }

  /** Whether it may be or hold a tensor; spares names for millions of numbers. */
  private static boolean worth(Object value) {
    return value instanceof PickleValue.Dictionary
        || value instanceof PickleValue.Sequence
        || value instanceof PickleValue.Tuple
        || value instanceof PickleValue.TorchTensor
        || value instanceof PickleValue.NumpyArray;
  }

  private boolean enter(String prefix, Object value) {
    boolean dictionary = value instanceof PickleValue.Dictionary;
    Iterator<?> items;
    if (value instanceof PickleValue.Dictionary map) {
      items = map.items().entrySet().iterator();
    } else if (value instanceof PickleValue.Sequence || value instanceof PickleValue.Tuple) {
      items = Unpickler.items(value).iterator();
    } else {
      return false;
    }
    if (open.size() == MAX_DEPTH) {
      throw file.broken("its values are nested more than " + MAX_DEPTH + " deep");
    }
    open.push(new Level(prefix, dictionary, items, new int[1]));
    return true;
  }

  private void take(String name, Object value) {
    StoredTensor tensor = make.apply(name, value);
    if (tensor == null) {
      return;
    }
    characters += name.length();
    if (characters > FREE_CHARACTERS + file.size()) {
      throw file.broken("the names of its tensors are longer than the file");
    }
    if (tensors.put(name, tensor) != null) {
      throw file.broken("it holds " + Lines.tensor(name) + " twice");
    }
    if (tensors.size() > TensorFile.MAX_TENSORS) {
      throw file.broken("it holds more than " + TensorFile.MAX_TENSORS + " tensors");
    }
    for (Level level : open) {
      if (level.dictionary && !level.prefix.isEmpty()) {
        dictionaries.add(level.prefix.substring(0, level.prefix.length() - 1));
      }
    }
  }
}
