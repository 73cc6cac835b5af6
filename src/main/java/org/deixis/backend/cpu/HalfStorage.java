package org.deixis.backend.cpu;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Buffer;
import org.deixis.backend.HostMemory;
import org.deixis.backend.Memory;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * Lets a backend whose kernels compute in fp32 work on arrays that are stored in half: each such
 * argument is converted to fp32 before the call, and what the call writes is rounded back after it.
 * Calls without half arguments pass through. It is what proves mixed precision's logic without a
 * GPU, not a way to save time.
 *
 * <p>Every kernel of {@link Backend} takes what it reads first and what it writes last; {@link
 * #WRITTEN} says how many array arguments at the end are written.
 */
final class HalfStorage implements InvocationHandler {
  /** Written arrays at the end of a kernel's arguments, where it is not one. */
  private static final Map<String, Integer> WRITTEN =
      Map.ofEntries(
          Map.entry("gemm", 2),
          Map.entry("layerNorm", 3),
          Map.entry("layerNormBackward", 3),
          Map.entry("groupNorm", 2),
          Map.entry("groupNormBackward", 3),
          Map.entry("windowAttention", 2),
          Map.entry("windowAttentionBackward", 3),
          Map.entry("attention", 2),
          Map.entry("attentionBackward", 3),
          Map.entry("regionAttention", 2),
          Map.entry("regionAttentionBackward", 3),
          Map.entry("maskLoss", 2),
          Map.entry("binaryLoss", 2),
          Map.entry("crossEntropy", 2),
          Map.entry("gruCellBackward", 3));

  /** These know half types themselves, or move bytes. */
  private static final Set<String> AS_THEY_ARE = Set.of("copy", "upload", "download");

  private final CpuBackend inner;
  private final HostMemory memory;
  private final Backend self;

  private HalfStorage(CpuBackend inner) {
    this.inner = inner;
    self =
        (Backend)
            Proxy.newProxyInstance(
                Backend.class.getClassLoader(), new Class<?>[] {Backend.class}, this);
    memory = new HostMemory(self);
  }

  /** {@code inner} with half storage; the result owns it. */
  static Backend over(CpuBackend inner) {
    return new HalfStorage(inner).self;
  }

  @Override
  public Object invoke(Object proxy, Method method, Object[] arguments) throws Throwable {
    switch (method.getName()) {
      case "memory":
        return (Memory) memory;
      case "supports":
        return arguments[0] == DType.F32 || ((DType) arguments[0]).isHalf();
      case "allocate":
        return allocate((Shape) arguments[0], (DType) arguments[1]);
      case "close":
        memory.trim();
        return call(method, arguments);
      case "equals":
        return proxy == arguments[0];
      case "hashCode":
        return System.identityHashCode(proxy);
      default:
        if (arguments == null || AS_THEY_ARE.contains(method.getName()) || !anyHalf(arguments)) {
          return call(method, arguments);
        }
        try (Scope scope = Scope.open()) {
          return converted(method, arguments);
        }
    }
  }

  private Array allocate(Shape shape, DType dtype) {
    return new Array(
        memory.allocate(Math.multiplyExact(shape.size(), dtype.bytes())), 0, shape, dtype);
  }

  private Object call(Method method, Object[] arguments) throws Throwable {
    try {
      return method.invoke(inner, arguments);
    } catch (InvocationTargetException e) {
      throw e.getCause();
    }
  }

  private static boolean half(Object argument) {
    return argument instanceof Array a && a.dtype().isHalf();
  }

  private static boolean anyHalf(Object[] arguments) {
    for (Object argument : arguments) {
      if (half(argument)) {
        return true;
      }
      if (argument instanceof List<?> list) {
        for (Object o : list) {
          if (half(o) || o instanceof AdamW.Slot s && (half(s.gradient()) || half(s.half()))) {
            return true;
          }
        }
      }
    }
    return false;
  }

  /** Which elements an array stands for: arguments that share them must share their copy. */
  private record Place(Buffer buffer, long offset, long size) {}

  private Object converted(Method method, Object[] arguments) throws Throwable {
    Map<Place, Array> copies = new HashMap<>();
    List<Array[]> written = new ArrayList<>();
    Object[] replaced = arguments.clone();
    int outputs = WRITTEN.getOrDefault(method.getName(), 1);
    for (int i = arguments.length - 1; i >= 0; i--) {
      if (method.getParameterTypes()[i] == Array.class) {
        boolean output = outputs-- > 0;
        if (half(arguments[i])) {
          Array a = (Array) arguments[i];
          Array copy = widened(a, copies);
          replaced[i] = copy;
          if (output) {
            written.add(new Array[] {copy, a});
          }
        }
      } else if (arguments[i] instanceof List<?> list) {
        replaced[i] = list.stream().map(o -> widened(o, copies, written)).toList();
      }
    }
    Object result = call(method, replaced);
    for (Array[] pair : written) {
      inner.copy(pair[0], pair[1]);
    }
    return result;
  }

  private Object widened(Object element, Map<Place, Array> copies, List<Array[]> written) {
    if (element instanceof AdamW.Slot s) {
      Array copy = s.half() == null ? null : allocate(s.half().shape(), DType.F32);
      if (copy != null) {
        // A skipped step leaves the half copy as it is: start from it, so that writing back changes
        // nothing.
        inner.copy(s.half(), copy);
        written.add(new Array[] {copy, s.half()});
      }
      Array gradient = half(s.gradient()) ? widened(s.gradient(), copies) : s.gradient();
      return new AdamW.Slot(
          s.parameter(), gradient, s.m(), s.v(), copy, s.rateFactor(), s.weightDecay());
    }
    return half(element) ? widened((Array) element, copies) : element;
  }

  private Array widened(Array a, Map<Place, Array> copies) {
    Array copy =
        copies.computeIfAbsent(
            new Place(a.buffer(), a.offset(), a.size()),
            p -> {
              Array made = allocate(a.shape(), DType.F32);
              inner.copy(a, made);
              return made;
            });
    return copy.view(a.shape());
  }
}
