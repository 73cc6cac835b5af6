package org.deixis.backend;

import java.io.PrintStream;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.deixis.core.Env;
import org.deixis.core.ModulePath;

/**
 * Watches every kernel of a backend, as {@code DEIXIS_DEBUG} asks; what a level shows the higher
 * ones show too.
 *
 * <ol>
 *   <li>times kernels; at the end of the process a table of calls, time and share by kernel
 *   <li>reads every result back and reports those with a NaN, with the module that asked
 *   <li>prints each kernel as it runs: time, arguments, module
 * </ol>
 *
 * <p>A traced kernel waits for its device before and after, and steps are not captured as graphs.
 */
public final class KernelTrace implements InvocationHandler {
  private static final int LEVEL = Env.debug();
  private static final Map<Backend, Backend> TRACED = new ConcurrentHashMap<>();

  /** NaNs reported before it is only counted. */
  private static final int REPORTS = 20;

  private static final class Total {
    long calls;
    long nanos;
  }

  private final Backend inner;
  private final int level;
  private final PrintStream out;
  private final Map<String, Total> totals = new ConcurrentHashMap<>();
  private int withNan;

  private KernelTrace(Backend inner, int level, PrintStream out) {
    this.inner = inner;
    this.level = level;
    this.out = out;
  }

  /** The backend itself where nothing is asked for, else the same traced one each time. */
  static Backend of(Backend backend) {
    return LEVEL == 0 || Proxy.isProxyClass(backend.getClass()) && TRACED.containsValue(backend)
        ? backend
        : TRACED.computeIfAbsent(
            backend,
            b -> {
              KernelTrace trace = new KernelTrace(b, LEVEL, System.err);
              Runtime.getRuntime().addShutdownHook(new Thread(trace::printTotals));
              return trace.proxy();
            });
  }

  /** A backend that traces to {@code out} at the given level; its arrays name the inner one. */
  static Backend over(Backend inner, int level, PrintStream out) {
    return new KernelTrace(inner, level, out).proxy();
  }

  private Backend proxy() {
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(), new Class<?>[] {Backend.class}, this);
  }

  @Override
  public Object invoke(Object self, Method method, Object[] arguments) throws Throwable {
    String name = method.getName();
    switch (name) {
      case "equals":
        return self == arguments[0];
      case "hashCode":
        return System.identityHashCode(self);
      case "graphs": // a kernel that is captured has no time of its own
        return null;
      case "close":
        printTotals();
        return call(method, arguments);
      default:
        break;
    }
    if (!KernelResults.WRITTEN.containsKey(name)) {
      return call(method, arguments);
    }
    inner.synchronize();
    long start = System.nanoTime();
    Object result = call(method, arguments);
    inner.synchronize();
    long nanos = System.nanoTime() - start;
    synchronized (this) {
      Total total = totals.computeIfAbsent(name, n -> new Total());
      total.calls++;
      total.nanos += nanos;
      if (level >= 3) {
        out.printf(
            Locale.ROOT, "%9.3f ms  %s%s%n", nanos / 1e6, describe(name, arguments), where());
      }
      if (level >= 2) {
        look(name, arguments);
      }
    }
    return result;
  }

  private Object call(Method method, Object[] arguments) throws Throwable {
    try {
      return method.invoke(inner, arguments);
    } catch (InvocationTargetException e) {
      throw e.getCause();
    }
  }

  private static String where() {
    String path = ModulePath.current();
    return path.isEmpty() ? "" : "  at " + path;
  }

  private static String describe(String name, Object[] arguments) {
    List<String> words = new ArrayList<>();
    for (Object argument : arguments) {
      words.add(
          argument instanceof int[] ints
              ? Arrays.toString(ints)
              : argument instanceof List<?> list && list.size() > 4
                  ? list.size() + " items"
                  : String.valueOf(argument));
    }
    return name + "(" + String.join(", ", words) + ")";
  }

  private void look(String name, Object[] arguments) {
    if (name.equals("copyColumns")) {
      return; // may write a part of its result only; the rest is undefined as yet
    }
    int left = KernelResults.WRITTEN.get(name);
    for (int i = arguments.length - 1; i >= 0 && left > 0; i--) {
      if (arguments[i] == null || arguments[i] instanceof Array) {
        left--;
        report(name, arguments, (Array) arguments[i]);
      }
    }
    for (Object argument : arguments) {
      if (argument instanceof List<?> list) {
        for (Object item : list) {
          if (item instanceof AdamW.Slot slot) {
            report(name, arguments, slot.parameter());
          }
        }
      }
    }
  }

  private void report(String name, Object[] arguments, Array result) {
    if (result == null || !result.dtype().isFloating() || !hasNan(result)) {
      return;
    }
    withNan++;
    if (withNan <= REPORTS) {
      out.println("NaN in the result " + result + " of " + describe(name, arguments) + where());
    }
    if (withNan == REPORTS) {
      out.println("further results with NaN are only counted");
    }
  }

  private boolean hasNan(Array array) {
    ByteBuffer bytes =
        ByteBuffer.allocate(Math.toIntExact(array.bytes())).order(ByteOrder.LITTLE_ENDIAN);
    inner.download(array, bytes);
    for (int i = 0; i < array.size(); i++) {
      boolean nan =
          switch (array.dtype()) {
            case F64 -> Double.isNaN(bytes.getDouble(8 * i));
            case F16 -> (bytes.getShort(2 * i) & 0x7fff) > 0x7c00;
            case BF16 -> (bytes.getShort(2 * i) & 0x7fff) > 0x7f80;
            default -> Float.isNaN(bytes.getFloat(4 * i));
          };
      if (nan) {
        return true;
      }
    }
    return false;
  }

  private synchronized void printTotals() {
    if (totals.isEmpty()) {
      return;
    }
    double all = totals.values().stream().mapToLong(t -> t.nanos).sum();
    out.printf(Locale.ROOT, "kernels of %s: %.1f ms%n", inner.name(), all / 1e6);
    totals.entrySet().stream()
        .sorted((a, b) -> Long.compare(b.getValue().nanos, a.getValue().nanos))
        .forEach(
            e ->
                out.printf(
                    Locale.ROOT,
                    "%10.1f ms %5.1f %% %8d calls  %s%n",
                    e.getValue().nanos / 1e6,
                    100 * e.getValue().nanos / all,
                    e.getValue().calls,
                    e.getKey()));
    if (withNan > 0) {
      out.println(withNan + " results had a NaN");
    }
    totals.clear();
  }
}
