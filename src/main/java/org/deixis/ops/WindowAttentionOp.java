package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.WindowAttention;

/**
 * Windowed multi-head attention of a packed qkv map; layouts and formula are {@link
 * WindowAttention}'s.
 */
public final class WindowAttentionOp {
  public static final String NAME = "window_attention";

  private WindowAttentionOp() {}

  /**
   * @param qkv (B, H, W, 3C)
   * @param bias (3C), the projection's bias, which padded positions take; null means zeros
   * @param table ((2·windowH−1)(2·windowW−1), heads)
   */
  public static Variable apply(
      Variable qkv,
      Variable bias,
      Variable table,
      int heads,
      int windowH,
      int windowW,
      int shiftH,
      int shiftW,
      boolean padFirst) {
    Backend k = Check.floating(NAME, qkv, bias, table);
    Check.that(
        qkv.shape().rank() == 4
            && qkv.shape().dim(3) % (3 * heads) == 0
            && (bias == null || bias.shape().size() == qkv.shape().dim(3))
            && table.shape().rank() == 2
            && table.shape().dim(0) == (2 * windowH - 1) * (2 * windowW - 1)
            && table.shape().dim(1) == heads
            && shiftH < windowH
            && shiftW < windowW,
        NAME,
        "qkv (B, H, W, 3·heads·headDim), bias (3C), table ((2wh−1)(2ww−1), heads) for "
            + heads
            + " heads and a window of "
            + windowH
            + "×"
            + windowW,
        qkv,
        bias,
        table);
    int channels = qkv.shape().dim(3) / 3;
    WindowAttention spec =
        new WindowAttention(
            qkv.shape().dim(0),
            qkv.shape().dim(1),
            qkv.shape().dim(2),
            heads,
            channels / heads,
            windowH,
            windowW,
            shiftH,
            shiftW,
            padFirst);
    boolean recorded = Tape.records(qkv, bias, table);
    Array y = Check.make(qkv, spec.batch(), spec.height(), spec.width(), channels);
    Array lse =
        recorded
            ? Check.statistics(qkv, spec.batch(), spec.windows(), heads, windowH * windowW)
            : null;
    k.windowAttention(spec, qkv.array(), Check.array(bias), table.array(), y, lse);
    return Tape.record(
        NAME,
        Check.inputs(qkv, bias, table),
        y,
        Check.saved(qkv.array(), Check.array(bias), table.array(), y, lse),
        c -> {
          Array dqkv = Check.like(c.saved(0));
          Array dBias = c.saved(1) == null ? null : Check.like(c.saved(1));
          Array dTable = Check.like(c.saved(2));
          k.windowAttentionBackward(
              spec,
              c.saved(0),
              c.saved(1),
              c.saved(2),
              c.saved(3),
              c.saved(4),
              c.gradient(0),
              dqkv,
              dBias,
              dTable);
          if (c.needs(0)) {
            c.give(0, dqkv);
          }
          if (c.needs(1)) {
            c.give(1, dBias);
          }
          if (c.needs(2)) {
            c.give(2, dTable);
          }
        });
  }
}
