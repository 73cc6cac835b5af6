package org.deixis.train;

import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.junit.jupiter.api.Tag;

/** The same training steps on a real GPU. */
@Tag("gpu")
class CudaDeviceTrainingTest extends CudaHostTrainingTest {
  @Override
  Backend cuda() {
    return Backends.get("cuda");
  }
}
