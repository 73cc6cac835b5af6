package org.deixis.backend.cuda;

import java.util.List;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.core.Env;
import org.deixis.core.InputException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Announces the GPU to the registry. Nothing of CUDA is loaded before somebody asks for it. */
public final class CudaProvider implements Backends.Provider {
  private static final Logger LOG = LoggerFactory.getLogger(CudaProvider.class);

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

  /** {@code DEIXIS_CONV}: "cudnn", "im2col", or by default whichever there is, in this order. */
  private static String convolutions() {
    String wanted = Env.get("CONV", "");
    if (!List.of("", "cudnn", "im2col").contains(wanted)) {
      throw new InputException("DEIXIS_CONV is '" + wanted + "': give cudnn or im2col");
    }
    return wanted;
  }

  @Override
  public String missing() {
    String missing = Driver.missing();
    if (missing == null) {
      missing = NvrtcCompiler.missing();
    }
    if (missing == null && cublas()) {
      missing = CublasLtProducts.missing();
    }
    return missing == null && convolutions().equals("cudnn")
        ? CudnnConvolutions.missing()
        : missing;
  }

  @Override
  public String note() {
    if (!convolutions().isEmpty()) {
      return null;
    }
    String missing = CudnnConvolutions.missing();
    return missing == null ? null : "convolutions by im2col: " + missing;
  }

  @Override
  public List<Backends.NativeLibrary> libraries() {
    // The bindings first: their loader looks in CUDA's own folders too.
    Driver.missing();
    NvrtcCompiler.missing();
    CublasLtProducts.missing();
    CudnnConvolutions.missing();
    return CudaLibraries.all();
  }

  @Override
  public Backend create() {
    String note = note();
    if (note != null) {
      LOG.warn("{}", note);
    }
    return new CudaBackend(
        new NvrtcCompiler(), true, cublas(), note == null && !convolutions().equals("im2col"));
  }
}
