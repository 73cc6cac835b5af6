package org.deixis.train;

import java.util.ArrayList;
import java.util.List;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.core.DType;
import org.deixis.core.Shape;
import org.deixis.data.Batch;
import org.deixis.model.bert.TextBatch;
import org.deixis.model.bert.Tokens;
import org.deixis.model.gres.GuideModel;
import org.deixis.model.gres.RegionGrid;
import org.deixis.tensor.Tensor;

/**
 * One micro-batch on the device: what a step reads of it, and where it leaves its losses.
 *
 * @param pixels U8 (I, H, W, 3)
 * @param masks U8 (B, H, W)
 * @param isNegative F32 (B)
 * @param regions P that the model predicts with
 * @param losses F32 (4): total, mask, region, no-target
 * @param perExpression F32 (B)
 */
record MicroBatch(
    Tensor pixels,
    TextBatch text,
    Tensor masks,
    Tensor isNegative,
    int regions,
    Array losses,
    Array perExpression) {
  static final int TERMS = 4;

  /** Copies a batch to new arrays of the current scope. */
  static MicroBatch of(Backend backend, GuideModel model, Batch b) {
    return new MicroBatch(
        Tensor.bytes(backend, b.pixels(), b.images(), b.height(), b.width(), 3),
        model.upload(tokens(b)),
        Tensor.bytes(backend, b.masks(), b.expressions(), b.height(), b.width()),
        Tensor.floats(backend, b.isNegative(), b.expressions()),
        regions(model, b),
        backend.allocate(Shape.of(TERMS), DType.F32),
        backend.allocate(Shape.of(b.expressions()), DType.F32));
  }

  static int regions(GuideModel model, Batch b) {
    return model.config().adaptive()
        ? RegionGrid.regionsFor(b.complexity())
        : model.config().regions();
  }

  /** Overwrites it with another batch of the same shape. */
  void set(GuideModel model, Batch b) {
    pixels.set(b.pixels());
    model.upload(tokens(b), text);
    masks.set(b.masks());
    isNegative.set(b.isNegative());
  }

  private static Tokens tokens(Batch b) {
    return new Tokens(b.ids(), b.textMask(), b.expressions(), b.tokens());
  }

  /** Where it leaves loss term {@code i}. */
  Array loss(int i) {
    return losses.slice(i, i + 1);
  }

  /** All its arrays. */
  List<Array> arrays() {
    List<Array> all = new ArrayList<>();
    for (Tensor t :
        new Tensor[] {pixels, text.ids(), text.mask(), text.padding(), masks, isNegative}) {
      all.add(t.array());
    }
    if (text.positions() != null) {
      all.add(text.positions().array());
    }
    all.add(losses);
    all.add(perExpression);
    return all;
  }
}
