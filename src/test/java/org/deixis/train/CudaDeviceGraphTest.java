package org.deixis.train;

import org.deixis.backend.Backend;
import org.deixis.testing.Card;
import org.junit.jupiter.api.Tag;

/** Replayed steps on a real GPU. */
@Tag("gpu")
class CudaDeviceGraphTest extends CudaStepGraphs {
  @Override
  Backend cuda() {
    return Card.backend();
  }
}
