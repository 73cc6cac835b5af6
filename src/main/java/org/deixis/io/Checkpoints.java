package org.deixis.io;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.deixis.core.InputException;

/** Opens checkpoints of any format that is read. */
public final class Checkpoints {
  /** What a folder is looked through for, the first one found counts. */
  private static final List<String> IN_FOLDER =
      List.of(
          "model.safetensors.index.json",
          "model.safetensors",
          "pytorch_model.bin.index.json",
          "pytorch_model.bin");

  private static final int LOOKED_AT = 64;
  private static final List<String> WRAPPERS = List.of("model", "state_dict", "module");

  private Checkpoints() {}

  /**
   * Opens a checkpoint, whose format is told by its content; the file's name does not count. A
   * folder stands for what Hugging Face puts into it: {@code model.safetensors.index.json}, {@code
   * model.safetensors}, {@code pytorch_model.bin.index.json} or {@code pytorch_model.bin}, the
   * first of these that is there.
   *
   * @throws InputException one line that says what is wrong where: no such file, an unknown format,
   *     a damaged file, or one that holds what is not read
   */
  public static Checkpoint open(Path path) {
    if (Files.isDirectory(path)) {
      for (String name : IN_FOLDER) {
        // A link that leads nowhere is there too, and its own line says so.
        if (Files.exists(path.resolve(name), LinkOption.NOFOLLOW_LINKS)) {
          return openFileOrIndex(path.resolve(name));
        }
      }
      throw new InputException(
          path + ": the folder has neither of " + IN_FOLDER + "; give the checkpoint's file");
    }
    return openFileOrIndex(path);
  }

  private static Checkpoint openFileOrIndex(Path path) {
    boolean index;
    try (MappedFile file = MappedFile.open(path, "checkpoint")) {
      index = isJson(start(file));
    }
    return index ? ShardedCheckpoint.open(path) : openFile(path);
  }

  /**
   * A checkpoint without what its parameters are wrapped in. Wrappers are {@code model}, {@code
   * state_dict} and {@code module}. As long as it changes anything:
   *
   * <ul>
   *   <li>where exactly one wrapper W is a dictionary of the file at this level, what lies in it is
   *       kept under its name without {@code W.}, and everything beside it (optimizer, averages,
   *       counters) is left out;
   *   <li>else, where all names begin with {@code W.}, as DataParallel writes {@code module.}, that
   *       is taken off. Where only some names begin so, they belong to the model: nothing is
   *       changed.
   * </ul>
   *
   * <p>The result reads from {@code checkpoint}; closing it closes that.
   */
  public static Checkpoint unwrapped(Checkpoint checkpoint) {
    Set<String> dictionaries =
        checkpoint instanceof TensorFile file ? file.dictionaries() : Set.of();
    String prefix = "";
    while (!checkpoint.entries().isEmpty()) {
      String next = wrapper(checkpoint, dictionaries, prefix);
      if (next == null) {
        return prefix.isEmpty() ? checkpoint : new Unwrapped(checkpoint, prefix);
      }
      prefix = next;
    }
    return checkpoint;
  }

  private static String wrapper(Checkpoint checkpoint, Set<String> dictionaries, String prefix) {
    List<String> nested = WRAPPERS.stream().filter(w -> dictionaries.contains(prefix + w)).toList();
    if (nested.size() == 1) {
      return prefix + nested.get(0) + ".";
    }
    for (String wrapper : WRAPPERS) {
      String longer = prefix + wrapper + ".";
      if (checkpoint.entries().keySet().stream()
          .filter(name -> name.startsWith(prefix))
          .allMatch(name -> name.startsWith(longer) && name.length() > longer.length())) {
        return longer;
      }
    }
    return null;
  }

  /** The entries of a checkpoint that lie under a prefix, without it. */
  private static final class Unwrapped implements Checkpoint {
    private final Checkpoint all;
    private final String prefix;
    private final Map<String, Entry> entries = new LinkedHashMap<>();

    Unwrapped(Checkpoint all, String prefix) {
      this.all = all;
      this.prefix = prefix;
      all.entries()
          .forEach(
              (name, entry) -> {
                if (name.startsWith(prefix)) {
                  entries.put(name.substring(prefix.length()), entry);
                }
              });
    }

    @Override
    public String format() {
      return all.format();
    }

    @Override
    public Map<String, Entry> entries() {
      return Collections.unmodifiableMap(entries);
    }

    @Override
    public HostTensor read(String name) {
      if (!entries.containsKey(name)) {
        throw new IllegalArgumentException("the checkpoint has no " + prefix + name);
      }
      HostTensor tensor = all.read(prefix + name);
      return new HostTensor(name, tensor.dtype(), tensor.shape(), tensor.data());
    }

    @Override
    public void close() {
      all.close();
    }
  }

  /** Opens a checkpoint that is a single file. */
  static Checkpoint openFile(Path path) {
    MappedFile file = MappedFile.open(path, "checkpoint");
    boolean open = false;
    try {
      Checkpoint checkpoint = recognise(file);
      open = true;
      return checkpoint;
    } finally {
      if (!open) {
        file.close();
      }
    }
  }

  private static byte[] start(MappedFile file) {
    ByteBuffer bytes = file.slice(0, Math.min(LOOKED_AT, file.size()));
    byte[] start = new byte[bytes.remaining()];
    bytes.get(start);
    return start;
  }

  private static Checkpoint recognise(MappedFile file) {
    byte[] start = start(file);
    if (start.length == 0) {
      throw file.refused("the file is empty; fetch or write it again");
    }
    String text = new String(start, StandardCharsets.ISO_8859_1);
    if (text.startsWith("version https://git-lfs")) {
      throw file.refused("this is Git LFS's note about the file; fetch it with 'git lfs pull'");
    }
    if (text.startsWith("<") && text.strip().matches("(?is)<(!doctype|html|\\?xml).*")) {
      throw file.refused("this is a web page; fetch the file itself");
    }
    if (isJson(start)) {
      throw file.refused("this is JSON, where a file of tensors is needed");
    }
    if (start.length > 8 && start[8] == '{') {
      MappedFile safetensors = file.as(SafetensorsHeader.FORMAT);
      return new TensorFile(safetensors, SafetensorsHeader.read(safetensors).tensors(), Set.of());
    }
    if (text.startsWith("PK\3\4") || text.startsWith("PK\5\6")) {
      ZipIndex zip = ZipIndex.read(file.as("zip"));
      if (TorchReader.isTorch(zip)) {
        return TorchReader.zip(file.as(TorchReader.ZIP), zip);
      }
      if (NpyReader.isNpz(zip)) {
        return NpyReader.npz(file.as(NpyReader.NPZ), zip);
      }
      throw file.refused("a zip archive without a data.pkl or arrays; give the checkpoint itself");
    }
    if (NpyReader.isNpy(start)) {
      return NpyReader.npy(file.as(NpyReader.NPY));
    }
    if (start[0] == (byte) 0x80) {
      return NumpyPickle.open(file);
    }
    throw file.refused(
        "none of safetensors, PyTorch, NumPy or a pickle begins like this; fetch or write it again");
  }

  /** Text that opens a brace; a safetensors file does not, its eight bytes of length hold zeros. */
  private static boolean isJson(byte[] start) {
    int i = 0;
    while (i < start.length && (start[i] == ' ' || start[i] >= 9 && start[i] <= 13)) {
      i++;
    }
    if (i == start.length || start[i] != '{') {
      return false;
    }
    for (int j = i; j < Math.min(start.length, 8); j++) {
      if (start[j] >= 0 && start[j] < 9) {
        return false;
      }
    }
    return true;
  }
}
