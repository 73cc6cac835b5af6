package org.deixis.weights;

import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;
import org.deixis.io.Checkpoint;
import org.deixis.io.HostTensor;

/**
 * One checkpoint brought to our names and shapes: what goes where is decided from names and shapes
 * alone; values are read when they are asked for, one parameter at a time.
 */
public final class WeightImport {
  private static final String TABLE = "relative_position_bias_table";
  private static final String POSITIONS = "embeddings.position_embeddings.weight";

  /** A tensor of the checkpoint that is a parameter, or a part of one. */
  private record Piece(String name, NameMap.Target target) {}

  private final String where;
  private final Checkpoint checkpoint;
  private final NameMap map;
  private final Map<String, Shape> wanted;
  private final Map<String, List<Piece>> found = new LinkedHashMap<>();
  private final List<String> missing = new ArrayList<>();
  private final List<String> unexpected = new ArrayList<>();
  private final List<String> ignored = new ArrayList<>();
  private final List<String> reshaped = new ArrayList<>();
  private int resizedWindow;

  /**
   * @param where the file's name, for messages
   * @param checkpoint stays the caller's to close
   * @param wanted our parameters of the encoder with their shapes, by their names within it
   * @param mayMiss names of which a missing one is no fault
   * @throws InputException when parameters are missing, or have shapes that cannot be brought to
   *     ours
   */
  public WeightImport(
      String where,
      Checkpoint checkpoint,
      NameMap map,
      Map<String, Shape> wanted,
      Predicate<String> mayMiss) {
    this.where = where;
    this.checkpoint = checkpoint;
    this.map = map;
    this.wanted = wanted;
    checkpoint.entries().forEach((name, entry) -> place(name));
    List<String> wrong = new ArrayList<>();
    wanted.forEach((name, shape) -> check(name, shape, wrong));
    if (!wrong.isEmpty()) {
      throw new InputException(
          "%s: %s%s; does the configuration belong to it?"
              .formatted(where, wrong.get(0), others(wrong)));
    }
    List<String> faults = missing.stream().filter(mayMiss.negate()).toList();
    if (!faults.isEmpty()) {
      throw new InputException(
          "%s (%s): has no %s%s; give --allow-missing NAME to draw it anew"
              .formatted(where, map.source(), faults.get(0), others(faults)));
    }
  }

  private static String others(List<String> all) {
    return all.size() == 1 ? "" : " and " + (all.size() - 1) + " more of the kind";
  }

  private void place(String name) {
    if (map.ignores(name)) {
      ignored.add(name);
      return;
    }
    NameMap.Target target = map.target(name);
    if (target == null || !wanted.containsKey(target.name())) {
      unexpected.add(name);
      return;
    }
    List<Piece> pieces = found.computeIfAbsent(target.name(), n -> new ArrayList<>());
    for (Piece p : pieces) {
      if (p.target.part() == target.part()) {
        throw new InputException(
            "%s: %s and %s are both our %s".formatted(where, p.name, name, target.name()));
      }
    }
    pieces.add(new Piece(name, target));
  }

  private void check(String name, Shape shape, List<String> wrong) {
    List<Piece> pieces = found.get(name);
    if (pieces == null || pieces.size() < pieces.get(0).target.parts()) {
      missing.add(name);
      found.remove(name);
      return;
    }
    pieces.sort((a, b) -> Integer.compare(a.target.part(), b.target.part()));
    Shape source = shape(pieces);
    if (source.equals(shape)) {
      return;
    }
    boolean table = source.rank() == 2 && shape.rank() == 2 && source.dim(1) == shape.dim(1);
    boolean resizable = table && name.endsWith(TABLE) && side(source) > 0 && side(shape) > 0;
    boolean cut = table && name.equals(POSITIONS) && source.dim(0) > shape.dim(0);
    if (resizable) {
      resizedWindow = (side(source) + 1) / 2;
    }
    if (resizable || cut) {
      reshaped.add("%s %s to %s".formatted(name, source, shape));
    } else {
      wrong.add("%s is %s there and %s in the configuration".formatted(name, source, shape));
    }
  }

  /** Of the parts stacked along the first axis. */
  private Shape shape(List<Piece> pieces) {
    Shape first = checkpoint.entries().get(pieces.get(0).name).shape();
    int rows = 0;
    for (Piece p : pieces) {
      Shape s = checkpoint.entries().get(p.name).shape();
      if (s.rank() == 0 || !s.with(0, 1).equals(first.with(0, 1))) {
        return s; // compared with ours by the caller, and refused
      }
      rows += s.dim(0);
    }
    return pieces.size() == 1 ? first : first.with(0, rows);
  }

  /** Rows of a square table's grid, 2·window − 1, or 0 where it is none of a square window. */
  private static int side(Shape table) {
    int side = (int) Math.round(Math.sqrt(table.dim(0)));
    return side * side == table.dim(0) && side % 2 == 1 ? side : 0;
  }

  /** Whether the checkpoint has the parameter. */
  public boolean has(String name) {
    return found.containsKey(name);
  }

  /** A parameter's values in our shape, row-major. */
  float[] values(String name) {
    List<Piece> pieces = found.get(name);
    Shape shape = wanted.get(name);
    Shape source = shape(pieces);
    float[] values;
    if (pieces.size() == 1) {
      values = read(pieces.get(0).name);
    } else {
      values = new float[Math.toIntExact(source.size())];
      int at = 0;
      for (Piece p : pieces) {
        float[] part = read(p.name);
        System.arraycopy(part, 0, values, at, part.length);
        at += part.length;
      }
    }
    if (source.equals(shape)) {
      return values;
    }
    if (name.equals(POSITIONS)) {
      return Arrays.copyOf(values, Math.toIntExact(shape.size()));
    }
    int from = side(source);
    int to = side(shape);
    return PositionTable.resize(values, from, from, to, to, shape.dim(1));
  }

  /**
   * A parameter in our shape under another name. What is fp32 and of our shape already is the
   * file's own bytes, uncopied.
   */
  HostTensor tensor(String name, String as) {
    List<Piece> pieces = found.get(name);
    Shape shape = wanted.get(name);
    String theirs = pieces.get(0).name;
    Checkpoint.Entry entry = checkpoint.entries().get(theirs);
    if (pieces.size() == 1 && entry.dtype() == DType.F32 && entry.shape().equals(shape)) {
      HostTensor tensor = checkpoint.read(theirs);
      FloatBuffer values = tensor.bytes().asFloatBuffer();
      while (values.hasRemaining()) {
        requireFinite(theirs, values.get());
      }
      return new HostTensor(as, DType.F32, shape, tensor.bytes());
    }
    return HostTensor.ofFloats(as, shape, values(name));
  }

  private void requireFinite(String name, float v) {
    if (!Float.isFinite(v)) {
      throw new InputException(where + ": " + name + " holds " + v + "; the checkpoint is damaged");
    }
  }

  private float[] read(String name) {
    HostTensor tensor = checkpoint.read(name);
    if (!tensor.dtype().isFloating()) {
      throw new InputException(
          "%s: %s is %s; a parameter must be floating".formatted(where, name, tensor.dtype()));
    }
    float[] values = tensor.toFloats();
    for (float v : values) {
      requireFinite(name, v);
    }
    return values;
  }

  public String source() {
    return map.source();
  }

  public int matched() {
    return found.size();
  }

  /** Ours that the checkpoint does not have. */
  public List<String> missing() {
    return List.copyOf(missing);
  }

  /** The checkpoint's that we have no place for. */
  public List<String> unexpected() {
    return List.copyOf(unexpected);
  }

  /** The checkpoint's that are known to be of no use: buffers, heads. */
  public List<String> ignored() {
    return List.copyOf(ignored);
  }

  /** Ours whose values were brought to another shape: "name [a] to [b]". */
  public List<String> reshaped() {
    return List.copyOf(reshaped);
  }

  /** The checkpoint's window size where its tables were resized to another, else 0. */
  public int resizedWindow() {
    return resizedWindow;
  }
}
