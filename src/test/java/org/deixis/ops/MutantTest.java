package org.deixis.ops;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.HostMemory;
import org.deixis.backend.Memory;
import org.deixis.bench.OpCase;
import org.deixis.bench.OpCases;
import org.deixis.core.DType;
import org.deixis.testing.CaseRun;
import org.deixis.testing.Host;
import org.deixis.testing.SpiMethods;
import org.junit.jupiter.api.Test;

/**
 * Breaks one kernel at a time and asks that the table of cases notices: a suite that passes with a
 * wrong kernel proves nothing. A mutant writes one element of the kernel's last result wrong.
 */
class MutantTest {
  private static final Backend REFERENCE = Backends.get("reference");

  /** The optimiser's kernels have no operation; their golden tests hold them. */
  private static final Set<String> OPTIMISER = Set.of("gradientNorm", "adamW", "advance");

  @Test
  void everyKernelsMutantIsCaught() {
    List<OpCase> cases = OpCases.all();
    Map<String, List<OpCase>> users = new HashMap<>();
    for (OpCase c : cases) {
      Set<String> called = new LinkedHashSet<>();
      CaseRun.run(c, broken(null, called), DType.F32, CaseRun.operands(c, DType.F32, 1), 1);
      called.forEach(m -> users.computeIfAbsent(m, k -> new java.util.ArrayList<>()).add(c));
    }
    Set<String> kernels = new TreeSet<>();
    for (Method m : Backend.class.getMethods()) {
      if (!SpiMethods.NOT_KERNELS.contains(m.getName()) && !OPTIMISER.contains(m.getName())) {
        kernels.add(m.getName());
      }
    }
    assertTrue(Backend.class.getMethods().length <= 60, "the backend has grown into a god-class");
    assertEquals(kernels, new TreeSet<>(users.keySet()), "kernels that some case calls");
    Set<String> survivors = new TreeSet<>();
    for (String kernel : kernels) {
      if (users.get(kernel).stream().noneMatch(c -> caught(c, kernel))) {
        survivors.add(kernel);
      }
    }
    assertTrue(survivors.isEmpty(), "mutants that no case noticed: " + survivors);
  }

  private static boolean caught(OpCase c, String kernel) {
    List<double[]> operands = CaseRun.operands(c, DType.F32, 1);
    CaseRun.Result expected = CaseRun.run(c, REFERENCE, DType.F64, operands, 1);
    CaseRun.Result actual =
        CaseRun.run(c, broken(kernel, new LinkedHashSet<>()), DType.F32, operands, 1);
    for (int i = 0; i < expected.outputs().size(); i++) {
      if (Host.relative(actual.outputs().get(i), expected.outputs().get(i)) > 2e-5) {
        return true;
      }
    }
    for (int i = 0; i < expected.gradients().size(); i++) {
      double[] g = expected.gradients().get(i);
      if (g != null && Host.relative(actual.gradients().get(i), g) > 2e-5) {
        return true;
      }
    }
    return false;
  }

  /** The reference with one kernel broken (null: none), noting which kernels are called. */
  private static Backend broken(String kernel, Set<String> called) {
    Memory[] memory = new Memory[1];
    Backend proxy =
        (Backend)
            Proxy.newProxyInstance(
                Backend.class.getClassLoader(),
                new Class<?>[] {Backend.class},
                (self, method, arguments) -> {
                  if (method.getName().equals("memory")) {
                    return memory[0];
                  }
                  if (method.getName().equals("allocate")) {
                    org.deixis.core.Shape shape = (org.deixis.core.Shape) arguments[0];
                    DType dtype = (DType) arguments[1];
                    return new Array(
                        memory[0].allocate(shape.size() * dtype.bytes()), 0, shape, dtype);
                  }
                  Object result;
                  List<float[]> before =
                      method.getName().equals(kernel) ? contents(arguments) : List.of();
                  try {
                    result = method.invoke(REFERENCE, arguments);
                  } catch (InvocationTargetException e) {
                    throw e.getCause();
                  }
                  if (!SpiMethods.NOT_KERNELS.contains(method.getName())) {
                    called.add(method.getName());
                  }
                  if (method.getName().equals(kernel)) {
                    spoil(arguments, before);
                  }
                  return result;
                });
    memory[0] = new HostMemory(proxy);
    return proxy;
  }

  /** What each fp32 argument holds. */
  private static List<float[]> contents(Object[] arguments) {
    List<float[]> all = new java.util.ArrayList<>();
    for (Object argument : arguments) {
      if (argument instanceof Array a && a.dtype() == DType.F32 && a.size() > 0) {
        float[] values = new float[Math.toIntExact(a.size())];
        HostBuffer.of(a).floats().get(Math.toIntExact(a.offset()), values);
        all.add(values);
      }
    }
    return all;
  }

  /** Changes the first element of the first argument that the call has written. */
  private static void spoil(Object[] arguments, List<float[]> before) {
    Array written = null;
    int i = 0;
    for (Object argument : arguments) {
      if (argument instanceof Array a && a.dtype() == DType.F32 && a.size() > 0) {
        float[] old = before.get(i++);
        float[] now = new float[old.length];
        HostBuffer.of(a).floats().get(Math.toIntExact(a.offset()), now);
        if (!java.util.Arrays.equals(old, now)) {
          written = a;
          break;
        }
        written = a; // the last one, where the call left the bits as they were
      }
    }
    if (written != null) {
      int at = Math.toIntExact(written.offset());
      float v = HostBuffer.of(written).floats().get(at);
      HostBuffer.of(written).floats().put(at, v + 0.01f + Math.abs(v) * 0.01f);
    }
  }
}
