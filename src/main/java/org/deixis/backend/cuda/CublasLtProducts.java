package org.deixis.backend.cuda;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.bytedeco.cuda.cublas.cublasLtContext;
import org.bytedeco.cuda.cublas.cublasLtMatmulAlgo_t;
import org.bytedeco.cuda.cublas.cublasLtMatmulDescOpaque_t;
import org.bytedeco.cuda.cublas.cublasLtMatmulHeuristicResult_t;
import org.bytedeco.cuda.cublas.cublasLtMatmulPreferenceOpaque_t;
import org.bytedeco.cuda.cublas.cublasLtMatrixLayoutOpaque_t;
import org.bytedeco.cuda.global.cublas;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerPointer;
import org.deixis.backend.Activation;
import org.deixis.backend.Array;
import org.deixis.backend.Gemm;
import org.deixis.backend.OutOfMemoryException;
import org.deixis.core.DType;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Products by cuBLASLt, fp32 accumulation, without TF32. The library is column-major: a row-major C
 * = A B is its Cᵀ = Bᵀ Aᵀ, for which the memory of each operand already lies as it should, and the
 * bias, one value a column of C, goes along the rows of its D.
 *
 * <p>Bias and RELU are epilogues of the product. GELU is not: the library's is the tanh form, and
 * ours is by the error function, which a kernel applies afterwards.
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

  /** Address bits beyond this alignment change no algorithm. */
  private static final long MOST_ALIGNMENT = 256;

  /**
   * Kernels may read a bias in words of so many bytes, and the library is told of the alignment of
   * all operands but this one.
   */
  private static final long BIAS_ALIGNMENT = 16;

  /** What decides on the algorithm; alpha and beta are values of a call. */
  private record Key(
      int batch,
      int m,
      int n,
      int k,
      boolean transA,
      boolean transB,
      int lda,
      int ldb,
      int ldc,
      long strideA,
      long strideB,
      long strideC,
      DType dtype,
      int epilogue,
      int alignment) {

    /** For the file of choices. */
    String text() {
      String layout = (transA ? "t" : "n") + (transB ? "t" : "n");
      return "%s %s e%d a%d b%d m%d n%d k%d ld %d %d %d s %d %d %d"
          .formatted(
              dtype.name().toLowerCase(Locale.ROOT),
              layout,
              epilogue,
              alignment,
              batch,
              m,
              n,
              k,
              lda,
              ldb,
              ldc,
              strideA,
              strideB,
              strideC);
    }
  }

  /** Device addresses of a product's operands. */
  private record Operands(long a, long b, long c) {
    static Operands of(Array a, Array b, Array c) {
      return new Operands(
          DeviceBuffer.address(a), DeviceBuffer.address(b), DeviceBuffer.address(c));
    }
  }

  /** Descriptors of one shape, and its algorithm: the library's {@code rank}-th advice. */
  private static final class Plan {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t a;
    cublasLtMatrixLayoutOpaque_t b;
    cublasLtMatrixLayoutOpaque_t c;
    cublasLtMatmulAlgo_t algorithm;
    int rank;

    /** Whether the library has no algorithm for it. */
    boolean refused;
  }

  private final Driver driver;
  private final DeviceMemory memory;
  private final PlainProducts plain;
  private final CudaElementwise elementwise;
  private final cublasLtContext handle = new cublasLtContext();
  private final Map<Key, Plan> plans = new HashMap<>();
  private final FloatPointer alpha = new FloatPointer(1L);
  private final FloatPointer beta = new FloatPointer(1L);
  private final LongPointer bias = new LongPointer(1L);
  private final long workspace;
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
    check(cublas.cublasLtCreate(handle), "cublasLtCreate");
    long[] made = new long[1];
    Driver.check(cudart.cuMemAlloc(made, WORKSPACE), "cuMemAlloc of cuBLASLt's workspace");
    workspace = made[0];
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
  public void gemm(Gemm s, Array a, Array b, Array biasArray, Array preActivation, Array c) {
    driver.lock();
    try {
      gemmInTurn(s, a, b, biasArray, preActivation, c);
    } finally {
      driver.unlock();
    }
  }

  private void gemmInTurn(Gemm s, Array a, Array b, Array biasArray, Array preActivation, Array c) {
    if (s.k() == 0) {
      plain.gemm(s, a, b, biasArray, preActivation, c); // a sum over nothing, which it refuses
      return;
    }
    boolean fused = s.activation() == Activation.RELU && preActivation == null;
    Array target = s.activation() == Activation.NONE || preActivation == null ? c : preActivation;
    int epilogue =
        biasArray == null
            ? fused ? cublas.CUBLASLT_EPILOGUE_RELU : cublas.CUBLASLT_EPILOGUE_DEFAULT
            : fused ? cublas.CUBLASLT_EPILOGUE_RELU_BIAS : cublas.CUBLASLT_EPILOGUE_BIAS;
    Operands operands = Operands.of(a, b, target);
    Key key = key(s, c.dtype(), epilogue, operands);
    driver.enter();
    Plan plan = plans.computeIfAbsent(key, this::plan);
    DeviceBuffer aligned = null;
    try {
      if (biasArray != null) {
        long at = DeviceBuffer.address(biasArray);
        if (at % BIAS_ALIGNMENT != 0) {
          aligned = memory.scratch(biasArray.bytes());
          Driver.check(
              cudart.cuMemcpyDtoDAsync(aligned.address(), at, biasArray.bytes(), driver.stream()),
              "copy of a bias");
          at = aligned.address();
        }
        point(plan, at);
      }
      if (!multiply(plan, key, s, operands)) {
        throw new IllegalStateException("cuBLASLt has no algorithm for " + key);
      }
    } finally {
      if (aligned != null) {
        aligned.release();
      }
    }
    if (s.activation() != Activation.NONE && !fused) {
      elementwise.unary(s.activation().unary(), target, c);
    }
  }

  /**
   * By the library's gradient of a bias, sums over k of its second operand, our first. It has them
   * for some types and shapes only, and wants them to begin at 16 bytes.
   */
  @Override
  public boolean gemmWithSums(Gemm s, Array a, Array b, Array c, Array sums) {
    long at = DeviceBuffer.address(sums);
    if (s.k() == 0 || s.batch() != 1 || sums.dtype() != c.dtype() || at % BIAS_ALIGNMENT != 0) {
      return false;
    }
    driver.lock();
    try {
      Operands operands = Operands.of(a, b, c);
      Key key = key(s, c.dtype(), cublas.CUBLASLT_EPILOGUE_BGRADB, operands);
      driver.enter();
      Plan plan = plans.computeIfAbsent(key, this::plan);
      point(plan, at);
      return multiply(plan, key, s, operands);
    } finally {
      driver.unlock();
    }
  }

  private static Key key(Gemm s, DType dtype, int epilogue, Operands at) {
    return new Key(
        s.batch(),
        s.m(),
        s.n(),
        s.k(),
        s.transA(),
        s.transB(),
        s.lda(),
        s.ldb(),
        s.ldc(),
        s.strideA(),
        s.strideB(),
        s.strideC(),
        dtype,
        epilogue,
        (int) Math.min(MOST_ALIGNMENT, Long.lowestOneBit(at.a | at.b | at.c)));
  }

  private void point(Plan plan, long at) {
    bias.put(at);
    set(plan.operation, cublas.CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias, Long.BYTES);
  }

  /** By an algorithm that is chosen when the plan is met first; false where there is none. */
  private boolean multiply(Plan plan, Key key, Gemm s, Operands operands) {
    if (plan.algorithm == null && !plan.refused) {
      if (driver.capturing()) {
        // Of CUDA 13.3 on, the library gives no advice while a stream is captured.
        throw new IllegalStateException(
            "a product must be computed once before it is captured: " + key);
      }
      choose(plan, key, operands);
    }
    if (plan.refused) {
      return false;
    }
    alpha.put(s.alpha());
    beta.put(s.beta());
    check(run(plan, plan.algorithm, operands), "cublasLtMatmul " + key);
    return true;
  }

  private int run(Plan plan, cublasLtMatmulAlgo_t algorithm, Operands at) {
    // The library's first operand is our second.
    return cublas.cublasLtMatmul(
        handle,
        plan.operation,
        alpha,
        new DeviceAddress(at.b),
        plan.b,
        new DeviceAddress(at.a),
        plan.a,
        beta,
        new DeviceAddress(at.c),
        plan.c,
        new DeviceAddress(at.c),
        plan.c,
        algorithm,
        new DeviceAddress(workspace),
        WORKSPACE,
        driver.stream());
  }

  private Plan plan(Key key) {
    Plan plan = new Plan();
    int type =
        switch (key.dtype) {
          case F32 -> cudart.CUDA_R_32F;
          case F16 -> cudart.CUDA_R_16F;
          case BF16 -> cudart.CUDA_R_16BF;
          default -> throw new IllegalArgumentException("no product of " + key.dtype);
        };
    PointerPointer<Pointer> made = new PointerPointer<>(1L);
    check(
        cublas.cublasLtMatmulDescCreate(made, cublas.CUBLAS_COMPUTE_32F, cudart.CUDA_R_32F),
        "cublasLtMatmulDescCreate");
    plan.operation = new cublasLtMatmulDescOpaque_t(made.get());
    try (IntPointer value = new IntPointer(1L)) {
      value.put(key.transB ? cublas.CUBLAS_OP_T : cublas.CUBLAS_OP_N);
      set(plan.operation, cublas.CUBLASLT_MATMUL_DESC_TRANSA, value, Integer.BYTES);
      value.put(key.transA ? cublas.CUBLAS_OP_T : cublas.CUBLAS_OP_N);
      set(plan.operation, cublas.CUBLASLT_MATMUL_DESC_TRANSB, value, Integer.BYTES);
      value.put(key.epilogue);
      set(plan.operation, cublas.CUBLASLT_MATMUL_DESC_EPILOGUE, value, Integer.BYTES);
    }
    // A stored row-major matrix of r rows and c columns is column-major with c rows and r columns.
    plan.a =
        layout(
            type,
            key.transA ? key.m : key.k,
            key.transA ? key.k : key.m,
            key.lda,
            key.batch,
            key.strideA);
    plan.b =
        layout(
            type,
            key.transB ? key.k : key.n,
            key.transB ? key.n : key.k,
            key.ldb,
            key.batch,
            key.strideB);
    plan.c = layout(type, key.n, key.m, key.ldc, key.batch, key.strideC);
    return plan;
  }

  private cublasLtMatrixLayoutOpaque_t layout(
      int type, long rows, long columns, long leading, int batch, long stride) {
    PointerPointer<Pointer> made = new PointerPointer<>(1L);
    check(
        cublas.cublasLtMatrixLayoutCreate(made, type, rows, columns, leading),
        "cublasLtMatrixLayoutCreate");
    cublasLtMatrixLayoutOpaque_t layout = new cublasLtMatrixLayoutOpaque_t(made.get());
    if (batch > 1) {
      try (IntPointer count = new IntPointer(1L);
          LongPointer distance = new LongPointer(1L)) {
        count.put(batch);
        distance.put(stride);
        check(
            cublas.cublasLtMatrixLayoutSetAttribute(
                layout, cublas.CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, count, Integer.BYTES),
            "batch count");
        check(
            cublas.cublasLtMatrixLayoutSetAttribute(
                layout, cublas.CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, distance, Long.BYTES),
            "batch stride");
      }
    }
    return layout;
  }

  private void choose(Plan plan, Key key, Operands operands) {
    String kept = choices.get(key.text());
    List<cublasLtMatmulAlgo_t> advised = advised(plan, key, kept == null && !tune ? 1 : PROPOSALS);
    if (advised.isEmpty()) {
      plan.refused = true;
      return;
    }
    plan.rank = 0;
    if (kept != null) {
      plan.rank = advised.stream().map(CublasLtProducts::text).toList().indexOf(kept);
      if (plan.rank < 0) {
        LOG.warn("{} names an algorithm that cuBLASLt no longer advises", choices.path());
        plan.rank = 0;
        kept = null;
      }
    }
    if (kept == null && tune) {
      plan.rank = fastest(plan, key, advised, operands);
      choices.put(key.text(), text(advised.get(plan.rank)));
    }
    plan.algorithm = advised.get(plan.rank);
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
  private int fastest(Plan plan, Key key, List<cublasLtMatmulAlgo_t> advised, Operands operands) {
    long elements = (key.batch - 1) * key.strideC + (long) key.m * key.ldc;
    DeviceBuffer result;
    try {
      result = memory.scratch(elements * key.dtype.bytes());
    } catch (OutOfMemoryException e) {
      LOG.warn("no memory to tune {}: the library's first advice is taken", key.text());
      return 0;
    }
    try {
      Operands elsewhere = new Operands(operands.a, operands.b, result.address());
      alpha.put(1f);
      beta.put(0f);
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
  private double seconds(Plan plan, cublasLtMatmulAlgo_t algorithm, Operands at) {
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
          if (key.m == m && key.n == n && key.k == k) {
            found.add(plan.rank);
          }
        });
    return found;
  }

  /** What the library advises, best first; nothing where it has no algorithm. */
  private List<cublasLtMatmulAlgo_t> advised(Plan plan, Key key, int wanted) {
    PointerPointer<Pointer> made = new PointerPointer<>(1L);
    check(cublas.cublasLtMatmulPreferenceCreate(made), "cublasLtMatmulPreferenceCreate");
    cublasLtMatmulPreferenceOpaque_t preference = new cublasLtMatmulPreferenceOpaque_t(made.get());
    try (LongPointer bytes = new LongPointer(1L);
        IntPointer alignment = new IntPointer(1L)) {
      bytes.put(WORKSPACE);
      check(
          cublas.cublasLtMatmulPreferenceSetAttribute(
              preference, cublas.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes, Long.BYTES),
          "workspace preference");
      alignment.put(key.alignment);
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
      try (cublasLtMatmulHeuristicResult_t results = new cublasLtMatmulHeuristicResult_t(wanted)) {
        int code =
            cublas.cublasLtMatmulAlgoGetHeuristic(
                handle,
                plan.operation,
                plan.b,
                plan.a,
                plan.c,
                plan.c,
                preference,
                wanted,
                results,
                found);
        if (code == cublas.CUBLAS_STATUS_NOT_SUPPORTED) {
          return advised;
        }
        check(code, "cublasLtMatmulAlgoGetHeuristic " + key);
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

  private static void set(
      cublasLtMatmulDescOpaque_t operation, int attribute, Pointer value, long bytes) {
    check(
        cublas.cublasLtMatmulDescSetAttribute(operation, attribute, value, bytes),
        "cublasLtMatmulDescSetAttribute " + attribute);
  }

  private static void check(int code, String call) {
    if (code != 0) {
      throw new IllegalStateException(
          call + " failed: " + cublas.cublasLtGetStatusString(code).getString());
    }
  }

  @Override
  public void close() {
    driver.synchronize();
    for (Plan plan : plans.values()) {
      check(cublas.cublasLtMatmulDescDestroy(plan.operation), "cublasLtMatmulDescDestroy");
      for (cublasLtMatrixLayoutOpaque_t layout :
          new cublasLtMatrixLayoutOpaque_t[] {plan.a, plan.b, plan.c}) {
        check(cublas.cublasLtMatrixLayoutDestroy(layout), "cublasLtMatrixLayoutDestroy");
      }
    }
    plans.clear();
    Driver.check(cudart.cuMemFree(workspace), "cuMemFree of cuBLASLt's workspace");
    check(cublas.cublasLtDestroy(handle), "cublasLtDestroy");
  }
}
