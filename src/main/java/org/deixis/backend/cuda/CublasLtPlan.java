package org.deixis.backend.cuda;

import java.util.Locale;
import org.bytedeco.cuda.cublas.cublasLtContext;
import org.bytedeco.cuda.cublas.cublasLtMatmulAlgo_t;
import org.bytedeco.cuda.cublas.cublasLtMatmulDescOpaque_t;
import org.bytedeco.cuda.cublas.cublasLtMatrixLayoutOpaque_t;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.cuda.global.cublas;
import org.bytedeco.cuda.global.cudart;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerPointer;
import org.deixis.backend.Array;
import org.deixis.backend.Gemm;
import org.deixis.core.DType;

/**
 * cuBLASLt's descriptors of one shape, and the algorithm that was chosen for it. The library is
 * column-major: a row-major C = A B is its Cᵀ = Bᵀ Aᵀ, for which the memory of each operand already
 * lies as it should, so that its first operand is our second.
 */
final class CublasLtPlan implements AutoCloseable {
  /** Address bits beyond this alignment change no algorithm. */
  private static final long MOST_ALIGNMENT = 256;

  /** What decides on the algorithm; alpha and beta are values of a call. */
  record Key(
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

    static Key of(Gemm s, DType dtype, int epilogue, Operands at) {
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
  record Operands(long a, long b, long c) {
    static Operands of(Array a, Array b, Array c) {
      return new Operands(
          DeviceBuffer.address(a), DeviceBuffer.address(b), DeviceBuffer.address(c));
    }
  }

  /** What the calls of one handle share: a workspace, and alpha and beta in native memory. */
  record Call(
      cublasLtContext handle,
      DeviceAddress workspace,
      long workspaceBytes,
      FloatPointer alpha,
      FloatPointer beta) {
    Call(cublasLtContext handle, DeviceAddress workspace, long workspaceBytes) {
      this(handle, workspace, workspaceBytes, new FloatPointer(1L), new FloatPointer(1L));
    }

    void factors(float newAlpha, float newBeta) {
      alpha.put(newAlpha);
      beta.put(newBeta);
    }
  }

  final Key key;
  final cublasLtMatmulDescOpaque_t operation;
  final cublasLtMatrixLayoutOpaque_t a;
  final cublasLtMatrixLayoutOpaque_t b;
  final cublasLtMatrixLayoutOpaque_t c;

  /** Null until chosen. */
  cublasLtMatmulAlgo_t algorithm;

  /** Which of the library's proposals the algorithm is. */
  int rank;

  /** Whether the library has no algorithm for it. */
  boolean refused;

  private final LongPointer address = new LongPointer(1L);

  CublasLtPlan(Key key) {
    this.key = key;
    try (PointerPointer<Pointer> made = new PointerPointer<>(1L);
        IntPointer value = new IntPointer(1L)) {
      check(
          cublas.cublasLtMatmulDescCreate(made, cublas.CUBLAS_COMPUTE_32F, cudart.CUDA_R_32F),
          "cublasLtMatmulDescCreate");
      operation = new cublasLtMatmulDescOpaque_t(made.get());
      value.put(key.transB ? cublas.CUBLAS_OP_T : cublas.CUBLAS_OP_N);
      set(cublas.CUBLASLT_MATMUL_DESC_TRANSA, value, Integer.BYTES);
      value.put(key.transA ? cublas.CUBLAS_OP_T : cublas.CUBLAS_OP_N);
      set(cublas.CUBLASLT_MATMUL_DESC_TRANSB, value, Integer.BYTES);
      value.put(key.epilogue);
      set(cublas.CUBLASLT_MATMUL_DESC_EPILOGUE, value, Integer.BYTES);
    }
    // A stored row-major matrix of r rows and c columns is column-major with c rows and r columns.
    a = layout(key.transA ? key.m : key.k, key.transA ? key.k : key.m, key.lda, key.strideA);
    b = layout(key.transB ? key.k : key.n, key.transB ? key.n : key.k, key.ldb, key.strideB);
    c = layout(key.n, key.m, key.ldc, key.strideC);
  }

  private cublasLtMatrixLayoutOpaque_t layout(long rows, long columns, long leading, long stride) {
    int type =
        switch (key.dtype) {
          case F32 -> cudart.CUDA_R_32F;
          case F16 -> cudart.CUDA_R_16F;
          case BF16 -> cudart.CUDA_R_16BF;
          default -> throw new IllegalArgumentException("no product of " + key.dtype);
        };
    cublasLtMatrixLayoutOpaque_t layout;
    try (PointerPointer<Pointer> made = new PointerPointer<>(1L)) {
      check(
          cublas.cublasLtMatrixLayoutCreate(made, type, rows, columns, leading),
          "cublasLtMatrixLayoutCreate");
      layout = new cublasLtMatrixLayoutOpaque_t(made.get());
    }
    if (key.batch > 1) {
      try (IntPointer count = new IntPointer(1L);
          LongPointer distance = new LongPointer(1L)) {
        count.put(key.batch);
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

  /** Where the epilogue reads a bias, or writes its gradient. */
  void bias(long at) {
    address.put(at);
    set(cublas.CUBLASLT_MATMUL_DESC_BIAS_POINTER, address, Long.BYTES);
  }

  /** Where the epilogue writes, or reads, the argument of an activation; it lies as c does. */
  void argument(long at) {
    address.put(at);
    set(cublas.CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, address, Long.BYTES);
    address.put(key.ldc);
    set(cublas.CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, address, Long.BYTES);
  }

  private void set(int attribute, Pointer value, long bytes) {
    check(
        cublas.cublasLtMatmulDescSetAttribute(operation, attribute, value, bytes),
        "cublasLtMatmulDescSetAttribute " + attribute);
  }

  /** The library's status of one product by {@code by}, on {@code stream}. */
  int run(Call call, cublasLtMatmulAlgo_t by, Operands at, CUstream_st stream) {
    return cublas.cublasLtMatmul(
        call.handle,
        operation,
        call.alpha,
        new DeviceAddress(at.b),
        b,
        new DeviceAddress(at.a),
        a,
        call.beta,
        new DeviceAddress(at.c),
        c,
        new DeviceAddress(at.c),
        c,
        by,
        call.workspace,
        call.workspaceBytes,
        stream);
  }

  static void check(int code, String call) {
    if (code != 0) {
      throw new IllegalStateException(call + " failed: " + status(code));
    }
  }

  static String status(int code) {
    return cublas.cublasLtGetStatusString(code).getString();
  }

  @Override
  public void close() {
    address.close();
    check(cublas.cublasLtMatmulDescDestroy(operation), "cublasLtMatmulDescDestroy");
    for (cublasLtMatrixLayoutOpaque_t layout : new cublasLtMatrixLayoutOpaque_t[] {a, b, c}) {
      check(cublas.cublasLtMatrixLayoutDestroy(layout), "cublasLtMatrixLayoutDestroy");
    }
  }
}
