package org.deixis.nn;

import org.deixis.backend.Backend;
import org.deixis.core.Rng;
import org.deixis.core.Shape;

/**
 * Where a module's parameters come from: fresh initial values, or a checkpoint. A module asks for
 * each parameter by the name it has within the module, says its shape, and how a fresh one is
 * drawn.
 */
public interface ParameterSource {
  /** How fresh values are drawn. */
  @FunctionalInterface
  interface Init {
    void fill(Rng rng, float[] values);
  }

  Backend backend();

  Parameter parameter(String name, Shape shape, Init init);

  /** The same source, seen from the part of that name: its names get the prefix {@code name.}. */
  ParameterSource part(String name);

  /**
   * Fresh values. A parameter's draws depend on the seed and its full name only, so that adding one
   * part does not change the others.
   */
  static ParameterSource fresh(Backend backend, long seed) {
    return new Fresh(backend, seed, "");
  }

  /** Values drawn anew. */
  record Fresh(Backend backend, long seed, String prefix) implements ParameterSource {
    @Override
    public Parameter parameter(String name, Shape shape, Init init) {
      return Parameter.of(backend, draw(seed, prefix + name, shape, init), shape);
    }

    /** The values that a fresh parameter of that full name has, row-major. */
    public static float[] draw(long seed, String name, Shape shape, Init init) {
      float[] values = new float[Math.toIntExact(shape.size())];
      init.fill(new Rng(seed, stream(name)), values);
      return values;
    }

    @Override
    public ParameterSource part(String name) {
      return new Fresh(backend, seed, prefix + name + ".");
    }

    /** FNV-1a over the name's characters, 64 bits. */
    private static long stream(String name) {
      long hash = 0xcbf29ce484222325L;
      for (int i = 0; i < name.length(); i++) {
        hash = (hash ^ name.charAt(i)) * 0x100000001b3L;
      }
      return hash;
    }
  }
}
