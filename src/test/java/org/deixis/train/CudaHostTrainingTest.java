package org.deixis.train;

import org.deixis.backend.Backend;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.Tag;

/** Training steps that the stand-in driver runs. */
@Tag("cuda-host")
class CudaHostTrainingTest extends CudaTraining {
  @Override
  Backend cuda() {
    return CudaHost.backend();
  }
}
