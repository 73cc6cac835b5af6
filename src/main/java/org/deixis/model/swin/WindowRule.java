package org.deixis.model.swin;

/** How windows meet a map that is not made of whole ones. */
public enum WindowRule {
  /**
   * timm: a window larger than the map becomes the map, on each axis by itself, and is then not
   * shifted. What is left over is padded at the end, after the cyclic shift.
   */
  SHRINK,
  /** timm with always_partition: windows and shifts stay as configured; padding as in SHRINK. */
  PAD,
  /** Detectron2 and the published ReLA code: as PAD, but padded before the cyclic shift. */
  PAD_FIRST
}
