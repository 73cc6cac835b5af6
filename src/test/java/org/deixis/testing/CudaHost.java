package org.deixis.testing;

import static org.junit.jupiter.api.Assertions.fail;
import static org.junit.jupiter.api.Assumptions.abort;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.BytePointer;
import org.deixis.backend.cuda.CudaBackend;
import org.deixis.backend.cuda.KernelCompiler;

/**
 * The cuda backend on the stand-in driver ({@code cuda/host}): g++ builds a libcuda.so.1 that runs
 * kernels on the CPU, and each kernel file as a library for it. Not for a process that uses a real
 * driver.
 */
public final class CudaHost {
  private static final Path SOURCES = Path.of("cuda");
  private static final Path BUILT = Path.of("target/cuda-host").toAbsolutePath();
  private static final Pattern KERNEL =
      Pattern.compile("KERNEL(?:_BOUNDS\\(([^,)]*),[^)]*\\))? void (\\w+)");

  private static final Pattern INCLUDE = Pattern.compile("#include \"(\\w+\\.cuh)\"");

  /**
   * The order in which a block's threads run, by element type: a missing barrier that one order
   * hides shows in another.
   */
  private static final List<String> ORDERS = List.of("forward", "reverse", "20261");

  /** Threads of a block, where a kernel names no bounds. */
  private static final String MOST_THREADS = "1024";

  /** Of the bindings, for the names of the libraries that they ask for. */
  private static final int CUDA = cudart.CUDA_VERSION / 1000;

  private static final Map<Path, Boolean> COMPILED = new ConcurrentHashMap<>();

  private static CudaBackend backend;
  private static CudaBackend caching;
  private static boolean loaded;
  private static boolean said;

  private CudaHost() {}

  /** Whether g++ is there, the one thing that it takes. */
  public static boolean available() {
    try {
      return new ProcessBuilder("g++", "--version")
              .redirectErrorStream(true)
              .redirectOutput(ProcessBuilder.Redirect.DISCARD)
              .start()
              .waitFor()
          == 0;
    } catch (IOException e) {
      return false;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(e);
    }
  }

  /**
   * Skips the test where g++ is missing, and says so once; with {@code -Dcuda.host=required} it
   * fails instead. Every backend of this class asks it.
   */
  public static synchronized void require() {
    String wanted = System.getProperty("cuda.host", "auto");
    if (!wanted.equals("auto") && !wanted.equals("required")) {
      throw new IllegalArgumentException(
          "cuda.host is '" + wanted + "': give auto, or required, to fail where g++ is missing");
    }
    if (loaded || available()) {
      return;
    }
    String line = "g++ is missing, so the cuda backend is not tested on its stand-in driver";
    if (wanted.equals("required")) {
      fail(line + ", which -Dcuda.host=required asks for: install g++");
    }
    if (!said) {
      said = true;
      System.out.println("SKIPPED: " + line + " (tests tagged cuda-host)");
    }
    abort(line);
  }

  /** Of a type's kernels, or of all by {@code DEIXIS_HOST_ORDER}. */
  private static String order(int type) {
    String wanted = System.getenv().getOrDefault("DEIXIS_HOST_ORDER", ORDERS.get(type));
    if (!wanted.matches("forward|reverse|[0-9]{1,9}")) {
      throw new IllegalArgumentException(
          "DEIXIS_HOST_ORDER is '"
              + wanted
              + "': give forward, reverse, or a number that seeds a shuffle");
    }
    return wanted;
  }

  /** The backend, made once a process; every buffer has guard zones of its own. */
  public static synchronized CudaBackend backend() {
    if (backend == null) {
      driver();
      backend = new CudaBackend(new Compiler(SOURCES, BUILT), false, true, true);
    }
    return backend;
  }

  /** The same with the pool that keeps freed memory, as on a real device. */
  public static synchronized CudaBackend caching() {
    if (caching == null) {
      driver();
      caching = new CudaBackend(new Compiler(SOURCES, BUILT), true, true, true);
    }
    return caching;
  }

  /** Another one, with products and convolutions by our own kernels. */
  public static CudaBackend plain() {
    return backend(SOURCES, BUILT);
  }

  /** The same over kernels from another folder. */
  public static CudaBackend backend(Path sources, Path built) {
    driver();
    return new CudaBackend(new Compiler(sources, built), false, false, false);
  }

  /**
   * Another one, over kernels with a mistake: files that do not read the one that has it are built
   * once for all.
   *
   * @param folder new, for the files with the mistake
   * @param type 0, 1 or 2 for fp32, fp16, bf16: a kernel file with the mistake is built for it at
   *     once, one that includes a header with the mistake when it is used
   */
  public static CudaBackend mutant(KernelMutant mutant, Path folder, int type) throws IOException {
    driver();
    Path sources = mutant.sources(folder);
    Compiler wrong = new Compiler(sources, sources.resolve("built"));
    Compiler right = new Compiler(SOURCES, BUILT);
    KernelCompiler compiler =
        (file, of, capability) ->
            (reads(file + ".cu", mutant.file()) ? wrong : right).compile(file, of, capability);
    if (mutant.file().endsWith(".cu")) {
      compiler.compile(mutant.file().substring(0, mutant.file().length() - 3), type, 0).close();
    }
    return new CudaBackend(compiler, false, false, false);
  }

  /** Whether a file is, or includes at any depth, another. */
  private static boolean reads(String file, String other) {
    try {
      return file.equals(other)
          || INCLUDE
              .matcher(Files.readString(SOURCES.resolve(file)))
              .results()
              .anyMatch(r -> reads(r.group(1), other));
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
  }

  /** What builds kernel files for the stand-in driver, once a process. */
  public static KernelCompiler compiler() {
    return new Compiler(SOURCES, BUILT);
  }

  /** Once a process: a library that is in use is not written anew. */
  private static synchronized void driver() {
    if (loaded) {
      return;
    }
    require();
    System.out.printf(
        "stand-in driver: threads run %s in fp32, %s in fp16, %s in bf16 (DEIXIS_HOST_ORDER:"
            + " forward, reverse, or a shuffle's seed)%n",
        order(0), order(1), order(2));
    try {
      Files.createDirectories(BUILT);
      Path cuda = BUILT.resolve("libcuda.so.1");
      gxx(
          "-O2",
          "-Wl,-soname,libcuda.so.1",
          "-o",
          cuda.toString(),
          SOURCES.resolve("host/driver.cpp").toString(),
          "-ldl");
      Path cublasLt = BUILT.resolve("libcublasLt.so." + CUDA);
      gxx(
          "-O2",
          "-Wl,-soname,libcublasLt.so." + CUDA,
          "-o",
          cublasLt.toString(),
          SOURCES.resolve("host/cublaslt.cpp").toString(),
          "-L" + BUILT,
          "-l:libcuda.so.1");
      // The bindings ask for more libraries, and we call nothing in them.
      Path empty = BUILT.resolve("empty.cpp");
      Files.writeString(empty, "");
      Path runtime = BUILT.resolve("libcudart.so." + CUDA);
      gxx("-Wl,-soname,libcudart.so." + CUDA, "-o", runtime.toString(), empty.toString());
      System.load(runtime.toString());
      Path cublas = BUILT.resolve("libcublas.so." + CUDA);
      gxx("-Wl,-soname,libcublas.so." + CUDA, "-o", cublas.toString(), empty.toString());
      System.load(cuda.toString());
      System.load(cublasLt.toString());
      System.load(cublas.toString());
      Path cudnn = BUILT.resolve("libcudnn_cnn.so.9");
      gxx(
          "-O2",
          "-Wl,-soname,libcudnn_cnn.so.9",
          "-o",
          cudnn.toString(),
          SOURCES.resolve("host/cudnn.cpp").toString(),
          "-L" + BUILT,
          "-l:libcuda.so.1");
      System.load(cudnn.toString());
      for (String part : List.of("adv", "ops", "graph")) {
        Path library = BUILT.resolve("libcudnn_" + part + ".so.9");
        gxx("-Wl,-soname," + library.getFileName(), "-o", library.toString(), empty.toString());
        System.load(library.toString());
      }
      loaded = true;
    } catch (IOException e) {
      throw new IllegalStateException(e);
    }
  }

  private static void gxx(String... arguments) {
    List<String> command = new ArrayList<>(List.of("g++", "-std=c++17", "-fPIC", "-shared"));
    command.addAll(List.of(arguments));
    try {
      Process p = new ProcessBuilder(command).redirectErrorStream(true).start();
      String output = new String(p.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
      if (!p.waitFor(5, TimeUnit.MINUTES) || p.exitValue() != 0) {
        throw new IllegalStateException(String.join(" ", command) + "\n" + output);
      }
    } catch (IOException e) {
      throw new IllegalStateException(e);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException(e);
    }
  }

  /** Kernel files as shared libraries that register their kernels when they are opened. */
  private record Compiler(Path sources, Path built) implements KernelCompiler {
    @Override
    public BytePointer compile(String file, int type, int capability) {
      Path library = built.resolve(file + type + ".so");
      // Once, as it is then in use; other threads may build others meanwhile.
      COMPILED.computeIfAbsent(
          library,
          l -> {
            build(file, type, l);
            return true;
          });
      return new BytePointer(library.toString());
    }

    private void build(String file, int type, Path library) {
      try {
        Files.createDirectories(built);
        Path source = sources.resolve(file + ".cu");
        String text = Files.readString(source);
        StringBuilder whole = new StringBuilder("#line 1 \"" + source + "\"\n").append(text);
        Matcher kernels = KERNEL.matcher(text);
        while (kernels.find()) {
          String threads = kernels.group(1) == null ? MOST_THREADS : kernels.group(1);
          whole.append("\nDEIXIS_EXPORT(%s, %s)".formatted(kernels.group(2), threads));
        }
        Path unit = built.resolve(file + type + ".cpp");
        Files.writeString(unit, whole.append('\n'));
        gxx(
            "-O2",
            // Kernels are this library's own, whatever the process has of their names: glibc, for
            // one, still knows an "advance".
            "-Wl,-Bsymbolic",
            "-DDEIXIS_HOST",
            "-DDEIXIS_T=" + type,
            "-DDEIXIS_HOST_ORDER=\"" + order(type) + "\"",
            "-I" + sources.toAbsolutePath(),
            "-o",
            library.toString(),
            unit.toString(),
            "-L" + BUILT,
            "-l:libcuda.so.1");
      } catch (IOException e) {
        throw new IllegalStateException(e);
      }
    }
  }
}
