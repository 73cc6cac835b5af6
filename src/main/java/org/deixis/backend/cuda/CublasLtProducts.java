package org.deixis.backend.cuda;

import java.util.HashMap;
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
import org.deixis.core.DType;

/**
 * Products by cuBLASLt, fp32 accumulation, without TF32. The library is column-major: a row-major C
 * = A B is its Cᵀ = Bᵀ Aᵀ, for which the memory of each operand already lies as it should, and the
 * bias, one value a column of C, goes along the rows of its D.
 *
 * <p>Bias and RELU are epilogues of the product. GELU is not: the library's is the tanh form, and
 * ours is by the error function, which a kernel applies afterwards.
 */
final class CublasLtProducts implements Products {
  private static final long WORKSPACE = 32L << 20;

  /** Address bits beyond this alignment change no algorithm. */
  private static final long MOST_ALIGNMENT = 256;

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
      int alignment) {}

  /** Descriptors of one shape, and the algorithm that the library advises for it. */
  private static final class Plan {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t a;
    cublasLtMatrixLayoutOpaque_t b;
    cublasLtMatrixLayoutOpaque_t c;
    cublasLtMatmulAlgo_t algorithm;
  }

  private final Driver driver;
  private final PlainProducts plain;
  private final CudaElementwise elementwise;
  private final cublasLtContext handle = new cublasLtContext();
  private final Map<Key, Plan> plans = new HashMap<>();
  private final FloatPointer alpha = new FloatPointer(1L);
  private final FloatPointer beta = new FloatPointer(1L);
  private final LongPointer bias = new LongPointer(1L);
  private final long workspace;

  CublasLtProducts(Driver driver, PlainProducts plain, CudaElementwise elementwise) {
    this.driver = driver;
    this.plain = plain;
    this.elementwise = elementwise;
    driver.enter();
    check(cublas.cublasLtCreate(handle), "cublasLtCreate");
    long[] made = new long[1];
    Driver.check(cudart.cuMemAlloc(made, WORKSPACE), "cuMemAlloc of cuBLASLt's workspace");
    workspace = made[0];
  }

  /** Null when cuBLASLt can be loaded, else what is missing. */
  static String missing() {
    try {
      Loader.load(cublas.class);
      return null;
    } catch (LinkageError | RuntimeException e) {
      return "cuBLASLt cannot be loaded ("
          + Driver.reason(e)
          + "); it comes with the CUDA 13 toolkit: put libcublasLt.so.13 and libcublas.so.13 on the"
          + " library path, or set DEIXIS_GEMM=plain for products by our own, slower kernel";
    }
  }

  @Override
  public synchronized void gemm(
      Gemm s, Array a, Array b, Array biasArray, Array preActivation, Array c) {
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
    long pa = DeviceBuffer.address(a);
    long pb = DeviceBuffer.address(b);
    long pc = DeviceBuffer.address(target);
    Key key =
        new Key(
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
            c.dtype(),
            epilogue,
            (int) Math.min(MOST_ALIGNMENT, Long.lowestOneBit(pa | pb | pc)));
    driver.enter();
    Plan plan = plans.computeIfAbsent(key, this::plan);
    if (biasArray != null) {
      bias.put(DeviceBuffer.address(biasArray));
      set(plan.operation, cublas.CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias, Long.BYTES);
    }
    alpha.put(s.alpha());
    beta.put(s.beta());
    // The library's first operand is our second.
    check(
        cublas.cublasLtMatmul(
            handle,
            plan.operation,
            alpha,
            new DeviceAddress(pb),
            plan.b,
            new DeviceAddress(pa),
            plan.a,
            beta,
            new DeviceAddress(pc),
            plan.c,
            new DeviceAddress(pc),
            plan.c,
            plan.algorithm,
            new DeviceAddress(workspace),
            WORKSPACE,
            driver.stream()),
        "cublasLtMatmul " + key);
    if (s.activation() != Activation.NONE && !fused) {
      elementwise.unary(s.activation().unary(), target, c);
    }
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
    plan.algorithm = algorithm(plan, key);
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

  private cublasLtMatmulAlgo_t algorithm(Plan plan, Key key) {
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
      cublasLtMatmulHeuristicResult_t result = new cublasLtMatmulHeuristicResult_t(1L);
      int[] found = new int[1];
      check(
          cublas.cublasLtMatmulAlgoGetHeuristic(
              handle, plan.operation, plan.b, plan.a, plan.c, plan.c, preference, 1, result, found),
          "cublasLtMatmulAlgoGetHeuristic " + key);
      if (found[0] == 0) {
        throw new IllegalStateException("cuBLASLt has no algorithm for " + key);
      }
      return result.algo();
    } finally {
      check(cublas.cublasLtMatmulPreferenceDestroy(preference), "preference");
    }
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
  public synchronized void close() {
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
