package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;

/**
 * Region-image attention of ReLA (Liu et al., "GRES", CVPR 2023, section 4): softmax(q kᵀ/√D) v,
 * and its map.
 */
public final class RegionAttention {
  public static final String NAME = "region_attention";

  private RegionAttention() {}

  /** q (B, P, D), k and v (B, N, D). Two outputs: y (B, P, D) and the attention map (B, P, N). */
  public static Variable[] apply(Variable q, Variable key, Variable value) {
    Backend k = Check.floating(NAME, q, key, value);
    Check.that(
        q.shape().rank() == 3
            && key.shape().rank() == 3
            && key.shape().equals(value.shape())
            && key.shape().dim(0) == q.shape().dim(0)
            && key.shape().dim(2) == q.shape().dim(2)
            && key.shape().dim(1) > 0,
        NAME,
        "q (B, P, D), k and v (B, N, D)",
        q,
        key,
        value);
    int batch = q.shape().dim(0);
    int regions = q.shape().dim(1);
    int dim = q.shape().dim(2);
    int pixels = key.shape().dim(1);
    float scale = (float) (1 / Math.sqrt(dim));
    Array y = Check.like(q);
    Array map = Check.make(q, batch, regions, pixels);
    k.regionAttention(
        batch, regions, pixels, dim, scale, q.array(), key.array(), value.array(), y, map);
    return Tape.record(
        NAME,
        Check.inputs(q, key, value),
        new Array[] {y, map},
        Check.saved(q.array(), key.array(), value.array(), map),
        c -> {
          Array dy = c.gradient(0);
          if (dy == null) {
            dy = Check.like(c.saved(0));
            k.fill(dy, 0);
          }
          Array dq = Check.like(c.saved(0));
          Array dk = Check.like(c.saved(1));
          Array dv = Check.like(c.saved(2));
          k.regionAttentionBackward(
              batch,
              regions,
              pixels,
              dim,
              scale,
              c.saved(0),
              c.saved(1),
              c.saved(2),
              c.saved(3),
              dy,
              c.gradient(1),
              dq,
              dk,
              dv);
          Array[] gradients = {dq, dk, dv};
          for (int i = 0; i < 3; i++) {
            if (c.needs(i)) {
              c.give(i, gradients[i]);
            }
          }
        });
  }
}
