package org.deixis.backend;

/**
 * Loss of low-resolution mask logits (B, h, w) against full-resolution bitmaps (B, H, W), the
 * logits up-sampled bilinearly (align_corners = false) on the fly. For each picture b it is
 *
 * <p>{@code mean over pixels of e(z, t) + diceWeight · (1 − (2Σpt + 1) / (Σp + Σt + 1))}, p =
 * sigmoid(z),
 *
 * <p>where e is the binary cross-entropy, or with {@code focal} alpha·(1 − exp(−bce))^gamma·bce
 * (Lin et al., "Focal loss for dense object detection", ICCV 2017, with one alpha for both
 * classes).
 */
public record MaskLoss(
    int batch,
    int lowHeight,
    int lowWidth,
    int height,
    int width,
    boolean focal,
    float alpha,
    float gamma,
    float diceWeight) {}
