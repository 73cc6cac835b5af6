package org.deixis.io;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Set;
import org.deixis.core.InputException;

/** Opens checkpoints of any format that is read. */
public final class Checkpoints {
  private static final String INDEX = "model.safetensors.index.json";
  private static final String SINGLE = "model.safetensors";
  private static final int LOOKED_AT = 64;

  private Checkpoints() {}

  /**
   * Opens a checkpoint, whose format is told by its content; the file's name does not count. A
   * folder stands for the {@code model.safetensors.index.json} in it, or where there is none for
   * its {@code model.safetensors}.
   *
   * @throws InputException one line that says what is wrong where: no such file, an unknown format,
   *     a damaged file, or one that holds what is not read
   */
  public static Checkpoint open(Path path) {
    if (Files.isDirectory(path)) {
      if (Files.exists(path.resolve(INDEX))) {
        return ShardedCheckpoint.open(path.resolve(INDEX));
      }
      if (Files.exists(path.resolve(SINGLE))) {
        return openFile(path.resolve(SINGLE));
      }
      throw new InputException(
          "%s: the folder has neither %s nor %s; give the checkpoint's file"
              .formatted(path, INDEX, SINGLE));
    }
    boolean index;
    try (MappedFile file = MappedFile.open(path, "checkpoint")) {
      index = isJson(start(file));
    }
    return index ? ShardedCheckpoint.open(path) : openFile(path);
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
      throw file.refused("a zip archive without a data.pkl or arrays; give the checkpoint itself");
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
