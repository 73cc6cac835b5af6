package org.deixis.backend;

/**
 * {@code C[b] = activation(alpha · op(A[b]) · op(B[b]) + bias) + beta · C[b]} for b in [0, batch),
 * row-major: op(A) is m×k, op(B) k×n, C m×n. A leading dimension is the distance in elements
 * between stored rows; a stride that between matrices of the batch (0 shares one).
 */
public record Gemm(
    int batch,
    int m,
    int n,
    int k,
    boolean transA,
    boolean transB,
    float alpha,
    float beta,
    int lda,
    int ldb,
    int ldc,
    long strideA,
    long strideB,
    long strideC,
    Activation activation) {

  /** One product of densely stored matrices. */
  public static Gemm of(int m, int n, int k, boolean transA, boolean transB) {
    return batched(1, m, n, k, transA, transB);
  }

  /** A batch of densely stored matrices. */
  public static Gemm batched(int batch, int m, int n, int k, boolean transA, boolean transB) {
    return new Gemm(
        batch,
        m,
        n,
        k,
        transA,
        transB,
        1,
        0,
        transA ? m : k,
        transB ? k : n,
        n,
        (long) m * k,
        (long) k * n,
        (long) m * n,
        Activation.NONE);
  }

  public Gemm scaled(float newAlpha) {
    return new Gemm(
        batch,
        m,
        n,
        k,
        transA,
        transB,
        newAlpha,
        beta,
        lda,
        ldb,
        ldc,
        strideA,
        strideB,
        strideC,
        activation);
  }

  /** The same product added to {@code newBeta} times what C held. */
  public Gemm accumulating(float newBeta) {
    return new Gemm(
        batch,
        m,
        n,
        k,
        transA,
        transB,
        alpha,
        newBeta,
        lda,
        ldb,
        ldc,
        strideA,
        strideB,
        strideC,
        activation);
  }

  public Gemm activated(Activation newActivation) {
    return new Gemm(
        batch,
        m,
        n,
        k,
        transA,
        transB,
        alpha,
        beta,
        lda,
        ldb,
        ldc,
        strideA,
        strideB,
        strideC,
        newActivation);
  }

  /** Multiply-adds counted as two operations. */
  public long flops() {
    return 2L * batch * m * n * k;
  }
}
