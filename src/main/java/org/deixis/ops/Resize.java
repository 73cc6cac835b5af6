package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Reduction;

/**
 * Bilinear resizing of maps (N, H, W, C), align_corners = false, alone or added to a lateral map.
 */
public final class Resize {
  public static final String NAME = "resize";
  public static final String ADD = "upsample_add";

  private Resize() {}

  public static Variable apply(Variable x, int height, int width) {
    Backend k = Check.floating(NAME, x);
    Check.that(
        x.shape().rank() == 4
            && x.shape().dim(1) > 0
            && x.shape().dim(2) > 0
            && height > 0
            && width > 0,
        NAME,
        "x must be (N, H, W, C) with pixels, and the target have some",
        x);
    int n = x.shape().dim(0);
    int h = x.shape().dim(1);
    int w = x.shape().dim(2);
    int ch = x.shape().dim(3);
    Array y = Check.make(x, n, height, width, ch);
    k.resize(n, h, w, ch, height, width, false, x.array(), y);
    return Tape.record(
        NAME,
        Check.inputs(x),
        y,
        Check.saved(),
        c -> {
          Array dx = Check.like(x);
          k.resizeBackward(n, h, w, ch, height, width, c.gradient(0), dx);
          c.give(0, dx);
        });
  }

  /**
   * y[b] = lateral[b div share] + resize(coarse[b]): the feature pyramid's step, with {@code share}
   * = B/I expressions reading one picture's lateral map. lateral (I, H, W, C), coarse (B, h, w, C)
   * or null for none; result (B, H, W, C).
   */
  public static Variable add(Variable lateral, Variable coarse, int share) {
    Backend k = Check.floating(ADD, lateral, coarse);
    Check.that(
        lateral.shape().rank() == 4
            && share > 0
            && (coarse == null
                || coarse.shape().rank() == 4
                    && coarse.shape().dim(0) == lateral.shape().dim(0) * share
                    && coarse.shape().dim(3) == lateral.shape().dim(3)),
        ADD,
        "lateral (I, H, W, C) and coarse (I·" + share + ", h, w, C) or none",
        lateral,
        coarse);
    int images = lateral.shape().dim(0);
    int height = lateral.shape().dim(1);
    int width = lateral.shape().dim(2);
    int ch = lateral.shape().dim(3);
    int batch = images * share;
    int inner = height * width * ch;
    Array y = Check.make(lateral, batch, height, width, ch);
    k.repeat(images, share, inner, lateral.array(), y);
    if (coarse != null) {
      k.resize(
          batch,
          coarse.shape().dim(1),
          coarse.shape().dim(2),
          ch,
          height,
          width,
          true,
          coarse.array(),
          y);
    }
    return Tape.record(
        ADD,
        Check.inputs(lateral, coarse),
        y,
        Check.saved(),
        c -> {
          if (c.needs(0)) {
            Array d = Check.like(lateral);
            k.reduce(Reduction.SUM, images, share, inner, c.gradient(0), d);
            c.give(0, d);
          }
          if (c.needs(1)) {
            Array d = Check.like(coarse);
            k.resizeBackward(
                batch,
                coarse.shape().dim(1),
                coarse.shape().dim(2),
                ch,
                height,
                width,
                c.gradient(0),
                d);
            c.give(1, d);
          }
        });
  }
}
