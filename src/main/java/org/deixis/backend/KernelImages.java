package org.deixis.backend;

/** What a backend also is whose kernels are compiled on the machine where they run. */
public interface KernelImages {
  /**
   * Compiles all kernels that calls would else compile at their first use, and keeps them for later
   * processes.
   *
   * @param threads that compile side by side
   * @return how many files were gone through
   * @throws IllegalStateException when one does not compile
   */
  int compileKernels(int threads);
}
