package org.deixis.backend.cpu;

import org.deixis.backend.Backend;
import org.deixis.backend.Backends;

/** Announces the CPU to the registry. */
public final class CpuProvider implements Backends.Provider {
  @Override
  public String name() {
    return "cpu";
  }

  @Override
  public String missing() {
    if (ModuleLayer.boot().findModule("jdk.incubator.vector").isEmpty()) {
      return "the JDK's Vector API is not there; start java with --add-modules"
          + " jdk.incubator.vector, as the launcher deixis does";
    }
    try {
      Dnnl.engine();
    } catch (LinkageError | RuntimeException e) {
      Throwable cause = e;
      while (cause.getCause() != null) {
        cause = cause.getCause();
      }
      return "oneDNN cannot be loaded ("
          + cause.getClass().getSimpleName()
          + ": "
          + cause.getMessage()
          + "); put the jars dnnl, opencl and javacpp of this platform on the class path";
    }
    return null;
  }

  @Override
  public Backend create() {
    CpuBackend cpu = new CpuBackend();
    return HalfStorage.over(cpu, cpu.pool(), CpuBackend.HALF_METHODS);
  }
}
