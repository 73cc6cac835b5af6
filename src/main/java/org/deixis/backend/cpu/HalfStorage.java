package org.deixis.backend.cpu;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.deixis.backend.AdamW;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Buffer;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.HostMemory;
import org.deixis.backend.KernelResults;
import org.deixis.backend.Memory;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.Shape;

/**
 * Lets every kernel of a host backend that computes in F32 take arrays stored as F16 or BF16: they
 * are widened to scratch arrays before the call, and what the call wrote is rounded back to nearest
 * even after it. Calls without such arrays pass straight on. Arrays that overlap in memory overlap
 * in the scratch memory too.
 *
 * <p>The result owns the memory: its arrays name it, not the inner backend, as theirs.
 */
final class HalfStorage implements InvocationHandler {
  /** Elements that a task converts. */
  private static final int TILE = 4096;

  private final Backend inner;
  private final WorkerPool pool;
  private final Set<String> able;
  private HostMemory memory;

  private HalfStorage(Backend inner, WorkerPool pool, Set<String> able) {
    this.inner = inner;
    this.pool = pool;
    this.able = able;
  }

  /**
   * @param inner a backend whose arrays are host memory
   * @param pool shares the conversions
   * @param able methods of {@code inner} that take half arrays themselves
   */
  static Backend over(Backend inner, WorkerPool pool, Set<String> able) {
    HalfStorage handler = new HalfStorage(inner, pool, Set.copyOf(able));
    Backend outer =
        (Backend)
            Proxy.newProxyInstance(
                Backend.class.getClassLoader(), new Class<?>[] {Backend.class}, handler);
    handler.memory = new HostMemory(outer);
    return outer;
  }

  @Override
  public Object invoke(Object self, Method method, Object[] arguments) throws Throwable {
    switch (method.getName()) {
      case "memory":
        return memory;
      case "allocate":
        return allocate(memory, (Shape) arguments[0], (DType) arguments[1]);
      case "supports":
        return ((DType) arguments[0]).isHalf() || inner.supports((DType) arguments[0]);
      case "equals":
        return self == arguments[0];
      case "hashCode":
        return System.identityHashCode(self);
      case "freezes", "freeze":
        return call(method, arguments);
      case "close":
        call(method, arguments);
        memory.trim();
        return null;
      case "upload":
        refuseFrozen((Array) arguments[1]);
        return call(method, arguments); // bytes, whatever they mean
      case "download":
        return call(method, arguments);
      default:
        break;
    }
    if (arguments != null) {
      refuseFrozen(method.getName(), arguments);
    }
    if (arguments == null || able.contains(method.getName()) || !anyHalf(arguments)) {
      return call(method, arguments);
    }
    if (method.getName().equals("copy")) {
      copy((Array) arguments[0], (Array) arguments[1]);
      return null;
    }
    Integer written = KernelResults.WRITTEN.get(method.getName());
    if (written == null) {
      throw new IllegalStateException(
          "backend " + inner.name() + " has no half-precision " + method.getName());
    }
    try (Scope scope = Scope.open()) {
      return new Conversion(arguments, written).call(method);
    }
  }

  /** A copy of a frozen array, laid out for products, would go stale without a word. */
  private static void refuseFrozen(Array array) {
    if (array != null && HostBuffer.of(array).derived() != null) {
      throw new IllegalStateException("write into a frozen array " + array);
    }
  }

  private static void refuseFrozen(String method, Object[] arguments) {
    int left = KernelResults.WRITTEN.getOrDefault(method, 0);
    for (int i = arguments.length - 1; i >= 0; i--) {
      Object argument = arguments[i];
      if (argument == null || argument instanceof Array) {
        if (left-- > 0) {
          refuseFrozen((Array) argument);
        }
      } else if (argument instanceof List<?> list && method.equals("adamW")) {
        for (Object slot : list) {
          Array[] all = arrays((AdamW.Slot) slot);
          for (int j = 0; j < all.length; j++) {
            if (j != 1) {
              refuseFrozen(all[j]);
            }
          }
        }
      }
    }
  }

  private Object call(Method method, Object[] arguments) throws Throwable {
    try {
      return method.invoke(inner, arguments);
    } catch (InvocationTargetException e) {
      throw e.getCause();
    }
  }

  private static Array allocate(Memory memory, Shape shape, DType dtype) {
    Buffer buffer = memory.allocate(Math.multiplyExact(shape.size(), dtype.bytes()));
    return new Array(buffer, 0, shape, dtype);
  }

  private static boolean anyHalf(Object[] arguments) {
    for (Object argument : arguments) {
      if (argument instanceof Array array) {
        if (array.dtype().isHalf()) {
          return true;
        }
      } else if (argument instanceof List<?> list) {
        for (Object item : list) {
          if (item instanceof Array array && array.dtype().isHalf()
              || item instanceof AdamW.Slot slot && anyHalf(arrays(slot))) {
            return true;
          }
        }
      }
    }
    return false;
  }

  private static Array[] arrays(AdamW.Slot slot) {
    return new Array[] {slot.parameter(), slot.gradient(), slot.m(), slot.v(), slot.half()};
  }

  /** Converts between F32, F16 and BF16. */
  private void copy(Array x, Array y) {
    if (x.dtype() == DType.F64 || y.dtype() == DType.F64) {
      throw new IllegalStateException("no copy from " + x + " to " + y + " on " + inner.name());
    }
    HalfTile from = HalfTile.of(x);
    HalfTile to = HalfTile.of(y);
    long n = x.size();
    pool.parallelFor(
        Math.toIntExact((n + TILE - 1) / TILE),
        tile -> {
          Scratch scratch = Scratch.here();
          float[] values = scratch.floats(0, TILE + VectorMath.LANES);
          int count = (int) Math.min(TILE, n - (long) tile * TILE);
          from.read(scratch, tile * TILE, count, values);
          to.write(scratch, tile * TILE, count, values);
        });
  }

  /** A stretch of half-precision memory and its F32 counterpart. */
  private static final class Piece {
    final Buffer buffer;
    final DType dtype;
    long from;
    long end;
    Array wide;

    Piece(Array array) {
      buffer = array.buffer();
      dtype = array.dtype();
      from = array.offset();
      end = array.offset() + array.size();
    }

    boolean touches(Piece other) {
      return buffer == other.buffer && dtype == other.dtype && from < other.end && other.from < end;
    }

    boolean holds(Array array) {
      return buffer == array.buffer()
          && dtype == array.dtype()
          && from <= array.offset()
          && array.offset() + array.size() <= end;
    }

    Array view(Array array) {
      return new Array(wide.buffer(), array.offset() - from, array.shape(), DType.F32);
    }
  }

  /** One call's arguments, widened. */
  private final class Conversion {
    private final List<Piece> pieces = new ArrayList<>();
    private final List<Array> outputs = new ArrayList<>();
    private final Object[] arguments;

    Conversion(Object[] given, int written) {
      arguments = given.clone();
      int left = written;
      for (int i = given.length - 1; i >= 0; i--) {
        if (given[i] instanceof Array || given[i] == null) {
          // a null stands for an array that was not wanted; no other argument may be null
          find((Array) given[i], left-- > 0);
        } else if (given[i] instanceof List<?> list) {
          for (Object item : list) {
            if (item instanceof Array array) {
              find(array, false);
            } else if (item instanceof AdamW.Slot slot) {
              Array[] all = arrays(slot);
              for (int j = 0; j < all.length; j++) {
                find(all[j], j != 1); // all but the gradient
              }
            }
          }
        }
      }
      for (Piece piece : pieces) {
        Shape shape = Shape.of(Math.toIntExact(piece.end - piece.from));
        piece.wide = allocate(memory, shape, DType.F32);
        copy(new Array(piece.buffer, piece.from, shape, piece.dtype), piece.wide);
      }
      for (int i = 0; i < given.length; i++) {
        arguments[i] = replaced(given[i]);
      }
    }

    private void find(Array array, boolean output) {
      if (array == null || !array.dtype().isHalf()) {
        return;
      }
      if (output) {
        outputs.add(array);
      }
      Piece piece = new Piece(array);
      for (int i = pieces.size() - 1; i >= 0; i--) {
        Piece other = pieces.get(i);
        if (piece.touches(other)) {
          piece.from = Math.min(piece.from, other.from);
          piece.end = Math.max(piece.end, other.end);
          pieces.remove(i);
        }
      }
      pieces.add(piece);
    }

    private Object replaced(Object argument) {
      if (argument instanceof Array array && array.dtype().isHalf()) {
        return wide(array);
      }
      if (argument instanceof List<?> list) {
        List<Object> all = new ArrayList<>(list.size());
        for (Object item : list) {
          all.add(
              item instanceof AdamW.Slot slot
                  ? new AdamW.Slot(
                      wide(slot.parameter()),
                      wide(slot.gradient()),
                      wide(slot.m()),
                      wide(slot.v()),
                      wide(slot.half()),
                      slot.rateFactor(),
                      slot.weightDecay())
                  : item instanceof Array array ? wide(array) : item);
        }
        return all;
      }
      return argument;
    }

    private Array wide(Array array) {
      if (array == null || !array.dtype().isHalf()) {
        return array;
      }
      for (Piece piece : pieces) {
        if (piece.holds(array)) {
          return piece.view(array);
        }
      }
      throw new IllegalStateException("no scratch memory for " + array);
    }

    Object call(Method method) throws Throwable {
      Object result = HalfStorage.this.call(method, arguments);
      for (Array output : outputs) {
        copy(wide(output), output);
      }
      return result;
    }
  }
}
