package org.deixis.backend.cuda;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import org.bytedeco.cuda.global.nvrtc;
import org.bytedeco.cuda.nvrtc._nvrtcProgram;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.PointerPointer;
import org.bytedeco.javacpp.SizeTPointer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Compiles kernel files, which are resources, for the device at hand with NVRTC. What was compiled
 * is kept in {@code DEIXIS_CACHE} (default {@code ~/.cache/deixis}), keyed by source, options and
 * version, so that a second start compiles nothing.
 */
public final class NvrtcCompiler implements KernelCompiler {
  /** What kernel files include. */
  static final List<String> HEADERS =
      List.of(
          "attention_tiles.cuh",
          "common.cuh",
          "loss.cuh",
          "mma.cuh",
          "region.cuh",
          "tiles.cuh",
          "window.cuh",
          "window_tiles.cuh",
          "window_large.cuh");

  private static final Logger LOG = LoggerFactory.getLogger(NvrtcCompiler.class);

  private final Path cache;
  private final AtomicBoolean told = new AtomicBoolean();

  public NvrtcCompiler() {
    this(DiskCache.folder());
  }

  /**
   * @param cache folder of compiled kernels; made if it is not there
   */
  public NvrtcCompiler(Path cache) {
    this.cache = cache;
  }

  /** Null when NVRTC can be loaded, else what is missing. */
  static String missing() {
    try {
      Loader.load(nvrtc.class);
      return null;
    } catch (LinkageError | RuntimeException e) {
      return "NVRTC, which compiles the kernels, cannot be loaded ("
          + Driver.reason(e)
          + "); it comes with the CUDA toolkit: put libnvrtc.so."
          + Driver.CUDA
          + " on the library path";
    }
  }

  @Override
  public BytePointer compile(String file, int type, int capability) {
    int[] major = new int[1];

    int[] minor = new int[1];
    check(nvrtc.nvrtcVersion(major, minor), "nvrtcVersion");
    int target = target(capability);
    boolean exact = target == capability;
    List<String> options =
        List.of(
            "--gpu-architecture=" + (exact ? "sm_" : "compute_") + target,
            "--std=c++17",
            "-lineinfo",
            // A lambda with a template of its own is a host function to NVRTC, though not to nvcc.
            "--device-as-default-execution-space",
            "-DDEIXIS_T=" + type);
    String source = resource(file + ".cu");
    List<String> headers = HEADERS.stream().map(NvrtcCompiler::resource).toList();
    Path kept =
        cache.resolve(
            file
                + "-"
                + DiskCache.hash(
                    source,
                    String.join("\0", headers),
                    options.toString(),
                    major[0] + "." + minor[0]));
    byte[] image = DiskCache.sealed(kept);
    if (image == null) {
      if (!told.getAndSet(true)) {
        LOG.info(
            "{} lacks kernels for sm_{}: they are compiled as they are needed, seconds each;"
                + " 'deixis bench --fill-cache --device cuda' compiles all on all cores",
            cache,
            target);
      }
      image = build(file + ".cu", source, headers, options, exact);
      DiskCache.seal(kept, image);
    }
    return new BytePointer(image);
  }

  /** The newest architecture that both NVRTC and the device know. */
  private static int target(int capability) {
    int[] count = new int[1];
    check(nvrtc.nvrtcGetNumSupportedArchs(count), "nvrtcGetNumSupportedArchs");
    int[] known = new int[count[0]];
    check(nvrtc.nvrtcGetSupportedArchs(known), "nvrtcGetSupportedArchs");
    return Arrays.stream(known)
        .filter(a -> a <= capability)
        .max()
        .orElseThrow(
            () ->
                new IllegalStateException(
                    "this NVRTC compiles for compute capability "
                        + Arrays.toString(known)
                        + ", and the device has "
                        + capability
                        + "; use an older CUDA toolkit"));
  }

  /**
   * @param headers text of {@link #HEADERS}, in their order
   */
  static byte[] build(
      String name, String source, List<String> headers, List<String> options, boolean binary) {
    _nvrtcProgram program = new _nvrtcProgram();
    try (BytePointer text = new BytePointer(source, StandardCharsets.UTF_8);
        BytePointer title = new BytePointer(name, StandardCharsets.UTF_8);
        PointerPointer<BytePointer> texts = new PointerPointer<>(headers.toArray(String[]::new));
        PointerPointer<BytePointer> names = new PointerPointer<>(HEADERS.toArray(String[]::new));
        PointerPointer<BytePointer> flags = new PointerPointer<>(options.toArray(String[]::new));
        SizeTPointer size = new SizeTPointer(1)) {
      check(
          nvrtc.nvrtcCreateProgram(program, text, title, headers.size(), texts, names),
          "nvrtcCreateProgram");
      int code = nvrtc.nvrtcCompileProgram(program, options.size(), flags);
      if (code != nvrtc.NVRTC_SUCCESS) {
        check(nvrtc.nvrtcGetProgramLogSize(program, size), "nvrtcGetProgramLogSize");
        byte[] log = new byte[Math.toIntExact(size.get())];
        check(nvrtc.nvrtcGetProgramLog(program, log), "nvrtcGetProgramLog");
        throw new IllegalStateException(
            name
                + " does not compile "
                + options
                + ":\n"
                + new String(log, StandardCharsets.UTF_8));
      }
      byte[] image;
      if (binary) {
        check(nvrtc.nvrtcGetCUBINSize(program, size), "nvrtcGetCUBINSize");
        image = new byte[Math.toIntExact(size.get())];
        check(nvrtc.nvrtcGetCUBIN(program, image), "nvrtcGetCUBIN");
      } else {
        check(nvrtc.nvrtcGetPTXSize(program, size), "nvrtcGetPTXSize");
        image = new byte[Math.toIntExact(size.get())];
        check(nvrtc.nvrtcGetPTX(program, image), "nvrtcGetPTX");
      }
      return image;
    } finally {
      if (!program.isNull()) {
        check(nvrtc.nvrtcDestroyProgram(program), "nvrtcDestroyProgram");
      }
    }
  }

  private static void check(int code, String call) {
    if (code != nvrtc.NVRTC_SUCCESS) {
      throw new IllegalStateException(
          call + " failed: " + nvrtc.nvrtcGetErrorString(code).getString());
    }
  }

  private static String resource(String name) {
    try (InputStream in = NvrtcCompiler.class.getResourceAsStream("/cuda/" + name)) {
      if (in == null) {
        throw new IllegalStateException("the program comes without /cuda/" + name);
      }
      return new String(in.readAllBytes(), StandardCharsets.UTF_8);
    } catch (IOException e) {
      throw new IllegalStateException("cannot read /cuda/" + name, e);
    }
  }
}
