package org.deixis.data;

import java.util.List;

/**
 * A drawn scene.
 *
 * @param objects in the order in which they were drawn, later ones over earlier ones
 * @param masks the visible pixels of each object
 */
public record Scene(
    RgbImage image, List<SceneObject> objects, List<BitMask> masks, List<Phrase> phrases) {
  /**
   * A phrase and the objects that it names, as indices in ascending order; none for a phrase
   * without a target.
   */
  public record Phrase(String text, List<Integer> targets) {}

  /** The union of the masks of the objects that a phrase names. */
  public BitMask mask(Phrase phrase) {
    return BitMask.union(
        image.height(), image.width(), phrase.targets.stream().map(masks::get).toList());
  }
}
