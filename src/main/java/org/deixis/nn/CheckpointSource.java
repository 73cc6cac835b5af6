package org.deixis.nn;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import org.deixis.backend.Backend;
import org.deixis.core.InputException;
import org.deixis.core.Shape;

/** Parameters from a checkpoint: a missing name or another shape is an error that names it. */
public final class CheckpointSource implements ParameterSource {
  /** What a checkpoint file is asked. */
  public interface Tensors {
    /** Shape of the tensor of that name, or null where there is none. */
    Shape shape(String name);

    /** Its values, row-major, as fp32. */
    float[] values(String name);
  }

  private final Backend backend;
  private final String where;
  private final Tensors tensors;
  private final String prefix;
  private final Map<String, Parameter> made;

  /**
   * @param where the file's name, for messages
   */
  public CheckpointSource(Backend backend, String where, Tensors tensors) {
    this(backend, where, tensors, "", new LinkedHashMap<>());
  }

  private CheckpointSource(
      Backend backend, String where, Tensors tensors, String prefix, Map<String, Parameter> made) {
    this.backend = backend;
    this.where = where;
    this.tensors = tensors;
    this.prefix = prefix;
    this.made = made;
  }

  @Override
  public Backend backend() {
    return backend;
  }

  @Override
  public Parameter parameter(String name, Shape shape, Init init) {
    String full = prefix + name;
    Shape found = tensors.shape(full);
    if (found == null) {
      throw new InputException(
          where + ": has no parameter " + full + " " + shape + "; does the config belong to it?");
    }
    if (!found.equals(shape)) {
      throw new InputException(
          "%s: parameter %s has the shape %s, but the config asks for %s"
              .formatted(where, full, found, shape));
    }
    float[] values = tensors.values(full);
    for (float v : values) {
      if (!Float.isFinite(v)) {
        throw new InputException(
            where + ": parameter " + full + " holds " + v + "; the checkpoint is damaged");
      }
    }
    Parameter parameter = Parameter.of(backend, values, shape);
    made.put(full, parameter);
    return parameter;
  }

  @Override
  public CheckpointSource part(String name) {
    return new CheckpointSource(backend, where, tensors, prefix + name + ".", made);
  }

  /** Full names that were taken so far, from here and all parts. */
  public Set<String> used() {
    return Set.copyOf(made.keySet());
  }

  /** Frees all parameters made so far: for a model whose construction failed half way. */
  public void abandon() {
    made.values().forEach(Parameter::close);
    made.clear();
  }
}
