package org.deixis.infer;

import java.util.List;
import org.deixis.data.BitMask;
import org.deixis.data.Box;

/**
 * What one phrase points at in one picture.
 *
 * @param phrase as it was asked
 * @param mask the answer, of the picture's size; all zeros where the phrase points at nothing
 * @param evidence the mask that the model drew, whatever it says about there being a target; the
 *     same object as {@code mask} unless {@code saysNoTarget}
 * @param noTarget probability that the phrase points at nothing
 * @param saysNoTarget whether that probability reaches the threshold
 * @param regions probability of each region, the cells of a grid in row-major order, that the
 *     phrase points there
 * @param regionRows rows of that grid
 * @param box around the whole mask, or null where it is empty
 * @param boxes around its connected parts of at least a hundredth of its area, largest first
 */
public record Segmentation(
    String phrase,
    BitMask mask,
    BitMask evidence,
    double noTarget,
    boolean saysNoTarget,
    List<Double> regions,
    int regionRows,
    Box box,
    List<Box> boxes) {}
