package org.deixis.data;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;
import org.deixis.core.InputException;

/** A phrase about a picture, with the masks of the objects that it names. */
public final class Sample {
  /** How many objects the phrase names. */
  public enum Kind {
    SINGLE,
    MULTI,
    NONE
  }

  private final Picture picture;
  private final String phrase;
  private final long refId;
  private final String split;
  private final String record;
  private final List<Supplier<BitMask>> instances;

  /**
   * @param record where the sample comes from (file and entry), for messages
   * @param instances one source of a mask per object, each at the picture's size; none for a phrase
   *     without a target. May be called from any thread, more than once.
   */
  public Sample(
      Picture picture,
      String phrase,
      long refId,
      String split,
      String record,
      List<Supplier<BitMask>> instances) {
    if (phrase.isBlank()) {
      throw new InputException(record + ": empty phrase; give it words or remove the record");
    }
    this.picture = picture;
    this.phrase = phrase;
    this.refId = refId;
    this.split = split;
    this.record = record;
    this.instances = List.copyOf(instances);
  }

  public Picture picture() {
    return picture;
  }

  public Path imagePath() {
    return picture.path();
  }

  public long imageId() {
    return picture.id();
  }

  public String phrase() {
    return phrase;
  }

  public long refId() {
    return refId;
  }

  public String split() {
    return split;
  }

  /** Where the sample comes from: file and entry. */
  public String record() {
    return record;
  }

  public boolean noTarget() {
    return instances.isEmpty();
  }

  public Kind kind() {
    return switch (instances.size()) {
      case 0 -> Kind.NONE;
      case 1 -> Kind.SINGLE;
      default -> Kind.MULTI;
    };
  }

  public int instanceCount() {
    return instances.size();
  }

  /**
   * The union of the objects' masks at the picture's size; all zeros when there is no target.
   * Decoded anew at every call: a mask in memory is a hundred times its code.
   *
   * @throws InputException when a mask is damaged or has another size than the picture
   */
  public BitMask mask() {
    int height = picture.height();
    int width = picture.width();
    List<BitMask> masks = new ArrayList<>(instances.size());
    for (Supplier<BitMask> instance : instances) {
      BitMask mask;
      try {
        mask = instance.get();
      } catch (InputException e) {
        throw new InputException(record + ": " + e.getMessage(), e);
      }
      if (mask.height() != height || mask.width() != width) {
        throw new InputException(
            "%s: mask is %dx%d, its picture %dx%d"
                .formatted(record, mask.width(), mask.height(), width, height));
      }
      masks.add(mask);
    }
    return masks.size() == 1 ? masks.get(0) : BitMask.union(height, width, masks);
  }

  @Override
  public String toString() {
    return record + " '" + phrase + "'";
  }
}
