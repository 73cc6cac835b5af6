package org.deixis.backend.cuda;

import static org.deixis.backend.cuda.CublasLtPlan.check;
import static org.deixis.backend.cuda.CublasLtPlan.status;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.bytedeco.cuda.cublas.cublasLtContext;
import org.bytedeco.cuda.cublas.cublasLtMatmulAlgo_t;
import org.bytedeco.cuda.cublas.cublasLtMatmulHeuristicResult_t;
import org.bytedeco.cuda.cublas.cublasLtMatmulPreferenceOpaque_t;
import org.bytedeco.cuda.global.cublas;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerPointer;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Binary;
import org.deixis.backend.Gemm;
import org.deixis.backend.OutOfMemoryException;
import org.deixis.backend.cuda.CublasLtPlan.Call;
import org.deixis.backend.cuda.CublasLtPlan.Key;
import org.deixis.backend.cuda.CublasLtPlan.Operands;
import org.deixis.core.DType;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Products by cuBLASLt, fp32 accumulation, without TF32.
 *
 * <p>Biases and RELU are epilogues of the product, and so are the tanh form of GELU, its argument
 * and its derivative in half types: in fp32 the library is said to apply them in a pass of its own
 * (karpathy/llm.c, pull request 338). GELU by the error function, which the library has not, is
 * always a kernel of ours behind the product.
 *
 * <p>The algorithm of a shape is the library's first advice. With {@code DEIXIS_TUNE=1} the first
 * product of a shape times what the library advises, with the operands at hand and a result of its
 * own, and keeps the fastest in an {@link AlgorithmFile}, which later runs read, tuning or not.
 */
final class CublasLtProducts implements Products {
  private static final Logger LOG = LoggerFactory.getLogger(CublasLtProducts.class);
  private static final long WORKSPACE = 32L << 20;

  /** Of 64 bits, in an algorithm as the library hands it out. */
  private static final int ALGORITHM_WORDS = 8;

  /** Proposals that tuning asks for. */
  private static final int PROPOSALS = 16;

  private static final int ROUNDS = 4;
  private static final int RUNS = 5;

  /** What the library's first advice must lose by before another algorithm takes its place. */
  private static final double GAIN = 0.97;

  /**
   * Kernels may read a bias, or the argument of an activation, in words of so many bytes, and the
   * library is told of the alignment of all other operands only.
   */
  private static final long EPILOGUE_ALIGNMENT = 16;

  /** Rows of arguments of GELU are a multiple of so many elements apart. */
  private static final int ARGUMENT_COLUMNS = 8;

  private final Driver driver;
  private final DeviceMemory memory;
  private final PlainProducts plain;
  private final CudaElementwise elementwise;
  private final Map<Key, CublasLtPlan> plans = new HashMap<>();
  private final Call call;
  private final AlgorithmFile choices;
  private final boolean tune;

  /**
   * @param cache folder of the file of choices
   * @param tune whether shapes that the file does not know are timed
   */
  CublasLtProducts(
      Driver driver,
      DeviceMemory memory,
      PlainProducts plain,
      CudaElementwise elementwise,
      Path cache,
      boolean tune) {
    this.driver = driver;
    this.memory = memory;
    this.tune = tune;
    this.plain = plain;
    this.elementwise = elementwise;
    driver.enter();
    cublasLtContext handle = new cublasLtContext();
    check(cublas.cublasLtCreate(handle), "cublasLtCreate");
    long[] made = new long[1];
    Driver.check(cudart.cuMemAlloc(made, WORKSPACE), "cuMemAlloc of cuBLASLt's workspace");
    call = new Call(handle, new DeviceAddress(made[0]), WORKSPACE);
    choices = new AlgorithmFile(cache, driver.deviceName(), cublas.cublasLtGetVersion());
  }

  /** Null when cuBLASLt can be loaded, else what is missing. */
  static String missing() {
    try {
      Loader.load(cublas.class);
      return null;
    } catch (LinkageError | RuntimeException e) {
      return "cuBLASLt cannot be loaded ("
          + Driver.reason(e)
          + "); it comes with the CUDA toolkit: put libcublasLt.so.%1$d and libcublas.so.%1$d on the"
              .formatted(Driver.CUDA)
          + " library path, or set DEIXIS_GEMM=plain for products by our own, slower kernel";
    }
  }

  @Override
  public void gemm(Gemm s, Array a, Array b, Array bias, Array preActivation, Array c) {
    driver.lock();
    try {
      gemmInTurn(s, a, b, bias, preActivation, c);
    } finally {
      driver.unlock();
    }
  }

  private void gemmInTurn(Gemm s, Array a, Array b, Array bias, Array preActivation, Array c) {
    boolean active = s.activation() != Activation.NONE;
    if (s.k() == 0 || active && s.beta() != 0) {
      // A sum over nothing, which the library refuses; or what it would activate with β C.
      plain.gemm(s, a, b, bias, preActivation, c);
      return;
    }
    if (active && multiply(s, activating(s, preActivation, c), a, b, bias, preActivation, c)) {
      return;
    }
    Array target = active && preActivation != null ? preActivation : c;
    boolean dense = s.batch() == 1 && s.ldc() == s.n() && s.beta() == 0;
    if (multiply(s, cublas.CUBLASLT_EPILOGUE_DEFAULT, a, b, bias, null, target)) {
      activate(s, target, c);
    } else if (bias != null
        && dense
        && multiply(s, cublas.CUBLASLT_EPILOGUE_DEFAULT, a, b, null, null, target)) {
      int rows = s.m();
      elementwise.binary(Binary.ADD, 1, rows, s.n(), false, false, true, target, bias, target);
      activate(s, target, c);
    } else {
      plain.gemm(s, a, b, bias, preActivation, c);
    }
  }

  private void activate(Gemm s, Array argument, Array c) {
    if (s.activation() != Activation.NONE) {
      elementwise.unary(s.activation().unary(), argument, c);
    }
  }

  /** The epilogue of an activation, or 0 where there is none to take. */
  private static int activating(Gemm s, Array argument, Array c) {
    boolean kept = argument != null;
    return switch (s.activation()) {
      case RELU -> kept ? 0 : cublas.CUBLASLT_EPILOGUE_RELU;
      case GELU_TANH ->
          !halves(c) || kept && !holdsArguments(s, argument)
              ? 0
              : kept ? cublas.CUBLASLT_EPILOGUE_GELU_AUX : cublas.CUBLASLT_EPILOGUE_GELU;
      case GELU, NONE -> 0;
    };
  }

  private static boolean halves(Array c) {
    return c.dtype() != DType.F32;
  }

  /** Whether the library takes a matrix that lies as c does for arguments of GELU. */
  private static boolean holdsArguments(Gemm s, Array argument) {
    return s.batch() == 1
        && s.ldc() % ARGUMENT_COLUMNS == 0
        && DeviceBuffer.address(argument) % EPILOGUE_ALIGNMENT == 0;
  }

  /**
   * One product with an epilogue, to which {@code bias} (or null) is added; false, with nothing
   * written, where the library has none (or {@code epilogue} is 0).
   */
  private boolean multiply(
      Gemm s, int epilogue, Array a, Array b, Array bias, Array argument, Array c) {
    if (epilogue == 0) {
      return false;
    }
    // Epilogues are flags, "none" a flag of its own.
    int whole =
        bias == null
            ? epilogue
            : (epilogue & ~cublas.CUBLASLT_EPILOGUE_DEFAULT) | cublas.CUBLASLT_EPILOGUE_BIAS;
    DeviceBuffer aligned = null;
    try {
      long at = bias == null ? 0 : DeviceBuffer.address(bias);
      driver.enter();
      if (at % EPILOGUE_ALIGNMENT != 0) {
        aligned = memory.scratch(bias.bytes());
        Driver.check(
            cudart.cuMemcpyDtoDAsync(aligned.address(), at, bias.bytes(), driver.stream()),
            "copy of a bias");
        at = aligned.address();
      }
      return multiply(s, whole, Operands.of(a, b, c), c.dtype(), at, argument);
    } finally {
      if (aligned != null) {
        aligned.release();
      }
    }
  }

  /**
   * By the library's gradient of a bias, sums over k of its second operand, our first. It has them
   * for some types and shapes only, and wants them to begin at 16 bytes.
   */
  @Override
  public boolean gemmWithSums(Gemm s, Array a, Array b, Array c, Array sums) {
    long at = DeviceBuffer.address(sums);
    if (s.k() == 0 || s.batch() != 1 || sums.dtype() != c.dtype() || at % EPILOGUE_ALIGNMENT != 0) {
      return false;
    }
    return inTurn(s, cublas.CUBLASLT_EPILOGUE_BGRADB, a, b, c, at, null);
  }

  /** By the library's gradient of GELU, which is of the tanh form. */
  @Override
  public boolean gemmBackwardActivation(Gemm s, Array a, Array b, Array argument, Array c) {
    boolean fits =
        s.activation() == Activation.GELU_TANH
            && halves(c)
            && s.k() > 0
            && s.beta() == 0
            && holdsArguments(s, argument);
    return fits && inTurn(s, cublas.CUBLASLT_EPILOGUE_DGELU, a, b, c, 0, argument);
  }

  private boolean inTurn(
      Gemm s, int epilogue, Array a, Array b, Array c, long bias, Array argument) {
    driver.lock();
    try {
      driver.enter();
      return multiply(s, epilogue, Operands.of(a, b, c), c.dtype(), bias, argument);
    } finally {
      driver.unlock();
    }
  }

  /**
   * By an algorithm that is chosen when the shape is met first; false where there is none.
   *
   * @param bias address that the epilogue reads or writes, or 0
   * @param argument of the activation, written or read by the epilogue, or null
   */
  private boolean multiply(
      Gemm s, int epilogue, Operands operands, DType dtype, long bias, Array argument) {
    Key key = Key.of(s, dtype, epilogue, operands);
    CublasLtPlan plan = plans.computeIfAbsent(key, CublasLtPlan::new);
    if (plan.refused) {
      return false;
    }
    if (bias != 0) {
      plan.bias(bias);
    }
    if (argument != null) {
      plan.argument(DeviceBuffer.address(argument));
    }
    if (plan.algorithm == null) {
      if (driver.capturing()) {
        // Of CUDA 13.3 on, the library gives no advice while a stream is captured.
        throw new IllegalStateException(
            "a product must be computed once before it is captured: " + key);
      }
      return runFirst(plan, s, operands);
    }
    call.factors(s.alpha(), s.beta());
    check(run(plan, plan.algorithm, operands), "cublasLtMatmul " + key);
    return true;
  }

  /**
   * Runs the first of the library's algorithms that it does not refuse: its advice is a promise
   * that some versions break for epilogues (pytorch/pytorch, issues 73455, 92201, 97205). False,
   * and {@code plan.refused}, where there is none.
   */
  private boolean runFirst(CublasLtPlan plan, Gemm s, Operands operands) {
    List<cublasLtMatmulAlgo_t> advised = advised(plan);
    int first = advised.isEmpty() ? 0 : chosen(plan, advised, operands);
    call.factors(s.alpha(), s.beta());
    for (int i = 0; i < advised.size(); i++) {
      int rank = i == 0 ? first : i <= first ? i - 1 : i;
      int code = run(plan, advised.get(rank), operands);
      if (code == cublas.CUBLAS_STATUS_SUCCESS) {
        plan.rank = rank;
        plan.algorithm = advised.get(rank);
        return true;
      }
      LOG.warn("cuBLASLt advised an algorithm for {} and then said {}", plan.key, status(code));
    }
    LOG.info("cuBLASLt has no algorithm for {}: it is computed by other kernels", plan.key.text());
    plan.refused = true;
    return false;
  }

  private int run(CublasLtPlan plan, cublasLtMatmulAlgo_t algorithm, Operands at) {
    return plan.run(call, algorithm, at, driver.stream());
  }

  /** Which algorithm to take: the file's, the fastest where shapes are timed, or the first. */
  private int chosen(CublasLtPlan plan, List<cublasLtMatmulAlgo_t> advised, Operands operands) {
    String shape = plan.key.text();
    String kept = choices.get(shape);
    if (kept != null) {
      int rank = advised.stream().map(CublasLtProducts::text).toList().indexOf(kept);
      if (rank >= 0) {
        return rank;
      }
      LOG.warn("{} names an algorithm that cuBLASLt no longer advises", choices.path());
    }
    if (!tune) {
      return 0;
    }
    int rank = fastest(plan, advised, operands);
    choices.put(shape, text(advised.get(rank)));
    return rank;
  }

  /** The 64 bytes of an algorithm, which are the same in every process, as digits. */
  private static String text(cublasLtMatmulAlgo_t algorithm) {
    StringBuilder digits = new StringBuilder();
    for (int i = 0; i < ALGORITHM_WORDS; i++) {
      digits.append(HexFormat.of().toHexDigits(algorithm.data(i)));
    }
    return digits.toString();
  }

  /**
   * Which of the algorithms is the fastest with these operands, writing elsewhere. The clock is the
   * host's, around a burst of calls between two waits: a burst of short kernels is bound by its
   * launches whichever clock looks on, and of long ones the waits are a small part.
   */
  private int fastest(CublasLtPlan plan, List<cublasLtMatmulAlgo_t> advised, Operands operands) {
    Key key = plan.key;
    long elements = (key.batch() - 1) * key.strideC() + (long) key.m() * key.ldc();
    DeviceBuffer result;
    try {
      result = memory.scratch(elements * key.dtype().bytes());
    } catch (OutOfMemoryException e) {
      LOG.warn("no memory to tune {}: the library's first advice is taken", key.text());
      return 0;
    }
    try {
      Operands elsewhere = new Operands(operands.a(), operands.b(), result.address());
      call.factors(1, 0);
      int best = 0;
      double least = Double.POSITIVE_INFINITY;
      for (int i = 0; i < advised.size(); i++) {
        double seconds = seconds(plan, advised.get(i), elsewhere);
        if (seconds < least * (best == 0 ? GAIN : 1) || i == 0) {
          best = i;
          least = seconds;
        }
      }
      return best;
    } finally {
      result.release();
    }
  }

  /** Of one product, the best of some rounds; infinite for an algorithm that fails. */
  private double seconds(CublasLtPlan plan, cublasLtMatmulAlgo_t algorithm, Operands at) {
    if (run(plan, algorithm, at) != 0) {
      return Double.POSITIVE_INFINITY;
    }
    driver.synchronize();
    long least = Long.MAX_VALUE;
    for (int round = 0; round < ROUNDS; round++) {
      long start = System.nanoTime();
      for (int i = 0; i < RUNS; i++) {
        check(run(plan, algorithm, at), "cublasLtMatmul");
      }
      driver.synchronize();
      least = Math.min(least, System.nanoTime() - start);
    }
    return least * 1e-9 / RUNS;
  }

  /** Ranks among the library's advice that shapes (m, n, k) have got, for tests. */
  List<Integer> ranks(int m, int n, int k) {
    List<Integer> found = new ArrayList<>();
    plans.forEach(
        (key, plan) -> {
          if (key.m() == m && key.n() == n && key.k() == k) {
            found.add(plan.rank);
          }
        });
    return found;
  }

  /** Epilogues that shapes (m, n, k) of a type were computed with, for tests. */
  List<Integer> epilogues(int m, int n, int k, DType dtype) {
    List<Integer> found = new ArrayList<>();
    plans.forEach(
        (key, plan) -> {
          boolean same = key.m() == m && key.n() == n && key.k() == k && key.dtype() == dtype;
          if (same && !plan.refused) {
            found.add(key.epilogue());
          }
        });
    return found;
  }

  /** What the library advises, best first; nothing where it has no algorithm. */
  private List<cublasLtMatmulAlgo_t> advised(CublasLtPlan plan) {
    cublasLtMatmulPreferenceOpaque_t preference;
    try (PointerPointer<Pointer> made = new PointerPointer<>(1L)) {
      check(cublas.cublasLtMatmulPreferenceCreate(made), "cublasLtMatmulPreferenceCreate");
      preference = new cublasLtMatmulPreferenceOpaque_t(made.get());
    }
    try (LongPointer bytes = new LongPointer(1L);
        IntPointer alignment = new IntPointer(1L);
        IntPointer schemes = new IntPointer(1L)) {
      // Parts of a sum over k are never added in a half type.
      schemes.put(cublas.CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
      check(
          cublas.cublasLtMatmulPreferenceSetAttribute(
              preference,
              cublas.CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
              schemes,
              Integer.BYTES),
          "reduction schemes preference");
      bytes.put(WORKSPACE);
      check(
          cublas.cublasLtMatmulPreferenceSetAttribute(
              preference, cublas.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes, Long.BYTES),
          "workspace preference");
      alignment.put(plan.key.alignment());
      for (int operand :
          new int[] {
            cublas.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            cublas.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            cublas.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            cublas.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
          }) {
        check(
            cublas.cublasLtMatmulPreferenceSetAttribute(
                preference, operand, alignment, Integer.BYTES),
            "alignment preference");
      }
      int[] found = new int[1];
      List<cublasLtMatmulAlgo_t> advised = new ArrayList<>();
      try (cublasLtMatmulHeuristicResult_t results =
          new cublasLtMatmulHeuristicResult_t(PROPOSALS)) {
        int code =
            cublas.cublasLtMatmulAlgoGetHeuristic(
                call.handle(),
                plan.operation,
                plan.b,
                plan.a,
                plan.c,
                plan.c,
                preference,
                PROPOSALS,
                results,
                found);
        if (code != cublas.CUBLAS_STATUS_SUCCESS) {
          // Not supported, or for some epilogues an invalid value, which says the same.
          LOG.info("cublasLtMatmulAlgoGetHeuristic {}: {}", plan.key.text(), status(code));
          return advised;
        }
        for (int i = 0; i < found[0]; i++) {
          cublasLtMatmulHeuristicResult_t result = results.getPointer(i);
          if (result.state() == cublas.CUBLAS_STATUS_SUCCESS) {
            advised.add(copy(result.algo())); // it lies in the results, which go
          }
        }
      }
      return advised;
    } finally {
      check(cublas.cublasLtMatmulPreferenceDestroy(preference), "preference");
    }
  }

  private static cublasLtMatmulAlgo_t copy(cublasLtMatmulAlgo_t algorithm) {
    cublasLtMatmulAlgo_t copy = new cublasLtMatmulAlgo_t(1L);
    for (int i = 0; i < ALGORITHM_WORDS; i++) {
      copy.data(i, algorithm.data(i));
    }
    return copy;
  }

  @Override
  public void close() {
    driver.synchronize();
    plans.values().forEach(CublasLtPlan::close);
    plans.clear();
    Driver.check(cudart.cuMemFree(call.workspace().address()), "cuMemFree of cuBLASLt's workspace");
    check(cublas.cublasLtDestroy(call.handle()), "cublasLtDestroy");
  }
}
