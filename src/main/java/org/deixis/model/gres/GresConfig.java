package org.deixis.model.gres;

import java.util.List;
import org.deixis.model.bert.TextConfig;
import org.deixis.model.swin.SwinConfig;

/**
 * The whole model.
 *
 * @param dim width D of regions and of the pyramid
 * @param maskDim channels of the mask features
 * @param regions P: 4, 8, 16 or 100; with {@code adaptive} the most that a batch may use
 * @param adaptive whether a batch uses 4, 8 or 16 regions by its pictures' complexity
 * @param layers stacked pairs of region-image and region-language attention
 * @param heads heads of the multi-head attentions
 * @param fusionLevels pyramid levels (0 the finest) whose pixels read the words
 * @param normGroups groups of the mask features' GroupNorm
 */
public record GresConfig(
    SwinConfig vision,
    TextConfig text,
    int dim,
    int maskDim,
    int regions,
    boolean adaptive,
    int layers,
    int heads,
    List<Integer> fusionLevels,
    int normGroups) {}
