package org.deixis.model.gres;

import java.util.List;
import org.deixis.backend.Scope;
import org.deixis.tensor.Tensor;

/**
 * What the model keeps of pictures, for any number of phrases about them.
 *
 * @param laterals maps (I, ⌈H/4⌉, ⌈W/4⌉, D) to (I, ⌈H/32⌉, ⌈W/32⌉, D), finest first
 * @param height of the pictures that went in, in pixels
 */
public record PictureEncoding(List<Tensor> laterals, int height, int width) {
  public int pictures() {
    return laterals.get(0).dim(0);
  }

  /** Lets the scope around {@code scope} own it too. */
  public PictureEncoding keep(Scope scope) {
    laterals.forEach(t -> t.keep(scope));
    return this;
  }
}
