package org.deixis.backend.cuda;

import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.core.Env;
import org.deixis.core.InputException;

/** Announces the GPU to the registry. Nothing of CUDA is loaded before somebody asks for it. */
public final class CudaProvider implements Backends.Provider {
  @Override
  public String name() {
    return "cuda";
  }

  /** {@code DEIXIS_GEMM}: "cublaslt" (default), or "plain" for our own kernel. */
  private static boolean cublas() {
    String wanted = Env.get("GEMM", "cublaslt");
    if (!wanted.equals("cublaslt") && !wanted.equals("plain")) {
      throw new InputException("DEIXIS_GEMM is '" + wanted + "': give cublaslt or plain");
    }
    return wanted.equals("cublaslt");
  }

  @Override
  public String missing() {
    String missing = Driver.missing();
    if (missing == null) {
      missing = NvrtcCompiler.missing();
    }
    return missing == null && cublas() ? CublasLtProducts.missing() : missing;
  }

  @Override
  public Backend create() {
    return new CudaBackend(new NvrtcCompiler(), true, cublas());
  }
}
