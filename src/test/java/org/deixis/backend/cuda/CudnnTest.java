package org.deixis.backend.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.bytedeco.cuda.cudnn.cudnnContext;
import org.bytedeco.cuda.cudnn.cudnnConvolutionStruct;
import org.bytedeco.cuda.cudnn.cudnnFilterStruct;
import org.bytedeco.cuda.cudnn.cudnnTensorStruct;
import org.bytedeco.cuda.global.cudnn;
import org.bytedeco.javacpp.FloatPointer;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Conv2d;
import org.deixis.backend.Scope;
import org.deixis.bench.OpCase;
import org.deixis.core.DType;
import org.deixis.core.Rng;
import org.deixis.core.Shape;
import org.deixis.ops.Convolution;
import org.deixis.testing.CaseRun;
import org.deixis.testing.CudaHost;
import org.deixis.testing.Host;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * Convolutions through cuDNN's calls, answered by its stand-in, which refuses what the library
 * would. The table's cases run through it in CudaHostTest.
 */
@Tag("cuda-host")
class CudnnTest {
  private static final long SEED = Long.getLong("test.seed", 20261);
  private static final Backend REFERENCE = Backends.get("reference");
  private static CudaBackend backend;
  private static CudnnConvolutions convolutions;
  private static Driver driver;

  @BeforeAll
  static void standIn() {
    CudaHost.require();
    backend = CudaHost.backend();
    convolutions = assertInstanceOf(CudnnConvolutions.class, backend.convolutions());
    driver = new Driver();
  }

  @AfterAll
  static void close() {
    if (driver != null) { // null where the tests are skipped
      driver.close();
    }
  }

  private static OpCase convolution(int side, int kernel, int stride, int padding) {
    return OpCase.op(Convolution.NAME, kernel + "×" + kernel + " on " + side)
        .in(2, side, side + 2, 6)
        .scaled(0.2, 10, 6, kernel, kernel)
        .in(10)
        .run(v -> Convolution.apply(v[0], v[1], v[2], stride, padding));
  }

  /** Runs the case in all types and returns for how many passes cuDNN made plans. */
  private static int planned(OpCase c) {
    int before = convolutions.plans();
    for (DType dtype : List.of(DType.F32, DType.F16, DType.BF16)) {
      double tolerance = dtype == DType.F32 ? 2e-5 : dtype == DType.F16 ? 5e-3 : 2e-2;
      List<double[]> operands = CaseRun.operands(c, dtype, SEED);
      CaseRun.Result expected = CaseRun.run(c, REFERENCE, DType.F64, operands, SEED);
      long held = backend.memory().stats().live();
      for (int run = 0; run < 2; run++) {
        CaseRun.Result actual = CaseRun.run(c, backend, dtype, operands, SEED);
        assertEquals(held, backend.memory().stats().live(), c + " leaves memory behind");
        compare(c + " " + dtype + " y", actual.outputs(), expected.outputs(), tolerance);
        compare(c + " " + dtype + " d", actual.gradients(), expected.gradients(), tolerance);
      }
    }
    return convolutions.plans() - before;
  }

  private static void compare(
      String what, List<double[]> actual, List<double[]> expected, double tolerance) {
    for (int i = 0; i < expected.size(); i++) {
      double error = Host.relative(actual.get(i), expected.get(i));
      assertTrue(error <= tolerance, what + i + " is off by " + error + ", seed " + SEED);
    }
  }

  @Test
  void everyPassOfEveryTypeIsPlannedOnce() {
    assertEquals(9, planned(convolution(8, 3, 1, 1)), "3 passes of 3 types");
    assertEquals(0, planned(convolution(8, 3, 1, 1)), "plans are kept");
    assertEquals(9, planned(convolution(9, 5, 2, 2)));
    assertEquals(9, planned(convolution(7, 1, 1, 0)), "a kernel of one tap");
  }

  @Test
  void aShapeWithoutAnAlgorithmIsComputedByPatches() {
    assertEquals(0, planned(convolution(9, 13, 1, 6)), "the stand-in's kernels end at 11×11");
  }

  @Test
  void whatIsProposedAndThenRefusedIsComputedByTheNextOrByPatches() {
    assertEquals(3, planned(convolution(9, 9, 1, 4)), "forward has a third proposal");
    assertEquals(0, planned(convolution(9, 9, 1, 4)), "and the refused passes are not asked again");
    assertEquals(0, planned(convolution(9, 10, 1, 5)), "the heuristic does not know 10×10");
  }

  /** Pictures of 27 floats: the second begins at no multiple of 16 bytes. */
  @Test
  void operandsThatBeginAnywhereAreComputedToo() {
    Conv2d spec = new Conv2d(2, 3, 3, 3, 4, 3, 1, 1);
    Rng rng = new Rng(SEED, 7);
    double[] x = gaussian(rng, 81);
    double[] w = gaussian(rng, 108);
    int before = convolutions.plans();
    assertEquals(
        0, Host.relative(second(backend, spec, x, w), second(REFERENCE, spec, x, w)), 2e-5);
    assertEquals(before, convolutions.plans());
  }

  private static double[] gaussian(Rng rng, int n) {
    double[] v = new double[n];
    for (int i = 0; i < n; i++) {
      v[i] = (float) rng.nextGaussian();
    }
    return v;
  }

  private static double[] second(Backend on, Conv2d spec, double[] x, double[] w) {
    try (Scope scope = Scope.open()) {
      Array pictures = Host.upload(on, x, Shape.of(3, 3, 3, 3), DType.F32);
      Array weight = Host.upload(on, w, Shape.of(4, 3, 3, 3), DType.F32);
      Array y = Host.upload(on, new double[72], Shape.of(2, 3, 3, 4), DType.F32);
      on.conv2d(spec, pictures.slice(1, 3), weight, null, y);
      return Host.download(y);
    }
  }

  /** A forward call with everything right, which each mutant below changes in one place. */
  private static final class Call {
    int layout = cudnn.CUDNN_TENSOR_NHWC;
    int filterChannels = 8;
    int outHeight = 4;
    int stride = 1;
    int math = cudnn.CUDNN_FMA_MATH;
    int type = cudnn.CUDNN_DATA_FLOAT;
    int compute = cudnn.CUDNN_DATA_FLOAT;
    int algorithm = cudnn.CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
    int workspace = 64 + 2 * 4 * 4 * 8;
    int pictures = 2;
    long xOffset;
    boolean handle = true;
    boolean stream = true;

    /** Null, or what the library says. */
    String run() {
      cudnnContext context = new cudnnContext();
      cudnnTensorStruct x = new cudnnTensorStruct();
      cudnnTensorStruct y = new cudnnTensorStruct();
      cudnnFilterStruct w = new cudnnFilterStruct();
      cudnnConvolutionStruct c = new cudnnConvolutionStruct();
      try (Scope scope = Scope.open();
          FloatPointer one = new FloatPointer(1f);
          FloatPointer zero = new FloatPointer(0f)) {
        Array px = Host.upload(backend, new double[2 * 4 * 4 * 8], Shape.of(256), DType.F32);
        Array pw = Host.upload(backend, new double[4 * 9 * 8], Shape.of(288), DType.F32);
        Array py = Host.upload(backend, new double[2 * 4 * 4 * 4], Shape.of(128), DType.F32);
        Array space = Host.upload(backend, new double[80], Shape.of(80), DType.F32);
        backend.synchronize(); // the call's stream is another
        assertEquals(0, cudnn.cudnnCreate(context));
        assertEquals(0, cudnn.cudnnCreateTensorDescriptor(x));
        assertEquals(0, cudnn.cudnnCreateTensorDescriptor(y));
        assertEquals(0, cudnn.cudnnCreateFilterDescriptor(w));
        assertEquals(0, cudnn.cudnnCreateConvolutionDescriptor(c));
        if (stream) {
          driver.lock();
          assertEquals(0, cudnn.cudnnSetStream(context, driver.stream()));
          driver.unlock();
        }
        int[] codes = {
          cudnn.cudnnSetTensor4dDescriptor(x, layout, type, pictures, 8, 4, 4),
          cudnn.cudnnSetTensor4dDescriptor(
              y, cudnn.CUDNN_TENSOR_NHWC, type, pictures, 4, outHeight, 4),
          cudnn.cudnnSetFilter4dDescriptor(
              w, cudnn.CUDNN_DATA_FLOAT, cudnn.CUDNN_TENSOR_NHWC, 4, filterChannels, 3, 3),
          cudnn.cudnnSetConvolution2dDescriptor(
              c, 1, 1, stride, stride, 1, 1, cudnn.CUDNN_CROSS_CORRELATION, compute)
        };
        for (int code : codes) {
          if (code != 0) {
            return cudnn.cudnnGetErrorString(code).getString();
          }
        }
        assertEquals(0, cudnn.cudnnSetConvolutionMathType(c, math));
        int code =
            cudnn.cudnnConvolutionForward(
                handle ? context : null,
                one,
                x,
                new DeviceAddress(DeviceBuffer.address(px) + xOffset),
                w,
                new DeviceAddress(DeviceBuffer.address(pw)),
                c,
                algorithm,
                new DeviceAddress(DeviceBuffer.address(space)),
                workspace,
                zero,
                y,
                new DeviceAddress(DeviceBuffer.address(py)));
        return code == 0 ? null : cudnn.cudnnGetErrorString(code).getString();
      }
    }
  }

  private static void refused(Call call, String word) {
    String said = call.run();
    assertTrue(said != null && said.contains(word), word + ": " + said);
  }

  @Test
  void mutatedDescriptorsAreRefused() {
    assertNull(new Call().run());
    Call mutant = new Call();
    mutant.layout = cudnn.CUDNN_TENSOR_NCHW;
    refused(mutant, "channels-last");
    mutant = new Call();
    mutant.filterChannels = 4;
    refused(mutant, "filter of 4 channels, x of 8");
    mutant = new Call();
    mutant.outHeight = 5;
    refused(mutant, "y is 2×4×5×4, the convolution gives 2×4×4×4");
    mutant = new Call();
    mutant.stride = 2;
    refused(mutant, "the convolution gives 2×4×2×2");
    mutant = new Call();
    mutant.math = cudnn.CUDNN_DEFAULT_MATH;
    refused(mutant, "math type 0");
    mutant = new Call();
    mutant.type = cudnn.CUDNN_DATA_HALF;
    refused(mutant, "operands of several types");
    mutant = new Call();
    mutant.compute = cudnn.CUDNN_DATA_HALF;
    refused(mutant, "summed in fp32");
    mutant = new Call();
    mutant.algorithm = cudnn.CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED;
    refused(mutant, "algorithm 7");
    mutant = new Call();
    mutant.workspace = 64;
    refused(mutant, "a workspace of 64 bytes, not 320");
    mutant = new Call();
    mutant.pictures = 3;
    mutant.algorithm = cudnn.CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM; // which needs no workspace
    refused(mutant, "x is smaller than its descriptor");
    mutant = new Call();
    mutant.xOffset = 4;
    refused(mutant, "16 bytes");
    mutant = new Call();
    mutant.handle = false;
    refused(mutant, "no handle");
    mutant = new Call();
    mutant.stream = false;
    refused(mutant, "no stream");
  }
}
