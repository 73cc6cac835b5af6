package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import java.lang.ref.Cleaner;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.dnnl.dnnl_engine;
import org.bytedeco.dnnl.dnnl_exec_arg_t;
import org.bytedeco.dnnl.dnnl_memory;
import org.bytedeco.dnnl.dnnl_primitive;
import org.bytedeco.dnnl.dnnl_stream;
import org.bytedeco.javacpp.Pointer;

/**
 * One thread's access to oneDNN: a stream, a cache of primitives by shape, and scratch memory.
 *
 * <p>Nothing here is shared between threads, so no call takes a lock; oneDNN itself shares the
 * generated code. A primitive is looked up without making an object: fill {@link #key}, then {@link
 * #find}; on null build it with a {@link DnnlBuilder}. What a thread made is given back when its
 * context is collected.
 */
final class Dnnl {
  /**
   * Primitives in a generation. A thread keeps two, so that shapes that vary without end do not
   * fill the memory and what a caller holds is not destroyed under it.
   */
  private static final int CAPACITY = 2048;

  private static final int WORKSPACES = 4;

  /** Families of primitives: the first word of a key. */
  static final int MATMUL = 1;

  static final int ELTWISE = 2;
  static final int ELTWISE_BACKWARD = 3;
  static final int BINARY = 4;
  static final int REORDER = 5;
  static final int SOFTMAX = 6;
  static final int SOFTMAX_BACKWARD = 7;
  static final int LAYER_NORM = 8;
  static final int LAYER_NORM_BACKWARD = 9;
  static final int CONV = 10;
  static final int CONV_DATA = 11;
  static final int CONV_WEIGHT = 12;
  static final int ADD = 13;
  static final int FOLD = 14;
  static final int CONVERT = 15;
  static final int SCALE = 16;
  static final int AFFINE = 17;
  static final int FROZEN_MATMUL = 18;
  static final int FROZEN_CONV = 19;

  private static final Cleaner CLEANER = Cleaner.create();

  private static final class Engine {
    static final dnnl_engine CPU = new dnnl_engine();

    static {
      check(dnnl_engine_create(CPU, dnnl_cpu, 0), "engine");
    }
  }

  private static final ThreadLocal<Dnnl> HERE = ThreadLocal.withInitial(Dnnl::new);

  /** A pointer whose address can be changed, so that passing one makes no object. */
  static final class Raw extends Pointer {
    Raw() {
      super((Pointer) null);
    }

    Raw at(long newAddress) {
      address = newAddress;
      return this;
    }
  }

  /** What must be given back to oneDNN; it must not refer to the context that it outlives. */
  private static final class Natives implements Runnable {
    final dnnl_stream stream = new dnnl_stream();
    List<Kernel> kernels = new ArrayList<>();
    List<Kernel> old = new ArrayList<>();
    final Pointer[] memory = new Pointer[WORKSPACES + 1];

    @Override
    public void run() {
      kernels.forEach(Kernel::destroy);
      old.forEach(Kernel::destroy);
      for (Pointer block : memory) {
        Pointer.free(block);
      }
      dnnl_stream_destroy(stream);
    }
  }

  /** The words that name a primitive: its family, extents, strides and attributes. */
  static final class Key {
    private long[] words = new long[48];
    private int length;

    Key start(int family) {
      length = 0;
      return add(family);
    }

    Key add(long word) {
      if (length == words.length) {
        words = Arrays.copyOf(words, 2 * length);
      }
      words[length++] = word;
      return this;
    }

    Key add(long[] many) {
      for (long word : many) {
        add(word);
      }
      return this;
    }

    Key add(float value) {
      return add(Float.floatToRawIntBits(value));
    }

    Key copy() {
      Key other = new Key();
      other.words = Arrays.copyOf(words, length);
      other.length = length;
      return other;
    }

    @Override
    public boolean equals(Object o) {
      return o instanceof Key k && Arrays.equals(words, 0, length, k.words, 0, k.length);
    }

    @Override
    public int hashCode() {
      long h = 0;
      for (int i = 0; i < length; i++) {
        h = (h ^ words[i]) * 0x9E3779B97F4A7C15L;
        h ^= h >>> 29;
      }
      return (int) h;
    }
  }

  /** A primitive with its memory objects; the arguments keep the order in which it was built. */
  static final class Kernel {
    private final Dnnl owner;
    private final dnnl_primitive primitive;
    private final dnnl_memory[] memories;
    private final long[] addresses;
    private final dnnl_exec_arg_t arguments;
    private final long scratchBytes;
    private final int scratchSlot;
    private Kernel companion;
    private long companionBytes;
    private FrozenWeights.Layout layout;

    /**
     * @param scratchSlot index of the scratchpad among the memories, −1 for none
     */
    Kernel(
        Dnnl owner,
        dnnl_primitive primitive,
        int[] ids,
        dnnl_memory[] memories,
        long scratchBytes,
        int scratchSlot) {
      this.owner = owner;
      this.primitive = primitive;
      this.memories = memories;
      this.addresses = new long[memories.length];
      this.scratchBytes = scratchBytes;
      this.scratchSlot = scratchSlot;
      this.arguments = new dnnl_exec_arg_t(memories.length);
      for (int i = 0; i < memories.length; i++) {
        arguments.position(i).arg(ids[i]).memory(memories[i]);
      }
      arguments.position(0);
    }

    /**
     * Keeps a second primitive with this one, which lays an operand of it out.
     *
     * @param bytes size of that operand
     */
    void accompany(Kernel other, long bytes) {
      companion = other;
      companionBytes = bytes;
    }

    /** Keeps with this primitive the layout in which it wants a weight. */
    Kernel wants(FrozenWeights.Layout weight) {
      layout = weight;
      return this;
    }

    FrozenWeights.Layout layout() {
      return layout;
    }

    Kernel companion() {
      return companion;
    }

    long companionBytes() {
      return companionBytes;
    }

    /** Says where argument {@code i} lies. */
    Kernel set(int i, long address) {
      if (addresses[i] != address) {
        check(dnnl_memory_set_data_handle(memories[i], owner.raw.at(address)), "memory handle");
        addresses[i] = address;
      }
      return this;
    }

    void run() {
      if (scratchSlot >= 0) {
        set(scratchSlot, owner.workspace(WORKSPACES, scratchBytes));
      }
      check(
          dnnl_primitive_execute(primitive, owner.natives.stream, memories.length, arguments),
          "execution");
    }

    void run(long first, long second) {
      set(0, first).set(1, second).run();
    }

    void run(long first, long second, long third) {
      set(0, first).set(1, second).set(2, third).run();
    }

    void destroy() {
      if (companion != null) {
        companion.destroy();
      }
      dnnl_primitive_destroy(primitive);
      for (dnnl_memory memory : memories) {
        dnnl_memory_destroy(memory);
      }
      arguments.deallocate();
    }
  }

  private final Natives natives = new Natives();
  private final Map<Key, Kernel> kernels = new HashMap<>();
  private final Key key = new Key();
  private final Raw raw = new Raw();
  private final Raw from = new Raw();
  private final long[] blockBytes = new long[WORKSPACES + 1];

  private Dnnl() {
    check(dnnl_stream_create(natives.stream, Engine.CPU, dnnl_stream_default_flags), "stream");
    CLEANER.register(this, natives);
  }

  /** The calling thread's context. */
  static Dnnl here() {
    return HERE.get();
  }

  static dnnl_engine engine() {
    return Engine.CPU;
  }

  static void check(int status, String what) {
    if (status != dnnl_success) {
      throw new IllegalStateException("oneDNN " + what + " failed with status " + status);
    }
  }

  /** Starts the key of the next look-up. */
  Key key(int family) {
    return key.start(family);
  }

  /** The key being filled, for more words. */
  Key key() {
    return key;
  }

  /** The primitive of the key just filled, or null. */
  Kernel find() {
    return kernels.get(key);
  }

  /** Keeps {@code kernel} under the key just filled. */
  Kernel put(Kernel kernel) {
    if (kernels.size() >= CAPACITY) {
      natives.old.forEach(Kernel::destroy);
      natives.old = natives.kernels;
      natives.kernels = new ArrayList<>();
      kernels.clear();
    }
    kernels.put(key.copy(), kernel);
    natives.kernels.add(kernel);
    return kernel;
  }

  /**
   * Scratch memory of at least {@code bytes}, 64-byte aligned, valid until the same slot is asked
   * for again on this thread; it grows and is kept.
   *
   * @param slot 0 to 3
   */
  long workspace(int slot, long bytes) {
    if (bytes > blockBytes[slot]) {
      Pointer.free(natives.memory[slot]);
      natives.memory[slot] = null;
      blockBytes[slot] = 0;
      long size = bytes + (bytes >> 2) + 4096;
      Pointer block = Pointer.malloc(size + 64);
      if (block == null || block.isNull()) {
        throw new OutOfMemoryError(
            "no " + (size >> 20) + " MiB left for a kernel's scratch memory");
      }
      natives.memory[slot] = block;
      blockBytes[slot] = size;
    }
    Pointer block = natives.memory[slot];
    return block == null ? 0 : (block.address() + 63) & -64L;
  }

  void copy(long source, long target, long bytes) {
    Pointer.memcpy(raw.at(target), from.at(source), bytes);
  }

  void zero(long target, long bytes) {
    Pointer.memset(raw.at(target), 0, bytes);
  }
}
