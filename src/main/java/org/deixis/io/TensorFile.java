package org.deixis.io;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import org.deixis.core.InputException;

/** A checkpoint in one file: names, and where each tensor lies. */
final class TensorFile implements Checkpoint {
  /** More tensors than this has no model; it bounds what a false file makes us hold. */
  static final int MAX_TENSORS = 100_000;

  /**
   * All tensors together may be so many times the file. Tied tensors lie in the file once; a file
   * that lets everything point to the same bytes would keep a reader busy without end.
   */
  private static final long MAX_SHARING = 8;

  private final MappedFile file;
  private final Map<String, StoredTensor> tensors;
  private final Map<String, Entry> entries;
  private final Set<String> dictionaries;

  /**
   * @param dictionaries dotted paths of the file's dictionaries that hold tensors, "model"
   * @throws InputException when the tensors are more than the file justifies
   */
  TensorFile(MappedFile file, Map<String, StoredTensor> tensors, Set<String> dictionaries) {
    if (tensors.size() > MAX_TENSORS) {
      throw file.broken(
          "it names " + tensors.size() + " tensors, and at most " + MAX_TENSORS + " are read");
    }
    this.file = file;
    this.tensors = tensors;
    this.dictionaries = dictionaries;
    Map<String, Entry> all = new LinkedHashMap<>();
    long budget = Math.max(StoredTensor.FREE, file.size() * MAX_SHARING);
    for (Map.Entry<String, StoredTensor> e : tensors.entrySet()) {
      Entry entry = e.getValue().entry();
      all.put(e.getKey(), entry);
      budget -= e.getValue().storedBytes();
      if (budget < 0) {
        throw file.broken("its tensors share so many bytes that they are far larger than the file");
      }
    }
    this.entries = Collections.unmodifiableMap(all);
  }

  @Override
  public String format() {
    return file.format();
  }

  @Override
  public Map<String, Entry> entries() {
    return entries;
  }

  /** Dotted paths of dictionaries, as given. */
  Set<String> dictionaries() {
    return dictionaries;
  }

  @Override
  public HostTensor read(String name) {
    StoredTensor tensor = tensors.get(name);
    if (tensor == null) {
      throw new IllegalArgumentException(file.path() + " has no " + name);
    }
    return tensor.read(name);
  }

  @Override
  public void close() {
    file.close();
  }
}
