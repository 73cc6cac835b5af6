package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.dnnl.dnnl_memory_desc;
import org.bytedeco.dnnl.dnnl_primitive_desc;
import org.deixis.backend.Array;
import org.deixis.backend.HostBuffer;
import org.deixis.backend.Memory;
import org.deixis.backend.Scope;
import org.deixis.core.DType;
import org.deixis.core.InputException;
import org.deixis.core.Shape;

/**
 * Copies of a weight that does not change any more, in the layouts that oneDNN's products and
 * convolutions asked for, rounded to the type they multiply in. A copy is made when it is first
 * asked for and lives as long as the weight's buffer. Any thread may ask.
 */
final class FrozenWeights implements HostBuffer.Derived {
  /** A layout of oneDNN's choice; equal ones are one object. */
  static final class Layout {
    private final dnnl_memory_desc md;
    private final long bytes;

    private Layout(dnnl_memory_desc md) {
      this.md = md;
      this.bytes = dnnl_memory_desc_get_size(md);
    }

    dnnl_memory_desc descriptor() {
      return md;
    }

    /** Distance in bytes between several matrices in this layout. */
    long step() {
      return bytes + 63 & -64L;
    }
  }

  /** Kept for good: there are no more than shapes of weights. */
  private static final List<Layout> LAYOUTS = new ArrayList<>();

  /**
   * @param start of the part that is copied, in bytes from the buffer's
   * @param down distance of neighbours along the first axis; 0 for a dense array
   */
  private record Part(long start, long down, long right, Layout layout) {}

  /** Instead of a place: the weight as transformed filters. */
  private static final long FILTERS = -1;

  private final Memory memory;
  private final DType products;
  private final Map<Part, Array> copies = new HashMap<>();

  FrozenWeights(Memory memory, DType products) {
    this.memory = memory;
    this.products = products;
  }

  /** The array's copies, or null when it is not frozen. */
  static FrozenWeights of(Array array) {
    return (FrozenWeights) HostBuffer.of(array).derived();
  }

  /**
   * @throws InputException when products in that type would not be faster than in F32 here
   */
  static void check(DType products) {
    if (products == DType.F32) {
      return;
    }
    if (products != DType.BF16) {
      throw new InputException(
          "device 'cpu' has no products in " + products + "; choose fp32 or bf16");
    }
    int wanted = dnnl_cpu_isa_avx512_core_bf16;
    if ((dnnl_get_effective_cpu_isa() & wanted) != wanted) {
      throw new InputException(
          "device 'cpu' has no products in bf16: this processor lacks avx512_bf16 and amx_bf16;"
              + " choose fp32");
    }
  }

  /** What weights are rounded to. */
  DType products() {
    return products;
  }

  /** The layout that a primitive chose for its weight. */
  static Layout layout(dnnl_primitive_desc pd) {
    dnnl_memory_desc chosen = DnnlBuilder.chosen(pd, dnnl_query_weights_md);
    synchronized (LAYOUTS) {
      for (Layout layout : LAYOUTS) {
        if (dnnl_memory_desc_equal(layout.md, chosen) != 0) {
          return layout;
        }
      }
      dnnl_memory_desc own = new dnnl_memory_desc();
      Dnnl.check(dnnl_memory_desc_clone(own, chosen), "memory descriptor");
      Layout layout = new Layout(own);
      LAYOUTS.add(layout);
      return layout;
    }
  }

  /**
   * Address of the copy of a k×n matrix of the weight in the layout that a product wants.
   *
   * @param address of the matrix's first element
   * @param down distance in elements between its rows, {@code right} between its columns
   */
  long matrix(Array weight, long address, int k, int n, long down, long right, Layout layout) {
    return copy(weight, address, new long[] {k, n}, new long[] {down, right}, layout);
  }

  /** Address of the copy of a dense array in the layout that a convolution wants. */
  long dense(Array weight, long[] dims, Layout layout) {
    return copy(weight, Native.floats(weight), dims, null, layout);
  }

  /**
   * Address of a 3×3 weight's filters transformed for {@link FrozenWinograd}: 36 matrices (in,
   * out), {@link Layout#step} apart.
   */
  synchronized long filters(Array weight, int in, int out, Layout layout) {
    Part part = new Part(FILTERS, 0, 0, layout);
    Array all = copies.get(part);
    if (all == null) {
      float[] plain = new float[Math.toIntExact(weight.size())];
      HostBuffer.of(weight).floats().get(Math.toIntExact(weight.offset()), plain);
      float[] filters = FrozenWinograd.filters(plain, in, out);
      all = allocate(FrozenWinograd.POINTS * layout.step());
      try (Scope scope = Scope.open()) {
        Array matrix = new Array(memory.allocate(4L * in * out), 0, Shape.of(in, out), DType.F32);
        for (int p = 0; p < FrozenWinograd.POINTS; p++) {
          HostBuffer.of(matrix).floats().put(0, filters, p * in * out, in * out);
          arrange(
              Native.floats(matrix),
              new long[] {in, out},
              new long[] {out, 1},
              layout,
              Native.address(all) + p * layout.step());
        }
      }
      copies.put(part, all);
    }
    return Native.address(all);
  }

  private synchronized long copy(
      Array weight, long address, long[] dims, long[] strides, Layout layout) {
    Part part =
        new Part(
            address - HostBuffer.of(weight).address(),
            strides == null ? 0 : strides[0],
            strides == null ? 0 : strides[1],
            layout);
    Array copy = copies.get(part);
    if (copy == null) {
      copy = allocate(layout.bytes);
      arrange(address, dims, strides, layout, Native.address(copy));
      copies.put(part, copy);
    }
    return Native.address(copy);
  }

  private Array allocate(long bytes) {
    try (Scope scope = Scope.open()) {
      Array array =
          new Array(memory.allocate(bytes), 0, Shape.of(Math.toIntExact(bytes)), DType.U8);
      return Scope.detach(array);
    }
  }

  private static void arrange(long from, long[] dims, long[] strides, Layout layout, long to) {
    try (DnnlBuilder builder = new DnnlBuilder(Dnnl.here())) {
      dnnl_memory_desc plain =
          strides == null ? builder.dense(dims) : builder.strided(dnnl_f32, dims, strides);
      dnnl_primitive_desc pd = builder.descriptor();
      Dnnl.check(
          dnnl_reorder_primitive_desc_create(
              pd, plain, Dnnl.engine(), layout.md, Dnnl.engine(), builder.attributes()),
          "weight layout");
      Dnnl.Kernel kernel =
          builder.argument(DNNL_ARG_FROM, plain).argument(DNNL_ARG_TO, layout.md).make(pd);
      kernel.run(from, to);
      kernel.destroy();
    }
  }

  @Override
  public synchronized void free() {
    copies.values().forEach(Array::release);
    copies.clear();
  }
}
