package org.deixis.backend.cuda;

import org.deixis.backend.Backend;
import org.deixis.backend.Backends;

/** Announces the GPU to the registry. Nothing of CUDA is loaded before somebody asks for it. */
public final class CudaProvider implements Backends.Provider {
  @Override
  public String name() {
    return "cuda";
  }

  @Override
  public String missing() {
    String driver = Driver.missing();
    return driver == null ? NvrtcCompiler.missing() : driver;
  }

  @Override
  public Backend create() {
    return new CudaBackend(new NvrtcCompiler(), true);
  }
}
