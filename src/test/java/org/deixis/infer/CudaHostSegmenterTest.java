package org.deixis.infer;

import org.deixis.backend.Backend;
import org.deixis.testing.CudaHost;
import org.junit.jupiter.api.Tag;

/** Replayed answers on the stand-in driver, which does nothing while it captures. */
@Tag("cuda-host")
class CudaHostSegmenterTest extends CudaSegmenter {
  @Override
  Backend cuda() {
    return CudaHost.backend();
  }
}
