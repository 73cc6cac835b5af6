package org.deixis.infer;

import org.deixis.backend.Backend;
import org.deixis.testing.Card;
import org.junit.jupiter.api.Tag;

/** Replayed answers on a real GPU. */
@Tag("gpu")
class CudaDeviceSegmenterTest extends CudaSegmenter {
  @Override
  Backend cuda() {
    return Card.backend();
  }
}
