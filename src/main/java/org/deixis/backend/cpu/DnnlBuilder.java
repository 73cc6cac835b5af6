package org.deixis.backend.cpu;

import static org.bytedeco.dnnl.global.dnnl.*;

import java.util.ArrayList;
import java.util.List;
import org.bytedeco.dnnl.dnnl_memory;
import org.bytedeco.dnnl.dnnl_memory_desc;
import org.bytedeco.dnnl.dnnl_post_ops;
import org.bytedeco.dnnl.dnnl_primitive;
import org.bytedeco.dnnl.dnnl_primitive_attr;
import org.bytedeco.dnnl.dnnl_primitive_desc;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerPointer;
import org.deixis.core.DType;

/**
 * Makes one primitive: collects its memory descriptors and attributes, and gives back what the
 * primitive does not need once it exists.
 */
final class DnnlBuilder implements AutoCloseable {
  private final Dnnl owner;
  private final List<dnnl_memory_desc> descriptors = new ArrayList<>();
  private final List<dnnl_primitive_desc> primitives = new ArrayList<>();
  private final dnnl_primitive_attr attributes = new dnnl_primitive_attr();
  private final dnnl_post_ops postOps = new dnnl_post_ops();
  private final List<Integer> ids = new ArrayList<>();
  private final List<dnnl_memory_desc> arguments = new ArrayList<>();

  DnnlBuilder(Dnnl owner) {
    this.owner = owner;
    Dnnl.check(dnnl_primitive_attr_create(attributes), "attributes");
    Dnnl.check(dnnl_post_ops_create(postOps), "post-operations");
    Dnnl.check(
        dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user),
        "scratchpad mode");
  }

  /** oneDNN's number for an element type. */
  static int type(DType dtype) {
    return switch (dtype) {
      case F64 -> dnnl_f64;
      case F32 -> dnnl_f32;
      case F16 -> dnnl_f16;
      case BF16 -> dnnl_bf16;
      case I32 -> dnnl_s32;
      case I8 -> dnnl_s8;
      case U8, BOOL -> dnnl_u8;
      default -> throw new IllegalStateException("oneDNN has no element type " + dtype);
    };
  }

  /** A layout with the given distances, in elements, between neighbours along each axis. */
  dnnl_memory_desc strided(int type, long[] dims, long[] strides) {
    dnnl_memory_desc md = new dnnl_memory_desc();
    Dnnl.check(
        dnnl_memory_desc_create_with_strides(md, dims.length, dims, type, strides),
        "memory descriptor");
    descriptors.add(md);
    return md;
  }

  /** Row-major floats. */
  dnnl_memory_desc dense(long... dims) {
    long[] strides = new long[dims.length];
    long stride = 1;
    for (int i = dims.length - 1; i >= 0; i--) {
      strides[i] = stride;
      stride *= Math.max(1, dims[i]);
    }
    return strided(dnnl_f32, dims, strides);
  }

  /** Floats in a layout that oneDNN chooses. */
  dnnl_memory_desc any(long... dims) {
    return any(DType.F32, dims);
  }

  /** Elements in a layout that oneDNN chooses. */
  dnnl_memory_desc any(DType type, long... dims) {
    dnnl_memory_desc md = new dnnl_memory_desc();
    Dnnl.check(
        dnnl_memory_desc_create_with_tag(md, dims.length, dims, type(type), dnnl_format_tag_any),
        "memory descriptor");
    descriptors.add(md);
    return md;
  }

  DnnlBuilder thenEltwise(int algorithm, float alpha, float beta) {
    Dnnl.check(
        dnnl_post_ops_append_eltwise(postOps, algorithm, alpha, beta),
        "elementwise post-operation");
    return this;
  }

  DnnlBuilder thenBinary(int algorithm, dnnl_memory_desc other) {
    Dnnl.check(dnnl_post_ops_append_binary(postOps, algorithm, other), "binary post-operation");
    return this;
  }

  /** Adds {@code scale} times what the result's memory held. */
  DnnlBuilder thenSum(float scale) {
    Dnnl.check(
        dnnl_post_ops_append_sum(postOps, scale, 0, dnnl_data_type_undef), "sum post-operation");
    return this;
  }

  /** Attributes with the post-operations given so far. */
  dnnl_primitive_attr attributes() {
    Dnnl.check(dnnl_primitive_attr_set_post_ops(attributes, postOps), "post-operations");
    return attributes;
  }

  /** A primitive descriptor to be filled by a creating call, destroyed with this builder. */
  dnnl_primitive_desc descriptor() {
    dnnl_primitive_desc pd = new dnnl_primitive_desc();
    primitives.add(pd);
    return pd;
  }

  /** Adds an argument; its index is the number of arguments before it. */
  DnnlBuilder argument(int id, dnnl_memory_desc md) {
    ids.add(id);
    arguments.add(md);
    return this;
  }

  int count() {
    return ids.size();
  }

  /** The layout that the primitive chose where {@link #any} was asked for. */
  static dnnl_memory_desc chosen(dnnl_primitive_desc pd, int query) {
    return dnnl_primitive_desc_query_md(pd, query, 0);
  }

  /** Name of the implementation that oneDNN chose; those with "ref" are slow. */
  static String implementation(dnnl_primitive_desc pd) {
    try (PointerPointer<BytePointer> name = new PointerPointer<>(1)) {
      Dnnl.check(
          dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, name), "implementation name");
      return name.get(BytePointer.class, 0).getString();
    }
  }

  /** The primitive, kept under the key that its owner's last look-up filled. */
  Dnnl.Kernel build(dnnl_primitive_desc pd) {
    return owner.put(make(pd));
  }

  /** The primitive, which belongs to the caller; the arguments given so far are used up. */
  Dnnl.Kernel make(dnnl_primitive_desc pd) {
    dnnl_memory_desc scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    long bytes = scratch == null ? 0 : dnnl_memory_desc_get_size(scratch);
    int slot = -1;
    if (bytes > 0) {
      slot = ids.size();
      argument(DNNL_ARG_SCRATCHPAD, scratch);
    }
    dnnl_primitive primitive = new dnnl_primitive();
    Dnnl.check(dnnl_primitive_create(primitive, pd), "primitive");
    dnnl_memory[] memories = new dnnl_memory[ids.size()];
    int[] numbers = new int[ids.size()];
    for (int i = 0; i < memories.length; i++) {
      memories[i] = new dnnl_memory();
      numbers[i] = ids.get(i);
      Dnnl.check(
          dnnl_memory_create(memories[i], arguments.get(i), Dnnl.engine(), (Pointer) null),
          "memory");
    }
    if (System.getProperty("dnnl.trace") != null) {
      System.err.println("oneDNN " + implementation(pd));
    }
    ids.clear();
    arguments.clear();
    return new Dnnl.Kernel(owner, primitive, numbers, memories, bytes, slot);
  }

  @Override
  public void close() {
    primitives.forEach(
        pd -> {
          if (!pd.isNull()) {
            dnnl_primitive_desc_destroy(pd);
          }
        });
    descriptors.forEach(md -> dnnl_memory_desc_destroy(md));
    dnnl_post_ops_destroy(postOps);
    dnnl_primitive_attr_destroy(attributes);
  }
}
