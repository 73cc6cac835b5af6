package org.deixis.train;

import org.deixis.backend.Backend;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.Tag;

/** Replayed steps on the stand-in driver, which does nothing while it captures. */
@Tag("cuda-host")
class CudaHostGraphTest extends CudaStepGraphs {
  @Override
  Backend cuda() {
    return CudaHost.backend();
  }
}
