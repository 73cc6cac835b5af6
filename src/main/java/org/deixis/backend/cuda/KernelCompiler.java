package org.deixis.backend.cuda;

import org.bytedeco.javacpp.BytePointer;

/** Turns a kernel file into what the driver loads. */
public interface KernelCompiler {
  /**
   * @param file name of a kernel file without its ending, for example "softmax"
   * @param type 0 for fp32, 1 for fp16, 2 for bf16: what {@code T} is in it
   * @param capability of the device, 90 for 9.0
   * @return an image for {@code cuModuleLoadData}
   * @throws IllegalStateException when it does not compile, with file, line and message
   */
  BytePointer compile(String file, int type, int capability);
}
