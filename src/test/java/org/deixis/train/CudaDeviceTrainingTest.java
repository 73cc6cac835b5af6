package org.deixis.train;

import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.testing.Card;
import org.junit.jupiter.api.Tag;

/** The same training steps on a real GPU, beside the oracle's: it needs no library of the CPU's. */
@Tag("gpu")
class CudaDeviceTrainingTest extends CudaTraining {
  @Override
  Backend cuda() {
    return Card.backend();
  }

  @Override
  Backend exact() {
    return Backends.get("reference");
  }
}
