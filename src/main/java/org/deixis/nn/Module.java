package org.deixis.nn;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiConsumer;
import java.util.function.Supplier;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.ModulePath;

/**
 * A part of a network: parameters and parts, each under a name; a parameter's full name is the path
 * to it, as in PyTorch. Parts are made by constructors and found here in the order they were
 * registered.
 */
public abstract class Module implements AutoCloseable {
  private final Map<String, Parameter> parameters = new LinkedHashMap<>();
  private final Map<String, Module> children = new LinkedHashMap<>();
  private boolean training;

  protected final Parameter register(String name, Parameter parameter) {
    if (parameters.put(name, parameter) != null) {
      throw new IllegalStateException("parameter registered twice: " + name);
    }
    return parameter;
  }

  /** The name may have dots, for parts that live in a list: {@code blocks.0}. */
  protected final <M extends Module> M register(String name, M child) {
    if (children.put(name, child) != null) {
      throw new IllegalStateException("module registered twice: " + name);
    }
    return child;
  }

  /** Runs {@code body} with {@code name} on the module path that error messages show. */
  protected static <T> T within(String name, Supplier<T> body) {
    ModulePath.enter(name);
    try {
      return body.get();
    } finally {
      ModulePath.leave();
    }
  }

  /** All parameters by full name, own ones first, then those of the parts in order. */
  public final Map<String, Parameter> parameters() {
    Map<String, Parameter> all = new LinkedHashMap<>();
    visit("", all::put);
    return all;
  }

  private void visit(String prefix, BiConsumer<String, Parameter> visitor) {
    parameters.forEach((name, p) -> visitor.accept(prefix + name, p));
    children.forEach((name, child) -> child.visit(prefix + name + ".", visitor));
  }

  /** Number of trained values. */
  public final long parameterCount() {
    return parameters().values().stream().mapToLong(p -> p.shape().size()).sum();
  }

  public final void clearGradients() {
    parameters().values().forEach(Parameter::clearGradient);
  }

  /**
   * Chooses the type that the forward reads parameters in; norms stay in fp32 where the part says
   * so.
   */
  public void precision(DType dtype) {
    parameters.values().forEach(p -> p.precision(dtype));
    children.values().forEach(child -> child.precision(dtype));
  }

  /**
   * Makes this a module for inference alone: no parameter changes any more or gathers a gradient,
   * and the backend may lay weights out for its products. Where the backend has products in {@code
   * products} for F32 activations, it takes those; elsewhere parameters and activations are cast.
   *
   * @throws InputException when the device has no gain from that type
   */
  public void freeze(DType products) {
    Map<String, Parameter> all = parameters();
    if (all.isEmpty()) {
      return;
    }
    if (all.values().iterator().next().master().backend().freezes(products)) {
      all.values().forEach(p -> p.freeze(products));
    } else {
      precision(products);
      all.values().forEach(p -> p.trainable(false));
    }
  }

  /** Whether dropout and drop-path are active, here and in all parts. */
  public final void training(boolean wanted) {
    training = wanted;
    children.values().forEach(child -> child.training(wanted));
  }

  public final boolean training() {
    return training;
  }

  /** The parts, in order. */
  protected final List<Module> children() {
    return new ArrayList<>(children.values());
  }

  @Override
  public void close() {
    parameters.values().forEach(Parameter::close);
    children.values().forEach(Module::close);
  }
}
