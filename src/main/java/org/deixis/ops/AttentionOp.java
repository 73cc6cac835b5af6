package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Attention;
import org.deixis.backend.Backend;
import org.deixis.core.DType;

/**
 * Multi-head attention over short sequences, read from packed projections; formula in {@link
 * Attention}.
 */
public final class AttentionOp {
  public static final String SELF = "self_attention";
  public static final String CROSS = "cross_attention";

  private AttentionOp() {}

  /** qkv (B, T, 3C); mask I32 (B, T), 0 = padding, or null. Result (B, T, C). */
  public static Variable self(Variable qkv, Variable mask, int heads) {
    Backend k = Check.floating(SELF, qkv);
    Check.that(
        qkv.shape().rank() == 3 && qkv.shape().dim(2) % (3 * heads) == 0 && fits(mask, qkv, 1),
        SELF,
        "qkv (B, T, 3C) with C divisible by " + heads + " heads, mask I32 (B, T) or none",
        qkv,
        mask);
    int c = qkv.shape().dim(2) / 3;
    Attention spec = Attention.self(qkv.shape().dim(0), heads, qkv.shape().dim(1), c / heads);
    Array y = Check.make(qkv, spec.batch(), spec.queries(), c);
    Array lse =
        Tape.records(qkv) ? Check.statistics(qkv, spec.batch(), heads, spec.queries()) : null;
    Array m = Check.array(mask);
    k.attention(spec, qkv.array(), qkv.array(), qkv.array(), m, y, lse);
    return Tape.record(
        SELF,
        Check.inputs(qkv),
        y,
        Check.saved(qkv.array(), m, y, lse),
        ctx -> {
          Array x = ctx.saved(0);
          Array dx = Check.like(x);
          k.attentionBackward(
              spec, x, x, x, ctx.saved(1), ctx.saved(2), ctx.saved(3), ctx.gradient(0), dx, dx, dx);
          ctx.give(0, dx);
        });
  }

  /** q (B, Tq, C), kv (B, Tk, 2C); mask I32 (B, Tk) or null. Result (B, Tq, C). */
  public static Variable cross(Variable q, Variable kv, Variable mask, int heads) {
    Backend k = Check.floating(CROSS, q, kv);
    Check.that(
        q.shape().rank() == 3
            && kv.shape().rank() == 3
            && kv.shape().dim(0) == q.shape().dim(0)
            && kv.shape().dim(2) == 2 * q.shape().dim(2)
            && q.shape().dim(2) % heads == 0
            && fits(mask, kv, 1),
        CROSS,
        "q (B, Tq, C), kv (B, Tk, 2C) with C divisible by "
            + heads
            + " heads, mask I32 (B, Tk) or none",
        q,
        kv,
        mask);
    int c = q.shape().dim(2);
    Attention spec =
        Attention.cross(q.shape().dim(0), heads, q.shape().dim(1), kv.shape().dim(1), c / heads);
    Array y = Check.like(q);
    Array lse =
        Tape.records(q, kv) ? Check.statistics(q, spec.batch(), heads, spec.queries()) : null;
    Array m = Check.array(mask);
    k.attention(spec, q.array(), kv.array(), kv.array(), m, y, lse);
    return Tape.record(
        CROSS,
        Check.inputs(q, kv),
        y,
        Check.saved(q.array(), kv.array(), m, y, lse),
        ctx -> {
          Array words = ctx.saved(1);
          Array dq = Check.like(ctx.saved(0));
          Array dkv = Check.like(words);
          k.attentionBackward(
              spec,
              ctx.saved(0),
              words,
              words,
              ctx.saved(2),
              ctx.saved(3),
              ctx.saved(4),
              ctx.gradient(0),
              dq,
              dkv,
              dkv);
          if (ctx.needs(0)) {
            ctx.give(0, dq);
          }
          if (ctx.needs(1)) {
            ctx.give(1, dkv);
          }
        });
  }

  private static boolean fits(Variable mask, Variable of, int axis) {
    return mask == null
        || mask.dtype() == DType.I32
            && mask.shape().rank() == 2
            && mask.shape().dim(0) == of.shape().dim(0)
            && mask.shape().dim(1) == of.shape().dim(axis);
  }
}
